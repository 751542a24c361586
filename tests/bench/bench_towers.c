/* How fast packed towers are: 479-1024-1024-512-256-1 with ReLU, on one core.
 *
 *   bench_towers [--format fp32,bf16,int8] [--batch 1,2,4,...] [--tile 96] [--rounds 15] [--json]
 *
 * A tower is a chain of rk_linear_run(), as the engine runs it, over tiles of rows. By turns, round after round, with
 * it run: oneDNN's inner product and matmul (if libdnnl was there when this was built), OpenBLAS's sgemm and sgemv, and
 * a loop of nothing but multiply-adds on registers. Every way is timed hot, again and again, and cold, once after 64 MB
 * of other memory were touched. Input rows are in the first layer's format already. Printed are medians over the
 * rounds:
 *
 *   us           per batch
 *   Gop/s        multiplications and additions of the mathematics
 *   % peak       that, of the probed peak
 *   x oneDNN, x OpenBLAS   how many times as long the faster of their ways takes
 *
 * int8 is calibrated; "int8 dyn" finds a range for each row, for which oneDNN has no counterpart. Everybody's scores
 * are compared with float64 sums over the layer's stored weights before anything is timed. */
#include <cblas.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/linear.h"
#include "tests/bench/probes.h"
#include "tests/bench/program.h"
#include "tests/bench/towers.h"

enum { MAX_BATCH = 4096, MAX_ROUNDS = 1001, MAX_CONTENDERS = 6, COLD_RUNS = 3, HOT_SPELLS = 5 };
enum { TOUCHED_BYTES = 64 << 20, LINE = 64 };
#define SPELL_S 4e-4

/* This project's way. */
struct packed {
    struct rk_linear *layers[NUM_LAYERS];
    struct rk_matrix x, turns[2], scores;
    float *scratch;
    uint32_t batch, tile;
};

/* Whose figure a contender's time goes into. */
enum side { OURS, OURS_DYNAMIC, ONEDNN, OPENBLAS, NUM_SIDES };
enum heat { HOT, COLD, NUM_HEATS };

struct entry {
    struct contender contender;
    enum side side;
    void (*destroy)(struct contender *contender);
};

struct round {
    double us[NUM_SIDES][NUM_HEATS]; /* of the fastest way of a side; 0: it has none */
    double macs_per_us;
};

void *bench_memory(size_t bytes)
{
    bytes = (bytes + LINE) / LINE * LINE;
    void *memory = aligned_alloc(LINE, bytes);
    if (memory == NULL)
        bench_fail("out of memory", NULL);
    return memset(memory, 0, bytes);
}

/* ---- the tower ---- */

static void tower_create(struct tower *tower)
{
    static const uint32_t widths[NUM_LAYERS + 1] = {479, 1024, 1024, 512, 256, 1};
    uint32_t state = 1;
    memcpy(tower->widths, widths, sizeof widths);
    for (int l = 0; l < NUM_LAYERS; l++) {
        const size_t count = (size_t)widths[l] * widths[l + 1];
        tower->weights[l] = bench_memory(count * sizeof(float));
        tower->bias[l] = bench_memory(widths[l + 1] * sizeof(float));
        for (size_t i = 0; i < count + widths[l + 1]; i++) {
            state = state * 1664525u + 1013904223u;
            const float value = ((float)(state >> 8) / (float)(1 << 23) - 1.0f) * 2.5f / sqrtf((float)widths[l]);
            if (i < count)
                tower->weights[l][i] = value;
            else
                tower->bias[l][i - count] = value;
        }
    }
}

static double macs(const struct tower *tower)
{
    double sum = 0.0;
    for (int l = 0; l < NUM_LAYERS; l++)
        sum += (double)tower->widths[l] * (double)tower->widths[l + 1];
    return sum;
}

/* Scores in double precision; notes the largest input of each layer. */
static void calibrate(struct tower *tower, const float *x, uint32_t batch, double *scores)
{
    double *from = bench_memory(MAX_WIDTH * sizeof *from), *to = bench_memory(MAX_WIDTH * sizeof *to);
    for (uint32_t r = 0; r < batch; r++) {
        for (uint32_t c = 0; c < tower->widths[0]; c++)
            from[c] = (double)x[(size_t)r * tower->widths[0] + c];
        for (int l = 0; l < NUM_LAYERS; l++) {
            const uint32_t in = tower->widths[l], out = tower->widths[l + 1];
            for (uint32_t c = 0; c < in; c++)
                tower->high[l] = fmaxf(tower->high[l], (float)from[c]);
            for (uint32_t o = 0; o < out; o++) {
                to[o] = (double)tower->bias[l][o];
                for (uint32_t c = 0; c < in; c++)
                    to[o] += from[c] * (double)tower->weights[l][(size_t)o * in + c];
                if (l + 1 < NUM_LAYERS && to[o] < 0.0)
                    to[o] = 0.0;
            }
            double *turn = from;
            from = to;
            to = turn;
        }
        scores[r] = from[0];
    }
    free(from);
    free(to);
}

