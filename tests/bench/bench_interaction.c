/* How fast the pairwise dot products of candidates are, and how far that is from what the multipliers can do.
 *
 *   bench_interaction [--seconds 2] [--json]
 *
 * Every usable variant of every format runs over the vectors of 32 candidates, which stay in the caches of one core.
 * By turns, round after round, with the probes: loops of nothing but multiply-adds on registers (float32 FMA,
 * VDPBF16PS, VPDPBUSD), whose rate is the peak. Medians over the rounds are printed:
 *
 *   us         per candidate
 *   x peak     that, over the time that the multiply-adds of the triangle take at the peak
 *   from fp32  us, when the candidate's vectors are float32 and are brought into the format first
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/dense.h"
#include "quant/kernels_list.h"
#include "tests/bench/probes.h"
#include "tests/bench/program.h"

enum { CANDIDATES = 32, ROUNDS = 25, MAX_CASES = 64 };

static const struct shape {
    uint32_t count, dim, first;
} shapes[] = {{27, 128, 0}, {27, 128, 13}, {40, 64, 0}, {9, 32, 0}, {7, 16, 0}};

/* ---- formats ---- */

/* The vectors of one candidate, in one format, and as they were before. */
struct candidate {
    void *vectors[64];
    float scales[64];
    const float *values[64];
};

static void *scratch;

static void run_f32(void (*function)(void), const struct candidate *candidate, const struct shape *shape, float *z)
{
    ((rk_gram_f32_fn *)function)((const float *const *)candidate->vectors, shape->first, shape->count, shape->dim,
                                 false, z);
}

static void run_bf16(void (*function)(void), const struct candidate *candidate, const struct shape *shape, float *z)
{
    ((rk_gram_bf16_fn *)function)((const uint16_t *const *)candidate->vectors, shape->first, shape->count, shape->dim,
                                  false, z);
}

static void run_int8(void (*function)(void), const struct candidate *candidate, const struct shape *shape, float *z)
{
    ((rk_gram_int8_fn *)function)((const int8_t *const *)candidate->vectors, candidate->scales, shape->first,
                                  shape->count, shape->dim, false, scratch, z);
}

static void convert_bf16(struct candidate *candidate, uint32_t v, uint32_t dim)
{
    rk_kernels_get()->to_bf16(candidate->values[v], dim, candidate->vectors[v]);
}

static void convert_int8(struct candidate *candidate, uint32_t v, uint32_t dim)
{
    float low, high;
    rk_kernels_get()->range(candidate->values[v], dim, &low, &high);
    candidate->scales[v] = fmaxf(-low, high) / 127.0f;
    rk_kernels_get()->to_s8(candidate->values[v], dim, 1.0f / candidate->scales[v], candidate->vectors[v]);
}

static const struct format {
    const char *name, *kernel;
    enum rk_dense_format elements;
    void (*run)(void (*function)(void), const struct candidate *candidate, const struct shape *shape, float *z);
    void (*convert)(struct candidate *candidate, uint32_t v, uint32_t dim); /* NULL: float32 stays */
} formats[] = {{"fp32", "gram_f32", RK_DENSE_F32, run_f32, NULL},
               {"bf16", "gram_bf16", RK_DENSE_BF16, run_bf16, convert_bf16},
               {"int8", "gram_int8", RK_DENSE_INT8, run_int8, convert_int8}};
enum { NUM_FORMATS = sizeof formats / sizeof *formats, NUM_SHAPES = sizeof shapes / sizeof *shapes };

/* ---- measuring ---- */

struct measurement {
    const struct format *format;
    const struct shape *shape;
    const struct rk_kernel_variant *variant;
    struct candidate *candidates; /* [CANDIDATES] */
    float *z;
    double us[ROUNDS], from_f32_us[ROUNDS];
};

static void *lines(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (memory == NULL) {
        fprintf(stderr, "bench_interaction: out of memory\n");
        exit(1);
    }
    memset(memory, 0, (bytes + 63) / 64 * 64);
    return memory;
}

static struct candidate *make_candidates(const struct format *format, const struct shape *shape)
{
    const size_t bytes = (shape->dim * rk_dense_element_bytes(format->elements) + 63) / 64 * 64;
    struct candidate *candidates = lines(CANDIDATES * sizeof *candidates);
    for (size_t c = 0; c < CANDIDATES; c++) {
        unsigned char *own = lines(shape->count * bytes);
        float *values = lines(shape->count * shape->dim * sizeof *values);
        for (uint32_t v = 0; v < shape->count; v++, own += bytes, values += shape->dim) {
            const size_t sharer = v < shape->first ? 0 : c;
            for (uint32_t d = 0; d < shape->dim; d++)
                values[d] = (float)((sharer * 31 + v * 17 + d * 7) % 101) / 50.0f - 1.0f;
            rk_dense_encode(format->elements, values, 1, shape->dim, own, &candidates[c].scales[v]);
            candidates[c].vectors[v] = sharer == c ? own : candidates[sharer].vectors[v];
            candidates[c].values[v] = values;
        }
    }
    return candidates;
}

