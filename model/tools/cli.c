/* Parsing, help, progress and complaints. Single-threaded but for the signal flag. */
#include "model/tools/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "embeddings/mapped_file.h"
#include "model/nearest.h"
#include "quant/kernels.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    interrupted = signal_number;
}

void cli_catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}; /* a second one kills */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* ---- complaints ---- */

static void complain(const char *format, va_list arguments)
{
    cli_progress_end();
    fputs("rankpack: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

int cli_usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
    return EXIT_USAGE;
}

void cli_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    complain(format, arguments);
    va_end(arguments);
}

int cli_failed(const struct rk_error *error)
{
    cli_say("%s", error->text[0] != '\0' ? error->text : rk_status_name(error->status));
    return EXIT_FAILED;
}

int cli_finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_FINE;
    cli_say("failed to write to standard output: %s", strerror(errno));
    return EXIT_FAILED;
}

/* ---- help ---- */

static size_t count_options(const struct cli_command *command)
{
    size_t count = 0;
    while (count < CLI_MAX_OPTIONS && command->options[count].name != NULL)
        count++;
    return count;
}

static void print_help(void)
{
    puts("rankpack " RANKD_VERSION ": makes model packages for rankd, and looks inside them\n");
    puts("Examples:");
    for (const struct cli_command *command = rankpack_commands; command->name != NULL; command++)
        printf("  %s\n", command->examples[0]);
    puts("\nCommands:");
    for (const struct cli_command *command = rankpack_commands; command->name != NULL; command++)
        printf("  %-9s %s\n", command->name, command->summary);
    puts("\n'rankpack COMMAND --help' explains one. Exit codes: 0 fine, 1 failed, 2 wrong usage.");
}

static void print_command_help(const struct cli_command *command)
{
    printf("rankpack %s: %s\n\nExamples:\n", command->name, command->summary);
    for (const char *const *example = command->examples; *example != NULL; example++)
        printf("  %s\n", *example);
    printf("\nUsage: rankpack %s%s%s%s [OPTION...]\n\nOptions:\n", command->name, command->operand != NULL ? " " : "",
           command->operand != NULL ? command->operand : "", command->many_operands ? "..." : "");
    for (size_t i = 0; i < count_options(command); i++) {
        const struct cli_option *option = &command->options[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", option->name, option->value != NULL ? " " : "",
                 option->value != NULL ? option->value : "");
        printf("  %-28s %s%s%s\n", left, option->help, option->required ? " (required)" : "",
               option->repeated ? " (may be repeated)" : "");
    }
}

/* ---- parsing ---- */