/* ---- ours ---- */

static struct rk_linear *pack(const struct tower *tower, int l, enum rk_dense_format format, bool calibrated)
{
    const uint32_t in = tower->widths[l], out = tower->widths[l + 1];
    void *elements = bench_memory((size_t)in * out * rk_dense_element_bytes(format));
    float *scales = bench_memory(out * sizeof *scales);
    rk_dense_encode(format, tower->weights[l], out, in, elements, scales);
    const struct rk_linear_source source = {.format = format,
                                            .in = in,
                                            .out = out,
                                            .weight = elements,
                                            .scale = scales,
                                            .bias = tower->bias[l],
                                            .columns = in,
                                            .calibrated = calibrated,
                                            .high = tower->high[l]};
    struct rk_linear *linear = NULL;
    struct rk_error error = {0};
    if (rk_linear_create(&source, &linear, &error) != RK_OK) {
        fprintf(stderr, "bench_towers: %s\n", error.text);
        exit(1);
    }
    free(elements);
    free(scales);
    return linear;
}

static struct rk_matrix matrix_create(enum rk_dense_format format, uint32_t rows, uint32_t columns)
{
    struct rk_matrix matrix = {.row_bytes = rk_matrix_row_bytes(format, columns)};
    matrix.values = bench_memory(rows * matrix.row_bytes);
    matrix.scales = bench_memory(rows * sizeof *matrix.scales);
    matrix.zeros = bench_memory(rows * sizeof *matrix.zeros);
    return matrix;
}

static void matrix_destroy(struct rk_matrix *matrix)
{
    free(matrix->values);
    free(matrix->scales);
    free(matrix->zeros);
}

static struct rk_matrix from_row(const struct rk_matrix *matrix, uint32_t row)
{
    return (struct rk_matrix){.values = (char *)matrix->values + row * matrix->row_bytes,
                              .row_bytes = matrix->row_bytes,
                              .scales = matrix->scales + row,
                              .zeros = matrix->zeros + row};
}

static void packed_run(void *state)
{
    struct packed *packed = state;
    for (uint32_t first = 0, rows; first < packed->batch; first += rows) {
        rows = packed->batch - first < packed->tile ? packed->batch - first : packed->tile;
        struct rk_matrix x = from_row(&packed->x, first), scores = from_row(&packed->scores, first);
        const struct rk_matrix *from = &x;
        for (int l = 0; l < NUM_LAYERS; l++) {
            const bool last = l + 1 == NUM_LAYERS;
            struct rk_matrix *to = last ? &scores : &packed->turns[l % 2];
            rk_linear_run(packed->layers[l], from, rows, !last, last ? NULL : packed->layers[l + 1], packed->scratch,
                          to);
            from = to;
        }
    }
}

static void packed_create(const struct tower *tower, enum rk_dense_format format, bool calibrated, const float *x,
                          uint32_t batch, uint32_t tile, struct contender *contender)
{
    struct packed *packed = bench_memory(sizeof *packed);
    packed->batch = batch;
    packed->tile = tile;
    for (int l = 0; l < NUM_LAYERS; l++)
        packed->layers[l] = pack(tower, l, format, calibrated);
    packed->x = matrix_create(format, batch, tower->widths[0]);
    packed->turns[0] = matrix_create(format, tile, MAX_WIDTH);
    packed->turns[1] = matrix_create(format, tile, MAX_WIDTH);
    packed->scores = matrix_create(RK_DENSE_F32, batch, 1);
    packed->scratch = bench_memory(sizeof(float) * MAX_WIDTH * tile);
    rk_linear_input(packed->layers[0], x, tower->widths[0], batch, &packed->x);
    *contender = (struct contender){.name = "packed",
                                    .run = packed_run,
                                    .state = packed,
                                    .scores = packed->scores.values,
                                    .score_stride = packed->scores.row_bytes / sizeof(float)};
}

static void packed_destroy(struct contender *contender)
{
    struct packed *packed = contender->state;
    for (int l = 0; l < NUM_LAYERS; l++)
        rk_linear_destroy(packed->layers[l]);
    matrix_destroy(&packed->x);
    matrix_destroy(&packed->turns[0]);
    matrix_destroy(&packed->turns[1]);
    matrix_destroy(&packed->scores);
    free(packed->scratch);
    free(packed);
}

/* ---- measuring ---- */

static unsigned char *touched;