static double time_us(const struct measurement *measurement, bool convert, double seconds)
{
    uint64_t candidates = 0;
    const double start = now_s();
    double spent;
    do {
        for (size_t c = 0; c < CANDIDATES; c++) {
            for (uint32_t v = measurement->shape->first; convert && v < measurement->shape->count; v++)
                measurement->format->convert(&measurement->candidates[c], v, measurement->shape->dim);
            measurement->format->run(measurement->variant->function, &measurement->candidates[c], measurement->shape,
                                     measurement->z);
        }
        candidates += CANDIDATES;
        spent = now_s() - start;
    } while (spent < seconds);
    return 1e6 * spent / (double)candidates;
}

static uint32_t make_measurements(struct measurement measurements[static MAX_CASES])
{
    uint32_t count = 0;
    size_t num_variants;
    const struct rk_kernel_variant *variants = rk_kernel_variants(&num_variants);
    for (size_t s = 0; s < NUM_SHAPES; s++)
        for (size_t f = 0; f < NUM_FORMATS; f++) {
            struct candidate *candidates = make_candidates(&formats[f], &shapes[s]);
            for (size_t v = 0; v < num_variants; v++)
                if (strcmp(variants[v].kernel, formats[f].kernel) == 0 && rk_isa_usable(variants[v].isa) &&
                    count < MAX_CASES)
                    measurements[count++] =
                        (struct measurement){.format = &formats[f],
                                             .shape = &shapes[s],
                                             .variant = &variants[v],
                                             .candidates = candidates,
                                             .z = lines((rk_gram_elements(shapes[s].count, true) + RK_GRAM_SLACK) *
                                                        sizeof(float))};
        }
    return count;
}

int main(int argc, char **argv)
{
    double seconds = 2.0;
    bool json = false;
    bench_options(argc, argv,
                  (struct bench_option[]){BENCH_OPTION("seconds", BENCH_SECONDS, &seconds, "measuring time"),
                                          BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    bench_pin(BENCH_THIS_CORE);
    scratch = lines(rk_gram_scratch_bytes(64, 512));
    static struct measurement measurements[MAX_CASES];
    const uint32_t count = make_measurements(measurements);
    static double peaks[NUM_FORMATS][ROUNDS];
    const double slice = seconds / ROUNDS / (count + NUM_FORMATS);
    for (int round = 0; round < ROUNDS; round++) {
        for (int f = 0; f < NUM_FORMATS; f++)
            peaks[f][round] = probe_rate(formats[f].elements, slice);
        for (uint32_t m = 0; m < count; m++) {
            measurements[m].us[round] = time_us(&measurements[m], false, slice / 2);
            if (measurements[m].format->convert != NULL)
                measurements[m].from_f32_us[round] = time_us(&measurements[m], true, slice / 2);
            else
                measurements[m].from_f32_us[round] = measurements[m].us[round];
        }
    }

    double peak[NUM_FORMATS];
    for (int f = 0; f < NUM_FORMATS; f++)
        peak[f] = median(peaks[f], ROUNDS);
    json_t *list = json_array();
    if (!json) {
        printf("one core; peak multiply-adds per us:");
        for (int f = 0; f < NUM_FORMATS; f++)
            printf(" %s %.0f", formats[f].name, peak[f]);
        printf("\n\n%-6s %7s %5s %6s  %-12s %9s %7s %9s\n", "format", "vectors", "dim", "first", "variant", "us",
               "x peak", "from fp32");
    }
    for (uint32_t m = 0; m < count; m++) {
        const struct shape *shape = measurements[m].shape;
        const double us = median(measurements[m].us, ROUNDS), from_f32_us = median(measurements[m].from_f32_us, ROUNDS),
                     macs = (double)(rk_gram_elements(shape->count, false) - rk_gram_elements(shape->first, false)) *
                            shape->dim,
                     of_peak = us * peak[measurements[m].format - formats] / macs;
        if (!json)
            printf("%-6s %7u %5u %6u  %-12s %9.4f %7.2f %9.4f\n", measurements[m].format->name, shape->count,
                   shape->dim, shape->first, rk_isa_name(measurements[m].variant->isa), us, of_peak, from_f32_us);
        json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:i, s:s, s:f, s:f, s:f}", "format",
                                              measurements[m].format->name, "vectors", (int)shape->count, "dim",
                                              (int)shape->dim, "first", (int)shape->first, "variant",
                                              rk_isa_name(measurements[m].variant->isa), "us", us, "times_peak",
                                              of_peak, "us_from_fp32", from_f32_us));
    }
    json_t *all = json_pack("{s:s, s:i, s:o}", "bench", "interaction", "rounds", (int)ROUNDS, "results", list);
    if (json && (all == NULL || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0))
        bench_fail("failed to print the results", NULL);
    json_decref(all);
    return 0;
}