static const struct cli_command *find_command(const char *name)
{
    for (const struct cli_command *command = rankpack_commands; command->name != NULL; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[32];
    size_t count = 0;
    for (const struct cli_command *command = rankpack_commands; command->name != NULL && count < 32; command++)
        names[count++] = command->name;
    char hint[160];
    return cli_usage_error("'%s' is not a command%s see rankpack --help", name,
                           *rk_did_you_mean(name, names, count, hint, sizeof hint) != '\0' ? hint : ";");
}

static int unknown_option(const struct cli_command *command, const char *name)
{
    const char *names[CLI_MAX_OPTIONS];
    size_t count = count_options(command);
    for (size_t i = 0; i < count; i++)
        names[i] = command->options[i].name;
    const char *nearest;
    if (rk_nearest_names(name, names, count, &nearest, 1) == 1)
        return cli_usage_error("%s has no option '--%s'; did you mean '--%s'? see rankpack %s --help", command->name,
                               name, nearest, command->name);
    return cli_usage_error("%s has no option '--%s'; see rankpack %s --help", command->name, name, command->name);
}

/* Parses "--name value", "--name=value" and "--flag" at argv[*i]. */
static int parse_option(struct cli_arguments *arguments, int argc, char **argv, int *i)
{
    const struct cli_command *command = arguments->command;
    char *name = argv[*i] + 2, *equals = strchr(name, '=');
    if (equals != NULL)
        *equals = '\0';
    const struct cli_option *option = NULL;
    for (size_t o = 0; o < count_options(command) && option == NULL; o++)
        if (strcmp(command->options[o].name, name) == 0)
            option = &command->options[o];
    if (option == NULL)
        return unknown_option(command, name);
    if (!option->repeated && cli_has(arguments, name))
        return cli_usage_error("--%s is given twice", name);
    const char *text = "";
    if (option->value == NULL && equals != NULL)
        return cli_usage_error("--%s takes no value", name);
    if (option->value != NULL) {
        if (equals == NULL && *i + 1 >= argc)
            return cli_usage_error("--%s needs a value: %s", name, option->value);
        text = equals != NULL ? equals + 1 : argv[++*i];
        if (text[0] == '\0')
            return cli_usage_error("--%s needs a value: %s", name, option->value);
    }
    if (arguments->num_values == CLI_MAX_REPEATS)
        return cli_usage_error("too many options");
    arguments->values[arguments->num_values++] = (struct cli_value){.option = option, .text = text};
    return EXIT_FINE;
}

static int parse_and_run(const struct cli_command *command, int argc, char **argv)
{
    const char **operands = calloc((size_t)argc, sizeof *operands);
    struct cli_arguments arguments = {.command = command,
                                      .operands = operands,
                                      .values = calloc(CLI_MAX_REPEATS, sizeof(struct cli_value))};
    int code = arguments.values != NULL && operands != NULL ? EXIT_FINE : EXIT_FAILED;
    bool only_operands = false;
    for (int i = 2; code == EXIT_FINE && i < argc; i++) {
        if (!only_operands && strcmp(argv[i], "--help") == 0) {
            print_command_help(command);
            goto done;
        }
        if (!only_operands && strcmp(argv[i], "--") == 0)
            only_operands = true;
        else if (!only_operands && strncmp(argv[i], "--", 2) == 0)
            code = parse_option(&arguments, argc, argv, &i);
        else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0')
            code = cli_usage_error("'%s' is not an option; options begin with '--'", argv[i]);
        else if (command->operand == NULL || (arguments.num_operands > 0 && !command->many_operands))
            code = cli_usage_error("'%s' is one argument too many; see rankpack %s --help", argv[i], command->name);
        else
            operands[arguments.num_operands++] = argv[i];
    }
    arguments.operand = operands != NULL ? operands[0] : NULL;
    if (code == EXIT_FINE && command->operand != NULL && arguments.operand == NULL)
        code = cli_usage_error("%s needs %s; see rankpack %s --help", command->name, command->operand, command->name);
    for (size_t i = 0; code == EXIT_FINE && i < count_options(command); i++)
        if (command->options[i].required && !cli_has(&arguments, command->options[i].name))
            code = cli_usage_error("%s needs --%s %s; see rankpack %s --help", command->name, command->options[i].name,
                                   command->options[i].value, command->name);
    if (code == EXIT_FINE)
        code = command->run(&arguments);
done:
    free(operands);
    free(arguments.values);
    cli_progress_end();
    return code;
}

int cli_main(int argc, char **argv)
{
    struct rk_error error = {0};
    if (rk_mapped_file_contain_sigbus(&error) != RK_OK || rk_kernels_check_mask(&error) != RK_OK)
        return cli_failed(&error);
    if (argc < 2) {
        print_help();
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        const struct cli_command *command = argc > 2 ? find_command(argv[2]) : NULL;
        if (argc > 2 && command == NULL)
            return unknown_command(argv[2]);
        command != NULL ? print_command_help(command) : print_help();
        return cli_finish_output();
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("rankpack " RANKD_VERSION);
        return cli_finish_output();
    }
    const struct cli_command *command = find_command(argv[1]);
    return command != NULL ? parse_and_run(command, argc, argv) : unknown_command(argv[1]);
}

const char *cli_get(const struct cli_arguments *arguments, const char *name)
{
    for (uint32_t i = arguments->num_values; i-- > 0;)
        if (strcmp(arguments->values[i].option->name, name) == 0)
            return arguments->values[i].text;
    return NULL;
}

bool cli_has(const struct cli_arguments *arguments, const char *name)
{
    return cli_get(arguments, name) != NULL;
}

bool cli_parse_number(const char *what, const char *text, bool bytes, uint64_t min, uint64_t max, uint64_t *number)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool fine = errno == 0 && end != text && text[0] >= '0' && text[0] <= '9';
    if (fine && bytes && *end != '\0') {
        const char *suffixes = "KMGT", *suffix = strchr(suffixes, *end);
        unsigned shift = suffix != NULL ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
        fine = suffix != NULL && value <= UINT64_MAX >> shift;
        value <<= shift;
        end++;
    }
    if (!fine || *end != '\0' || value < min || value > max) {
        cli_usage_error("%s is '%s', must be a whole number from %" PRIu64 " to %" PRIu64 "%s", what, text, min, max,
                        bytes ? ", with K, M, G or T behind it if you like" : "");
        return false;
    }
    *number = value;
    return true;
}

bool cli_number(const struct cli_arguments *arguments, const char *name, bool bytes, uint64_t min, uint64_t max,
                uint64_t *number)
{
    const char *text = cli_get(arguments, name);
    char what[64];
    snprintf(what, sizeof what, "--%s", name);
    return text == NULL || cli_parse_number(what, text, bytes, min, max, number);
}

bool cli_number_u32(const struct cli_arguments *arguments, const char *name, uint32_t min, uint32_t max,
                    uint32_t *number)
{
    uint64_t wide = *number;
    if (!cli_number(arguments, name, false, min, max, &wide))
        return false;
    *number = (uint32_t)wide;
    return true;
}

/* ---- progress ---- */

static bool line_open; /* a progress line waits for its newline */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool show_progress(const char *what, uint64_t done, uint64_t total, bool bytes)
{
    static double last;
    double now = seconds();
    if (last == 0)
        last = now;
    bool terminal = isatty(STDERR_FILENO);
    /* Short work stays silent. */
    if (now - last < (terminal ? 0.2 : 10))
        return interrupted == 0;
    last = now;
    if (total == 0)
        fprintf(stderr, "%s%s", terminal ? "\r\033[K" : "", what);
    else if (bytes)
        fprintf(stderr, "%s%s: %s of %s (%u%%)", terminal ? "\r\033[K" : "", what, cli_bytes(done), cli_bytes(total),
                (unsigned)(100 * ((double)done / (double)total)));
    else
        fprintf(stderr, "%s%s: %" PRIu64 " of %" PRIu64, terminal ? "\r\033[K" : "", what, done, total);
    line_open = terminal;
    if (!terminal)
        fputc('\n', stderr);
    fflush(stderr);
    return interrupted == 0;
}

bool cli_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    (void)context;
    return show_progress(what, done, total, true);
}

bool cli_progress_count(const char *what, uint64_t done, uint64_t total)
{
    return show_progress(what, done, total, false);
}

void cli_progress_end(void)
{
    if (line_open)
        fputs("\r\033[K", stderr);
    line_open = false;
}

const char *cli_bytes(uint64_t bytes)
{
    static char buffers[8][32];
    static unsigned next;
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    char *buffer = buffers[next++ % 8];
    unsigned unit = 0;
    double value = (double)bytes;
    for (; value >= 1024 && unit < 6; unit++)
        value /= 1024;
    snprintf(buffer, sizeof buffers[0], unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buffer;
}
