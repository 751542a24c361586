/* What every benchmark program has: options, a core to stay on, an end when something fails. */
#ifndef RANKD_TESTS_BENCH_PROGRAM_H
#define RANKD_TESTS_BENCH_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

/* Prints "bench_x: what: error" and ends the program with 1. error may be NULL. */
_Noreturn void bench_fail(const char *what, const struct rk_error *error);

/* This thread stays on a core: where it is, or the n-th that it may use. */
void bench_pin(int core);
#define BENCH_THIS_CORE (-1)

enum { BENCH_MAX_COUNTS = 16 };

struct bench_counts {
    uint32_t list[BENCH_MAX_COUNTS], count;
};

enum bench_option_kind {
    BENCH_FLAG,    /* bool */
    BENCH_TEXT,    /* const char * */
    BENCH_COUNT,   /* uint32_t from 1 to `most` */
    BENCH_COUNTS,  /* struct bench_counts: some of these, with commas between */
    BENCH_SECONDS, /* double, more than 0 and at most an hour */
};

/* value points to what the kind says, and holds the default; text without one must be given. */
struct bench_option {
    const char *name; /* without dashes; NULL ends the list */
    enum bench_option_kind kind;
    void *value;
    const char *help;
    uint32_t most; /* of counts */
};
#define BENCH_OPTION(name, kind, value, help)                                                                          \
    {                                                                                                                  \
        name, kind, value, help, 0                                                                                     \
    }
#define BENCH_OPTION_UP_TO(most, name, kind, value, help)                                                              \
    {                                                                                                                  \
        name, kind, value, help, most                                                                                  \
    }
#define BENCH_OPTIONS_END BENCH_OPTION(NULL, BENCH_FLAG, NULL, NULL)

/* Reads "--name value" and "--name=value". Prints what there is and ends the program when asked to (0), or when
 * something is wrong (2). RANKD_CPU is read as well: a name that is none of an instruction set ends the program (1). */
void bench_options(int argc, char **argv, const struct bench_option *options);

#endif
