/* Parses `--flag value` and `--flag=value` in two passes: first the flags that change what is done and --config, then
 * the options. Runs in main before anything else. */
#include "server/command_line.h"

#include <string.h>

#include "server/config_yaml.h"

struct flag {
    const char *name; /* behind "--" */
    size_t name_length;
    const char *value; /* NULL: none was given */
};

/* Takes the flag at argv[*at]; a value may stand behind '=' or in the next argument, for flags that take one. */
static enum rk_status next_flag(int argc, char *const *argv, int *at, struct flag *flag, struct rk_error *error)
{
    static const char *const without_value[] = {"check", "help", "version", "print-config"};
    const char *argument = argv[(*at)++];
    if (strcmp(argument, "-h") == 0)
        argument = "--help";
    if (strncmp(argument, "--", 2) != 0 || argument[2] == '\0')
        return rk_error_set(error, RK_INVALID, "'%.100s' is not a flag; rankd takes flags only, see rankd --help",
                            argument);
    flag->name = argument + 2;
    flag->name_length = strcspn(flag->name, "=");
    flag->value = flag->name[flag->name_length] == '=' ? flag->name + flag->name_length + 1 : NULL;
    for (size_t i = 0; i < sizeof without_value / sizeof without_value[0]; i++) {
        if (strlen(without_value[i]) != flag->name_length ||
            memcmp(flag->name, without_value[i], flag->name_length) != 0)
            continue;
        if (flag->value != NULL)
            return rk_error_set(error, RK_INVALID, "--%s takes no value", without_value[i]);
        return RK_OK;
    }
    bool is_config = flag->name_length == 6 && memcmp(flag->name, "config", 6) == 0;
    if (!is_config && rk_option_find(flag->name, flag->name_length) == NULL) {
        const char *suggestion = rk_option_suggest(flag->name, flag->name_length);
        return rk_error_set(error, RK_INVALID, "there is no flag --%.*s; %s",
                            (int)(flag->name_length < 64 ? flag->name_length : 64), flag->name,
                            suggestion[0] != '\0' ? suggestion : "rankd --help lists them");
    }
    if (flag->value == NULL) {
        if (*at >= argc)
            return rk_error_set(error, RK_INVALID, "--%s needs a value", flag->name);
        flag->value = argv[(*at)++];
    }
    return RK_OK;
}

static bool is(const struct flag *flag, const char *name)
{
    return strlen(name) == flag->name_length && memcmp(flag->name, name, flag->name_length) == 0;
}

enum rk_status rk_command_line_parse(int argc, char *const *argv, struct rk_command_line *line, struct rk_error *error)
{
    *line = (struct rk_command_line){0};
    rk_options_init(&line->options);
    const char *config = NULL;
    struct flag flag;
    for (int at = 1; at < argc;) {
        enum rk_status status = next_flag(argc, argv, &at, &flag, error);
        if (status != RK_OK)
            return status;
        line->check |= is(&flag, "check");
        line->help |= is(&flag, "help");
        line->version |= is(&flag, "version");
        line->print_config |= is(&flag, "print-config");
        if (!is(&flag, "config"))
            continue;
        if (config != NULL)
            return rk_error_set(error, RK_INVALID, "--config is given twice; rankd reads one configuration file");
        config = flag.value;
    }
    if (line->help || line->version || line->print_config)
        return RK_OK;
    if (config != NULL) {
        enum rk_status status = rk_config_read(config, &line->options, error);
        if (status != RK_OK)
            return status;
    }
    for (int at = 1; at < argc;) {
        enum rk_status status = next_flag(argc, argv, &at, &flag, error);
        const struct rk_option *option = status == RK_OK ? rk_option_find(flag.name, flag.name_length) : NULL;
        if (status == RK_OK && option != NULL)
            status = rk_option_set(&line->options, option, flag.value, strlen(flag.value), error);
        if (status != RK_OK)
            return status;
    }
    return rk_options_check(&line->options, error);
}