/* The median of short spells: what interrupts one of them leaves the others alone. */
static double time_hot(const struct contender *contender)
{
    double us[HOT_SPELLS];
    contender->run(contender->state);
    for (int i = 0; i < HOT_SPELLS; i++) {
        uint64_t runs = 0;
        const double start = now_s();
        double spent;
        do {
            contender->run(contender->state);
            runs++;
            spent = now_s() - start;
        } while (spent < SPELL_S);
        us[i] = 1e6 * spent / (double)runs;
    }
    return median(us, HOT_SPELLS);
}

static double time_cold(const struct contender *contender)
{
    double us[COLD_RUNS];
    for (int i = 0; i < COLD_RUNS; i++) {
        for (size_t at = 0; at < TOUCHED_BYTES; at += LINE)
            (void)((volatile unsigned char *)touched)[at];
        const double start = now_s();
        contender->run(contender->state);
        us[i] = 1e6 * (now_s() - start);
    }
    return median(us, COLD_RUNS);
}

/* Fails loudly when a way computes something else: int8 rounds activations to 1/255 of their range. */
static void check(const struct contender *contender, enum rk_dense_format format, uint32_t batch, const double *scores)
{
    static const double tolerance[RK_DENSE_FORMAT_COUNT] = {1e-4, 0.05, 0.1};
    contender->run(contender->state);
    double worst = 0.0, size = 0.0;
    for (uint32_t r = 0; r < batch; r++) {
        worst = fmax(worst, fabs((double)contender->scores[r * contender->score_stride] - scores[r]));
        size = fmax(size, fabs(scores[r]));
    }
    if (worst <= tolerance[format] * size)
        return;
    fprintf(stderr, "bench_towers: %s %s is off by %g where scores are up to %g\n", rk_dense_format_name(format),
            contender->name, worst, size);
    exit(1);
}

static uint32_t make_entries(struct tower *tower, enum rk_dense_format format, const float *x, uint32_t batch,
                             uint32_t tile, struct entry entries[static MAX_CONTENDERS])
{
    uint32_t count = 0;
    packed_create(tower, format, true, x, batch, tile, &entries[count].contender);
    entries[count].destroy = packed_destroy;
    entries[count++].side = OURS;
    if (format == RK_DENSE_INT8) {
        packed_create(tower, format, false, x, batch, tile, &entries[count].contender);
        entries[count].destroy = packed_destroy;
        entries[count++].side = OURS_DYNAMIC;
    }
    for (int matmul = 0; matmul < 2; matmul++)
        if (onednn_create(tower, format, matmul, x, batch, &entries[count].contender)) {
            entries[count].destroy = onednn_destroy;
            entries[count++].side = ONEDNN;
        }
    for (int by_row = 0; format == RK_DENSE_F32 && by_row < 2; by_row++)
        if (openblas_create(tower, by_row, x, batch, &entries[count].contender)) {
            entries[count].destroy = openblas_destroy;
            entries[count++].side = OPENBLAS;
        }
    return count;
}

static void measure_round(const struct entry *entries, uint32_t count, enum rk_dense_format format, struct round *round)
{
    *round = (struct round){.macs_per_us = probe_rate(format, SPELL_S)};
    for (uint32_t e = 0; e < count; e++)
        for (enum heat heat = HOT; heat < NUM_HEATS; heat++) {
            const double us = heat == HOT ? time_hot(&entries[e].contender) : time_cold(&entries[e].contender);
            double *best = &round->us[entries[e].side][heat];
            *best = *best == 0.0 || us < *best ? us : *best;
        }
}

static double median_of(const struct round *rounds, uint32_t num_rounds, enum side side, enum heat heat, enum side over,
                        double factor)
{
    double values[MAX_ROUNDS];
    for (uint32_t i = 0; i < num_rounds; i++)
        values[i] =
            over == NUM_SIDES ? factor * rounds[i].us[side][heat] : rounds[i].us[over][heat] / rounds[i].us[side][heat];
    return median(values, num_rounds);
}

static double median_of_peak(const struct round *rounds, uint32_t num_rounds, enum side side, enum heat heat,
                             double batch_macs)
{
    double values[MAX_ROUNDS];
    for (uint32_t i = 0; i < num_rounds; i++)
        values[i] = rounds[i].macs_per_us > 0.0 ? batch_macs / rounds[i].us[side][heat] / rounds[i].macs_per_us : 0.0;
    return median(values, num_rounds);
}

static void print_ratio(double ratio)
{
    if (ratio > 0.0)
        printf(" %9.2f", ratio);
    else
        printf(" %9s", "-");
}

