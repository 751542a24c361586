/* One table of options drives parsing, defaults, bounds and help. Options may stand before or after the command, as
 * "--name value" or
 * "--name=value". */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "model/value.h"
#include "server/tools/rankctl.h"

enum type { TEXT, NUMBER, FLAG };

static const struct option {
    const char *name;
    enum type type;
    const char *argument;
    unsigned commands; /* rk_ctl_command_bit */
    size_t offset;
    uint64_t least, most;
    const char *initial; /* NULL: none, 0, false */
    const char *help;
} table[] = {
#define FIELD(name) offsetof(struct rk_ctl_options, name)
    {"target", TEXT, "HOST:PORT", RK_CTL_ALL, FIELD(target), 0, 0, "127.0.0.1:8470",
     "the server to talk to; or unix:/PATH"},
    {"tls", FLAG, NULL, RK_CTL_ALL, FIELD(security.tls), 0, 0, NULL, "talk TLS; the system's CAs vouch for the server"},
    {"ca", TEXT, "FILE", RK_CTL_ALL, FIELD(security.ca), 0, 0, NULL, "talk TLS; the CAs in this PEM file do"},
    {"cert", TEXT, "FILE", RK_CTL_ALL, FIELD(security.certificate), 0, 0, NULL, "the certificate to show, PEM"},
    {"key", TEXT, "FILE", RK_CTL_ALL, FIELD(security.key), 0, 0, NULL, "its key, PEM"},
    {"server-name", TEXT, "NAME", RK_CTL_ALL, FIELD(security.server_name), 0, 0, NULL,
     "whom the server's certificate has to name; else the target's host"},
    {"token-file", TEXT, "FILE", RK_CTL_ALL, FIELD(security.token_file), 0, 0, NULL,
     "a file with the token to send: authorization: Bearer TOKEN"},
    {"connect-timeout-ms", NUMBER, "N", RK_CTL_ALL, FIELD(connect_timeout_ms), 1, 3600000, "5000",
     "how long to try to connect"},
    {"model", TEXT, "NAME", RK_CTL_RANK | RK_CTL_BENCH, FIELD(model), 0, 0, NULL, "the model that ranks"},
    {"version", NUMBER, "V", RK_CTL_RANK | RK_CTL_BENCH, FIELD(version), 0, INT64_MAX, "0",
     "its version; 0: the one being served"},
    {"requests", TEXT, "FILE.jsonl", RK_CTL_RANK | RK_CTL_BENCH, FIELD(requests), 0, 0, NULL,
     "requests, one JSON object a line; -: standard input"},
    {"top", NUMBER, "K", RK_CTL_RANK | RK_CTL_BENCH, FIELD(top), 0, UINT32_MAX, "0",
     "only the best K, best first; 0: all, as they stand"},
    {"order-by", TEXT, "HEAD", RK_CTL_RANK | RK_CTL_BENCH, FIELD(order_by), 0, 0, NULL,
     "the head that --top sorts by; else the model's default value model, or its first head"},
    {"value-model", TEXT, "NAME", RK_CTL_RANK | RK_CTL_BENCH, FIELD(value_model), 0, 0, NULL,
     "rank by this one of the model's value models"},
    {"value", TEXT, "FORMULA", RK_CTL_RANK | RK_CTL_BENCH, FIELD(value), 0, 0, NULL,
     "rank by this: 0.7*play + 0.3*binge, 0.7*logit(play) + 0.3*logit(binge), or play * binge^0.5"},
    {"priority", TEXT, "NAME", RK_CTL_RANK | RK_CTL_BENCH, FIELD(priority), 0, 0, NULL,
     "the class of the requests, of the server's priority_weights; else its first"},
    {"costs", FLAG, NULL, RK_CTL_RANK, FIELD(costs), 0, 0, NULL,
     "also where the time went in the server: a table on standard error, or in the JSON with --json"},
    {"titles", TEXT, "FILE.tsv", RK_CTL_RANK, FIELD(titles), 0, 0, NULL,
     "with --top: names of candidates; first column: id, last: title"},
    {"title-feature", TEXT, "NAME", RK_CTL_RANK, FIELD(title_feature), 0, 0, NULL,
     "the candidate feature whose first id names a candidate; else the first with one id each"},
    {"deadline-ms", NUMBER, "N", RK_CTL_ALL, FIELD(deadline_ms), 0, 86400000, "10000",
     "deadline of each call; 0: none"},
    {"service", TEXT, "NAME", RK_CTL_HEALTH, FIELD(service), 0, 0, NULL, "whose health; else the server's"},
    {"connections", NUMBER, "C", RK_CTL_BENCH, FIELD(connections), 1, 1024, "1", "connections to open"},
    {"in-flight", NUMBER, "N", RK_CTL_BENCH, FIELD(in_flight), 1, 4096, "1", "calls to keep open on each connection"},
    {"seconds", NUMBER, "S", RK_CTL_BENCH, FIELD(seconds), 1, 86400, "10", "how long to measure"},
    {"duration", NUMBER, "S", RK_CTL_BENCH, FIELD(seconds), 1, 86400, NULL, "the same as --seconds"},
    {"rate", NUMBER, "R", RK_CTL_BENCH, FIELD(rate), 0, RK_CTL_MAX_RATE, "0",
     "requests a second, sent whether or not answers come (open loop); 0: as fast as they are answered"},
    {"arrivals", TEXT, "NAME", RK_CTL_BENCH, FIELD(arrivals), 0, 0, "constant",
     "with --rate: constant (at fixed intervals) or poisson (at random, as from many users)"},
    {"find-rate", FLAG, NULL, RK_CTL_BENCH, FIELD(find_rate), 0, 0, NULL,
     "look for the highest rate at which 99 % of all calls are answered within --p99-ms; --rate is the first tried"},
    {"p99-ms", NUMBER, "N", RK_CTL_BENCH, FIELD(p99_ms), 1, 3600000, "50", "the bound of --find-rate"},
    {"seed", NUMBER, "N", RK_CTL_BENCH, FIELD(seed), 0, UINT64_MAX, "1", "of --arrivals poisson"},
    {"warmup-ms", NUMBER, "N", RK_CTL_BENCH, FIELD(warmup_ms), 0, 3600000, "0",
     "load that is not measured before; 0: a tenth of --seconds, at most a second"},
    {"log", TEXT, "FILE.csv", RK_CTL_BENCH, FIELD(log), 0, 0, NULL,
     "what came of the calls that were due in each interval of --log-ms"},
    {"log-ms", NUMBER, "N", RK_CTL_BENCH, FIELD(log_ms), 1, 60000, "100", "the intervals of --log"},
    {"empty", FLAG, NULL, RK_CTL_BENCH, FIELD(empty), 0, 0, NULL, "call the health service instead of ranking"},
    {"json", FLAG, NULL, RK_CTL_ALL, FIELD(json), 0, 0, NULL, "print JSON"},
    {"help", FLAG, NULL, RK_CTL_ALL, FIELD(help), 0, 0, NULL, "show this"},
};
#define NUM_OPTIONS (sizeof table / sizeof *table)

