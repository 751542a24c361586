/* rankpack's command line: one table of commands and options drives parsing and help. */
#ifndef RANKD_MODEL_TOOLS_CLI_H
#define RANKD_MODEL_TOOLS_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/base/status.h"

#define CLI_MAX_OPTIONS 32
#define CLI_MAX_REPEATS 4096

enum exit_code { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct cli_option {
    const char *name;  /* without "--" */
    const char *value; /* what help calls it: "FILE"; NULL for a flag */
    const char *help;
    bool required, repeated;
};

struct cli_arguments;

struct cli_command {
    const char *name;
    const char *operand; /* "MODEL_DIR", or NULL when the command takes none */
    bool many_operands;  /* one or more of them */
    const char *summary;
    const char *const *examples;                /* NULL ends the list */
    struct cli_option options[CLI_MAX_OPTIONS]; /* a NULL name ends the list */
    int (*run)(const struct cli_arguments *arguments);
};

struct cli_value {
    const struct cli_option *option;
    const char *text; /* "" for a flag */
};

struct cli_arguments {
    const struct cli_command *command;
    const char *operand;         /* the first */
    const char *const *operands; /* all of them */
    uint32_t num_operands;
    struct cli_value *values; /* in the order given */
    uint32_t num_values;
};

/* Every command; a NULL name ends the list. */
extern const struct cli_command rankpack_commands[];

/* Parses and runs. Returns the exit code. */
int cli_main(int argc, char **argv);

/* The option's (last) value, or NULL when it was not given. */
const char *cli_get(const struct cli_arguments *arguments, const char *name);
bool cli_has(const struct cli_arguments *arguments, const char *name);

/* A whole number from min to max; *number keeps its value when the option was not given. With `bytes` a suffix K, M, G
 * or T is a power of 1024. Returns false after it has complained. */
bool cli_number(const struct cli_arguments *arguments, const char *name, bool bytes, uint64_t min, uint64_t max,
                uint64_t *number);
bool cli_number_u32(const struct cli_arguments *arguments, const char *name, uint32_t min, uint32_t max,
                    uint32_t *number);
/* The same for a piece of text: what complains is called `what`. */
bool cli_parse_number(const char *what, const char *text, bool bytes, uint64_t min, uint64_t max, uint64_t *number);

/* "rankpack: ..." on standard error. */
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cli_failed(const struct rk_error *error);
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From now on SIGINT and SIGTERM make cli_progress() return false, for work that cleans up behind itself. */
void cli_catch_interrupts(void);

/* Progress of long work on standard error: a line that rewrites itself on a terminal, a line every ten seconds
 * elsewhere. The context is unused. Returns false once the program was interrupted. */
bool cli_progress(void *context, const char *what, uint64_t done, uint64_t total);
/* The same for work that is counted in other things than bytes. */
bool cli_progress_count(const char *what, uint64_t done, uint64_t total);
void cli_progress_end(void);

/* "1.5 GiB" in one of a few static buffers. */
const char *cli_bytes(uint64_t bytes);

/* The exit code of a command that printed: complains when standard output did not take it all. */
int cli_finish_output(void);

#endif
