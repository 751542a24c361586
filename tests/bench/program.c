/* The table of a benchmark's options is its whole command line: what is read, checked and explained. */
#include "tests/bench/program.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/kernels.h"

static const struct {
    const char *value, *wanted;
} kinds[] = {
    [BENCH_FLAG] = {"", ""},
    [BENCH_TEXT] = {" TEXT", "some text"},
    [BENCH_COUNT] = {" N", "a whole number from 1 to"},
    [BENCH_COUNTS] = {" N,N,...", "up to 16 whole numbers with commas between, each from 1 to"},
    [BENCH_SECONDS] = {" S", "seconds, more than 0 and at most 3600"},
};

void bench_fail(const char *what, const struct rk_error *error)
{
    fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what, error != NULL ? ": " : "",
            error != NULL ? error->text : "");
    exit(1);
}

void bench_pin(int core)
{
    cpu_set_t allowed, set;
    CPU_ZERO(&set);
    if (core < 0) {
        CPU_SET((size_t)sched_getcpu(), &set);
    } else {
        sched_getaffinity(0, sizeof allowed, &allowed);
        for (size_t c = 0; c < CPU_SETSIZE; c++)
            if (CPU_ISSET(c, &allowed) && core-- == 0)
                CPU_SET(c, &set);
    }
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        perror("not pinned to a core");
}

/* ---- options ---- */

static void print_default(FILE *stream, const struct bench_option *option)
{
    const char *text = option->kind == BENCH_TEXT ? *(const char **)option->value : NULL;
    const struct bench_counts *counts = option->value;
    if (text != NULL)
        fprintf(stream, " (%s)", text);
    else if (option->kind == BENCH_COUNT)
        fprintf(stream, " (%u)", *(const uint32_t *)option->value);
    else if (option->kind == BENCH_SECONDS)
        fprintf(stream, " (%g)", *(const double *)option->value);
    else if (option->kind == BENCH_COUNTS)
        for (uint32_t i = 0; i < counts->count; i++)
            fprintf(stream, "%s%u%s", i == 0 ? " (" : ",", counts->list[i], i + 1 == counts->count ? ")" : "");
}

static void print_usage(FILE *stream, const struct bench_option *options)
{
    fprintf(stream, "usage: %s [options]\n", program_invocation_short_name);
    for (const struct bench_option *o = options; o->name != NULL; o++) {
        char words[64];
        snprintf(words, sizeof words, "--%s%s", o->name, kinds[o->kind].value);
        fprintf(stream, "  %-24s %s", words, o->help);
        print_default(stream, o);
        fprintf(stream, "\n");
    }
}

static bool read_count(const char *text, uint32_t most, uint32_t *count, const char **end)
{
    char *stop;
    errno = 0;
    const unsigned long value = strtoul(text, &stop, 10);
    *count = (uint32_t)value;
    *end = stop;
    return *text >= '0' && *text <= '9' && errno == 0 && value >= 1 && value <= most;
}

static bool read_counts(const char *text, uint32_t most, struct bench_counts *counts)
{
    const char *end;
    for (counts->count = 0; counts->count < BENCH_MAX_COUNTS; text = end + 1) {
        if (!read_count(text, most, &counts->list[counts->count++], &end))
            return false;
        if (*end == '\0')
            return true;
        if (*end != ',')
            return false;
    }
    return false;
}

/* The default stays where the text is no good. */
static bool read_value(const struct bench_option *option, const char *text)
{
    union {
        uint32_t count;
        struct bench_counts counts;
    } read;
    const char *end;
    char *stop;
    switch (option->kind) {
    case BENCH_FLAG:
        return false; /* has none */
    case BENCH_TEXT:
        *(const char **)option->value = text;
        return *text != '\0';
    case BENCH_COUNT:
        if (!read_count(text, option->most, &read.count, &end) || *end != '\0')
            return false;
        *(uint32_t *)option->value = read.count;
        return true;
    case BENCH_COUNTS:
        if (!read_counts(text, option->most, &read.counts))
            return false;
        *(struct bench_counts *)option->value = read.counts;
        return true;
    case BENCH_SECONDS: {
        const double seconds = strtod(text, &stop);
        if (stop == text || *stop != '\0' || !(seconds > 0.0 && seconds <= 3600.0))
            return false;
        *(double *)option->value = seconds;
        return true;
    }
    }
    return false;
}

static _Noreturn void refuse(const struct bench_option *options, const char *what, const char *why)
{
    fprintf(stderr, "%s: %s %s\n", program_invocation_short_name, what, why);
    print_usage(stderr, options);
    exit(2);
}

void bench_options(int argc, char **argv, const struct bench_option *options)
{
    char why[160];
    for (int at = 1; at < argc; at++) {
        const char *word = argv[at], *value = strchr(word, '=');
        const size_t length = value != NULL ? (size_t)(value - word) : strlen(word);
        if (strcmp(word, "--help") == 0) {
            print_usage(stdout, options);
            exit(0);
        }
        const struct bench_option *o = options;
        while (o->name != NULL && !(strncmp(word, "--", 2) == 0 && strlen(o->name) + 2 == length &&
                                    strncmp(word + 2, o->name, length - 2) == 0))
            o++;
        if (o->name == NULL)
            refuse(options, word, "is no option of this benchmark");
        if (o->kind == BENCH_FLAG && value == NULL) {
            *(bool *)o->value = true;
            continue;
        }
        value = value != NULL ? value + 1 : at + 1 < argc ? argv[++at] : "";
        if (read_value(o, value))
            continue;
        if (o->kind == BENCH_FLAG)
            snprintf(why, sizeof why, "takes no value");
        else if (o->most > 0)
            snprintf(why, sizeof why, "is '%.40s', must be %s %u", value, kinds[o->kind].wanted, o->most);
        else
            snprintf(why, sizeof why, "is '%.40s', must be %s", value, kinds[o->kind].wanted);
        refuse(options, word, why);
    }
    for (const struct bench_option *o = options; o->name != NULL; o++)
        if (o->kind == BENCH_TEXT && *(const char **)o->value == NULL) {
            snprintf(why, sizeof why, "--%s", o->name);
            refuse(options, why, "is missing");
        }
    struct rk_error error = {0};
    if (rk_kernels_check_mask(&error) != RK_OK)
        bench_fail("kernels", &error);
}