static const struct option *find_option(const char *name, size_t length)
{
    for (size_t i = 0; i < NUM_OPTIONS; i++) {
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0)
            return &table[i];
    }
    return NULL;
}

static const struct rk_ctl_command *find_command(const char *name)
{
    for (unsigned i = 0; i < rk_ctl_num_commands; i++) {
        if (strcmp(rk_ctl_commands[i].name, name) == 0)
            return &rk_ctl_commands[i];
    }
    return NULL;
}

static bool complain(const char *what, const char *name, const char *fix)
{
    fprintf(stderr, "rankctl: %s '%s'%s\n", what, name, fix);
    return false;
}

static bool set(const struct option *option, const char *value, struct rk_ctl_options *options)
{
    char *field = (char *)options + option->offset;
    if (option->type == FLAG) {
        *(bool *)field = true;
        return true;
    }
    if (option->type == TEXT) {
        *(const char **)field = value;
        return true;
    }
    char *end;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || number < option->least ||
        number > option->most) {
        fprintf(stderr, "rankctl: --%s is '%s'; it takes a whole number from %llu to %llu\n", option->name, value,
                (unsigned long long)option->least, (unsigned long long)option->most);
        return false;
    }
    *(uint64_t *)field = number;
    return true;
}

static bool check_formula(const char *text)
{
    struct rk_arena arena;
    struct rk_named_value named;
    struct rk_error error = {0};
    rk_arena_init(&arena, 1024);
    const bool fine = rk_value_parse(text, &arena, &named, &error) == RK_OK;
    rk_arena_deinit(&arena);
    if (!fine)
        fprintf(stderr, "rankctl: --value: %s\n", error.text);
    return fine;
}