static void report(const struct tower *tower, enum rk_dense_format format, uint32_t batch, const struct round *rounds,
                   uint32_t num_rounds, json_t *list)
{
    for (enum side side = OURS; side <= OURS_DYNAMIC; side++)
        for (enum heat heat = HOT; rounds[0].us[side][HOT] > 0.0 && heat < NUM_HEATS; heat++) {
            const double us = median_of(rounds, num_rounds, side, heat, NUM_SIDES, 1.0),
                         work = macs(tower) * (double)batch,
                         peak = median_of_peak(rounds, num_rounds, side, heat, work),
                         onednn = median_of(rounds, num_rounds, side, heat, ONEDNN, 1.0),
                         openblas = median_of(rounds, num_rounds, side, heat, OPENBLAS, 1.0);
            if (list != NULL) {
                json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:i, s:f, s:f, s:f, s:f, s:f}", "format",
                                                      rk_dense_format_name(format), "dynamic", side == OURS_DYNAMIC,
                                                      "caches", heat == HOT ? "hot" : "cold", "batch", (int)batch, "us",
                                                      us, "gops", 2e-3 * work / us, "of_peak", peak, "x_onednn", onednn,
                                                      "x_openblas", openblas));
                continue;
            }
            printf("%-8s %5u %-5s %10.1f %9.1f", side == OURS_DYNAMIC ? "int8 dyn" : rk_dense_format_name(format),
                   batch, heat == HOT ? "hot" : "cold", us, 2e-3 * work / us);
            if (peak > 0.0)
                printf(" %7.1f%%", 100.0 * peak);
            else
                printf(" %8s", "-");
            print_ratio(onednn);
            print_ratio(openblas);
            printf("\n");
        }
    fflush(stdout);
}

/* ---- */

static bool read_formats(const char *text, bool formats[static RK_DENSE_FORMAT_COUNT])
{
    char copy[64];
    memset(formats, 0, RK_DENSE_FORMAT_COUNT * sizeof *formats);
    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
        return false;
    char *rest = copy;
    for (const char *name; (name = strsep(&rest, ",")) != NULL;) {
        enum rk_dense_format format;
        if (!rk_dense_format_parse(name, &format))
            return false;
        formats[format] = true;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct round rounds[MAX_ROUNDS];
    struct tower tower = {0};
    bool formats[RK_DENSE_FORMAT_COUNT], json = false;
    const char *names = "fp32,bf16,int8";
    struct bench_counts sizes = {{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}, 10};
    uint32_t tile = 96, num_rounds = 15;
    bench_options(argc, argv,
                  (struct bench_option[]){
                      BENCH_OPTION("format", BENCH_TEXT, &names, "of the layers"),
                      BENCH_OPTION_UP_TO(MAX_BATCH, "batch", BENCH_COUNTS, &sizes, "rows of a batch"),
                      BENCH_OPTION_UP_TO(MAX_BATCH, "tile", BENCH_COUNT, &tile, "rows in the tower at a time"),
                      BENCH_OPTION_UP_TO(MAX_ROUNDS, "rounds", BENCH_COUNT, &num_rounds,
                                         "of which medians are printed"),
                      BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    if (!read_formats(names, formats))
        bench_fail("--format must be some of fp32, bf16, int8, with commas between", NULL);
    bench_pin(BENCH_THIS_CORE);
    openblas_set_num_threads(1);
    rivals_use_one_thread();
    touched = bench_memory(TOUCHED_BYTES);
    tower_create(&tower);
    uint32_t largest = 0;
    for (uint32_t s = 0; s < sizes.count; s++)
        largest = sizes.list[s] > largest ? sizes.list[s] : largest;
    float *x = bench_memory((size_t)largest * tower.widths[0] * sizeof *x);
    double *scores = bench_memory(largest * sizeof *scores);
    for (size_t i = 0; i < (size_t)largest * tower.widths[0]; i++)
        x[i] = (float)((i * 2654435761u) >> 8 & 0xffff) / 65536.0f;
    calibrate(&tower, x, largest, scores);
    json_t *list = json ? json_array() : NULL;
    if (!json)
        printf("%-8s %5s %-5s %10s %9s %8s %9s %9s\n", "format", "batch", "", "us", "Gop/s", "% peak", "x oneDNN",
               "x OpenBLAS");
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (uint32_t s = 0; formats[format] && s < sizes.count; s++) {
            const uint32_t batch = sizes.list[s];
            struct entry entries[MAX_CONTENDERS];
            const uint32_t count = make_entries(&tower, format, x, batch, tile, entries);
            for (uint32_t e = 0; e < count; e++)
                check(&entries[e].contender, format, batch, scores);
            for (uint32_t i = 0; i < num_rounds; i++)
                measure_round(entries, count, format, &rounds[i]);
            report(&tower, format, batch, rounds, num_rounds, list);
            for (uint32_t e = 0; e < count; e++)
                entries[e].destroy(&entries[e].contender);
        }
    if (list != NULL) {
        json_dumpf(list, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(5));
        printf("\n");
        json_decref(list);
    }
    for (int l = 0; l < NUM_LAYERS; l++) {
        free(tower.weights[l]);
        free(tower.bias[l]);
    }
    free(x);
    free(scores);
    free(touched);
    return 0;
}