static bool check_complete(const struct rk_ctl_command *command, const struct rk_ctl_options *options)
{
    bool ranks = command->bit == RK_CTL_RANK || (command->bit == RK_CTL_BENCH && !options->empty);
    if (ranks && options->model == NULL)
        return complain("--model is missing for", command->name, "; rankctl status lists the models");
    if (ranks && options->requests == NULL)
        return complain("--requests is missing for", command->name,
                        "; it takes a file of JSON lines, or - for standard input");
    if (options->titles != NULL && options->top == 0)
        return complain("--titles needs", "--top", ": it names the best candidates");
    if (strcmp(options->arrivals, "constant") != 0 && strcmp(options->arrivals, "poisson") != 0)
        return complain("--arrivals is", options->arrivals, "; it is constant or poisson");
    if (options->find_rate && options->log != NULL)
        return complain("--find-rate has no", "--log", ": measure the rate that it finds with --rate");
    return options->value == NULL || check_formula(options->value);
}

bool rk_ctl_parse(int argc, char **argv, struct rk_ctl_options *options, const struct rk_ctl_command **command)
{
    const struct option *given[64] = {NULL};
    size_t num_given = 0;
    *options = (struct rk_ctl_options){0};
    *command = NULL;
    for (size_t i = 0; i < NUM_OPTIONS; i++) {
        if (table[i].initial != NULL && !set(&table[i], table[i].initial, options))
            return false;
    }
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "-h") == 0)
            word = "--help";
        if (strncmp(word, "--", 2) != 0) {
            if (*command != NULL)
                return complain("unexpected argument", word, "; try --help");
            if (strcmp(word, "help") == 0) {
                options->help = true;
                continue;
            }
            *command = find_command(word);
            if (*command == NULL)
                return complain("unknown command", word, "; it is one of rank, status, health, bench");
            continue;
        }
        const char *equals = strchr(word, '=');
        size_t length = equals != NULL ? (size_t)(equals - word - 2) : strlen(word + 2);
        const struct option *option = find_option(word + 2, length);
        if (option == NULL)
            return complain("unknown option", word, "; try --help");
        if (option->type == FLAG && equals != NULL)
            return complain("this option takes no value:", word, "");
        const char *value = equals != NULL ? equals + 1 : NULL;
        if (option->type != FLAG && value == NULL) {
            if (i + 1 == argc)
                return complain("a value is missing after", word, "; try --help");
            value = argv[++i];
        }
        if (!set(option, value, options))
            return false;
        if (num_given < sizeof given / sizeof *given)
            given[num_given++] = option;
    }
    if (options->help)
        return true;
    if (*command == NULL) {
        rk_ctl_print_help(stderr, NULL);
        return false;
    }
    for (size_t i = 0; i < num_given; i++) {
        if ((given[i]->commands & (*command)->bit) == 0) {
            fprintf(stderr, "rankctl: '%s' has no option --%s; try rankctl %s --help\n", (*command)->name,
                    given[i]->name, (*command)->name);
            return false;
        }
    }
    return check_complete(*command, options);
}

void rk_ctl_print_help(FILE *stream, const struct rk_ctl_command *command)
{
    fprintf(stream, "Examples:\n");
    for (unsigned i = 0; i < rk_ctl_num_commands; i++) {
        if (command == NULL || command == &rk_ctl_commands[i])
            fputs(rk_ctl_commands[i].examples, stream);
    }
    fprintf(stream, "\nUsage: rankctl [--target HOST:PORT] COMMAND [OPTIONS]\n\n");
    for (unsigned i = 0; i < rk_ctl_num_commands; i++) {
        if (command == NULL || command == &rk_ctl_commands[i])
            fprintf(stream, "  %-8s %s\n", rk_ctl_commands[i].name, rk_ctl_commands[i].summary);
    }
    fprintf(stream, "\nOptions%s%s:\n", command == NULL ? "" : " of ", command == NULL ? "" : command->name);
    for (size_t i = 0; i < NUM_OPTIONS; i++) {
        const struct option *option = &table[i];
        if (command != NULL && (option->commands & command->bit) == 0)
            continue;
        char left[48];
        snprintf(left, sizeof left, "--%s %s", option->name, option->argument != NULL ? option->argument : "");
        fprintf(stream, "  %-24s %s", left, option->help);
        if (option->initial != NULL)
            fprintf(stream, " [%s]", option->initial);
        fputc('\n', stream);
    }
    fprintf(stream, "\nExit status: 0 done, 1 failed, 2 wrong usage, 3 cannot connect.\n");
}
