/* How fast the engine scores on one core, and how far that is from what the core can do.
 *
 *   bench_engine --model DIR --requests F.jsonl [--batch 1,32,128,512] [--seconds 1] [--json]
 *
 * Requests give batches of exactly B candidates under one context each; where a request has fewer, candidates of the
 * next ones join in. Three things are timed by turns, round after round, so that whatever else the machine does hits
 * all alike, and medians over the rounds are printed:
 *
 *   engine    rk_engine_run() over the batches
 *   sgemm     one big square multiplication: the rate at which the towers could run at best
 *   gather    prefetching and touching every cache line of the rows that a batch reads: what memory takes at least
 *
 * The limit is the longer of the two floors, the towers at the sgemm rate or the gather: memory and compute can go on
 * at the same time. Multiply-adds are those of the mathematics, so work that the engine does once per request instead
 * of once per candidate can take a figure past the peak. */
#include <cblas.h>
#include <getopt.h>
#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/engine.h"
#include "model/jsonl.h"

enum { MAX_SIZES = 16, ROUNDS = 9, MAX_BATCHES = 256, MAX_TOTAL = 1 << 16, SGEMM_N = 1024, AHEAD = 24, LINE = 64 };

struct options {
    const char *model, *requests;
    uint32_t sizes[MAX_SIZES], num_sizes;
    double seconds;
    bool json;
};

struct sources {
    struct rk_request *requests;
    size_t count, capacity;
    uint64_t num_candidates;
};

/* Where a batch's rows lie, for the gather. */
struct row {
    const unsigned char *address;
    uint32_t bytes;
};

struct batch {
    struct rk_request request;
    struct row *rows;
    size_t num_rows;
};

struct measurement {
    uint32_t size;
    struct batch *batches;
    size_t num_batches;
    float *logits;
    double engine_us[ROUNDS], gather_us[ROUNDS]; /* per batch */
};

static struct rk_arena arena; /* everything that lives until the end */

static void fail(const struct rk_error *error, const char *what)
{
    fprintf(stderr, "bench_engine: %s%s%s\n", what, error != NULL ? ": " : "", error != NULL ? error->text : "");
    exit(1);
}

static void *array(size_t count, size_t bytes)
{
    void *memory = rk_arena_array(&arena, count, bytes);
    if (memory == NULL)
        fail(NULL, "out of memory");
    return memory;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- input ---- */

static void read_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"model", required_argument, NULL, 'm'},
                                          {"requests", required_argument, NULL, 'r'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {0}};
    *options = (struct options){.sizes = {1, 32, 128, 512}, .num_sizes = 4, .seconds = 1.0};
    bool good = true;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'm':
            options->model = optarg;
            break;
        case 'r':
            options->requests = optarg;
            break;
        case 'b':
            options->num_sizes = 0;
            for (char *at = optarg; *at != '\0' && options->num_sizes < MAX_SIZES; at += *at == ',') {
                char *end;
                unsigned long size = strtoul(at, &end, 10);
                good &= end != at && (*end == ',' || *end == '\0') && size > 0 && size <= MAX_TOTAL;
                if (!good)
                    break;
                options->sizes[options->num_sizes++] = (uint32_t)size;
                at = end;
            }
            break;
        case 's':
            options->seconds = strtod(optarg, NULL);
            good &= options->seconds > 0.0 && options->seconds <= 3600.0;
            break;
        case 'j':
            options->json = true;
            break;
        default:
            good = false;
        }
    }
    if (good && options->model != NULL && options->requests != NULL && optind == argc && options->num_sizes > 0)
        return;
    fprintf(stderr,
            "usage: bench_engine --model DIR --requests F.jsonl [--batch 1,32,128,512] [--seconds 1] [--json]\n"
            "  --batch    candidates per batch, up to %d sizes of at most %d\n"
            "  --seconds  measuring time for each size and probe\n",
            MAX_SIZES, MAX_TOTAL);
    exit(2);
}

static void read_requests(const char *path, const struct rk_model_spec *spec, struct sources *sources)
{
    struct rk_error error = {0};
    struct rk_jsonl_reader *reader = NULL;
    if (rk_jsonl_open(path, &reader, &error) != RK_OK)
        fail(&error, "requests");
    const char *line;
    size_t length;
    uint64_t number;
    while (rk_jsonl_next(reader, &line, &length, &number, &error) == RK_OK && line != NULL &&
           sources->num_candidates < MAX_TOTAL) {
        if (sources->count == sources->capacity) {
            sources->capacity = sources->capacity > 0 ? 2 * sources->capacity : 64;
            sources->requests = realloc(sources->requests, sources->capacity * sizeof *sources->requests);
            if (sources->requests == NULL)
                fail(NULL, "out of memory");
        }
        struct rk_named_request named;
        struct rk_request *request = &sources->requests[sources->count];
        if (rk_jsonl_parse(line, length, &arena, &named, &error) != RK_OK ||
            rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, &named, &arena, request, &error) != RK_OK) {
            rk_error_prefix(&error, "%s:%llu", path, (unsigned long long)number);
            break;
        }
        sources->count++;
        sources->num_candidates += request->num_candidates;
    }
    rk_jsonl_close(reader);
    if (error.status != RK_OK)
        fail(&error, "requests");
    if (sources->count == 0)
        fail(NULL, "the requests file has no requests");
}

/* ---- batches ---- */

/* A walk over all candidates of all requests, round and round. */
struct walk {
    const struct sources *sources;
    size_t request;
    uint32_t candidate;
};

static void step(struct walk *walk)
{
    if (++walk->candidate < walk->sources->requests[walk->request].num_candidates)
        return;
    walk->candidate = 0;
    walk->request = (walk->request + 1) % walk->sources->count;
}

static struct rk_bags join_bags(const struct rk_model_spec *spec, uint32_t feature, uint32_t size, struct walk walk)
{
    uint32_t *offsets = array(size + 1u, sizeof *offsets);
    struct walk again = walk;
    for (uint32_t c = 0; c < size; c++, step(&again)) {
        const uint32_t *from = walk.sources->requests[again.request].bags[feature].offsets + again.candidate;
        offsets[c + 1] = offsets[c] + from[1] - from[0];
    }
    int64_t *ids = array(offsets[size], sizeof *ids);
    float *weights = spec->features[feature].weighted ? array(offsets[size], sizeof *weights) : NULL;
    for (uint32_t c = 0; c < size; c++, step(&walk)) {
        const struct rk_bags *from = &walk.sources->requests[walk.request].bags[feature];
        const uint32_t first = from->offsets[walk.candidate], count = offsets[c + 1] - offsets[c];
        memcpy(ids + offsets[c], from->ids + first, count * sizeof *ids);
        if (weights != NULL && count > 0)
            memcpy(weights + offsets[c], from->weights + first, count * sizeof *weights);
    }
    return (struct rk_bags){.ids = ids, .weights = weights, .offsets = offsets};
}

static struct rk_request join_request(const struct rk_model_spec *spec, uint32_t size, const struct walk *walk)
{
    const struct rk_request *first = &walk->sources->requests[walk->request];
    const uint32_t width = spec->num_candidate_dense;
    float *dense = array((size_t)size * width, sizeof *dense);
    struct walk at = *walk;
    for (uint32_t c = 0; width > 0 && c < size; c++, step(&at))
        memcpy(dense + (size_t)c * width,
               at.sources->requests[at.request].candidate_dense + (size_t)at.candidate * width, width * sizeof *dense);
    struct rk_bags *bags = array(spec->num_features, sizeof *bags);
    for (uint32_t f = 0; f < spec->num_features; f++)
        bags[f] = spec->features[f].side == RK_SIDE_CONTEXT ? first->bags[f] : join_bags(spec, f, size, *walk);
    return (struct rk_request){.num_candidates = size,
                               .context_dense = first->context_dense,
                               .candidate_dense = dense,
                               .bags = bags};
}

static const unsigned char *row_address(const struct rk_model *model, uint32_t table, uint64_t row)
{
    const struct rk_table_spec *spec = &rk_model_spec_of(model)->tables[table];
    uint32_t shard = 0;
    while (row >= spec->shards[shard].first_row + spec->shards[shard].num_rows)
        shard++;
    const struct rk_mapped_file *file = rk_table_file(rk_model_table(model, table), shard);
    return (const unsigned char *)rk_mapped_file_data(file) +
           (row - spec->shards[shard].first_row) * rk_row_bytes(spec->format, spec->embedding_dim);
}

static void list_rows(const struct rk_model *model, struct batch *batch)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    for (int filling = 0; filling < 2; filling++) {
        batch->num_rows = 0;
        for (uint32_t f = 0; f < spec->num_features; f++) {
            const struct rk_feature_spec *feature = &spec->features[f];
            const struct rk_table_spec *table = &spec->tables[feature->table];
            const uint32_t bags = feature->side == RK_SIDE_CONTEXT ? 1 : batch->request.num_candidates;
            for (uint32_t i = 0; i < batch->request.bags[f].offsets[bags]; i++, batch->num_rows++)
                if (filling)
                    batch->rows[batch->num_rows] =
                        (struct row){row_address(model, feature->table, (uint64_t)batch->request.bags[f].ids[i]),
                                     (uint32_t)rk_row_bytes(table->format, table->embedding_dim)};
        }
        if (!filling)
            batch->rows = array(batch->num_rows, sizeof *batch->rows);
    }
}

static void build_batches(const struct rk_model *model, const struct sources *sources, struct measurement *measurement)
{
    const uint32_t size = measurement->size;
    uint64_t count = sources->num_candidates / size;
    count = count < 1 ? 1 : count > MAX_BATCHES ? MAX_BATCHES : count;
    measurement->batches = array(count, sizeof *measurement->batches);
    measurement->num_batches = count;
    measurement->logits = array((size_t)size * rk_model_spec_of(model)->num_heads, sizeof(float));
    struct walk walk = {.sources = sources};
    for (uint64_t b = 0; b < count; b++) {
        const uint32_t left = sources->requests[walk.request].num_candidates - walk.candidate;
        if (left < size &&
            walk.candidate > 0) /* what is left of this request would not fill a batch; a whole one might */
            walk = (struct walk){sources, (walk.request + 1) % sources->count, 0};
        measurement->batches[b].request = join_request(rk_model_spec_of(model), size, &walk);
        list_rows(model, &measurement->batches[b]);
        for (uint32_t c = 0; c < size; c++)
            step(&walk);
    }
}

/* ---- what is timed ---- */

static void time_engine(struct rk_engine *engine, struct measurement *measurement, double seconds, int round)
{
    uint64_t runs = 0;
    const double start = now_s();
    double spent;
    do {
        const struct batch *batch = &measurement->batches[runs++ % measurement->num_batches];
        const struct rk_slice slice = {&batch->request, 0, measurement->size, measurement->logits};
        if (rk_engine_run(engine, &slice, 1, NULL) != RK_OK)
            fail(NULL, "the engine failed: the model's files were damaged");
        spent = now_s() - start;
    } while (spent < seconds);
    measurement->engine_us[round] = 1e6 * spent / (double)runs;
}

static volatile float touched;

static void touch_rows(const struct batch *batch)
{
    float sum = 0.0f;
    for (size_t r = 0; r < batch->num_rows; r++) {
        if (r + AHEAD < batch->num_rows)
            for (uint32_t at = 0; at < batch->rows[r + AHEAD].bytes; at += LINE)
                __builtin_prefetch(batch->rows[r + AHEAD].address + at);
        for (uint32_t at = 0; at < batch->rows[r].bytes; at += LINE)
            sum += *(const float *)(batch->rows[r].address + at);
    }
    touched = sum;
}

static void time_gather(struct measurement *measurement, double seconds, int round)
{
    uint64_t runs = 0;
    const double start = now_s();
    double spent;
    do {
        touch_rows(&measurement->batches[runs++ % measurement->num_batches]);
        spent = now_s() - start;
    } while (spent < seconds);
    measurement->gather_us[round] = 1e6 * spent / (double)runs;
}

static double time_sgemm(const float *a, const float *b, float *c, double seconds)
{
    uint64_t runs = 0;
    const double start = now_s();
    double spent;
    do {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SGEMM_N, SGEMM_N, SGEMM_N, 1.0f, a, SGEMM_N, b, SGEMM_N,
                    0.0f, c, SGEMM_N);
        runs++;
        spent = now_s() - start;
    } while (spent < seconds);
    return 2e-9 * SGEMM_N * SGEMM_N * SGEMM_N * (double)runs / spent;
}

/* ---- output ---- */

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double values[static ROUNDS])
{
    qsort(values, ROUNDS, sizeof *values, compare_doubles);
    return values[ROUNDS / 2];
}

struct result {
    uint32_t batch;
    double candidates_per_s, us_per_batch, gflops, of_sgemm_peak, gather_us, limit_us, of_limit;
};

static struct result conclude(struct measurement *measurement, const struct rk_model_cost *cost, double sgemm_gflops)
{
    struct result result = {.batch = measurement->size};
    const double flop = 2.0 * (double)cost->multiply_adds * measurement->size;
    result.us_per_batch = median(measurement->engine_us);
    result.gather_us = median(measurement->gather_us);
    result.candidates_per_s = 1e6 * measurement->size / result.us_per_batch;
    result.gflops = flop / result.us_per_batch / 1e3;
    result.of_sgemm_peak = result.gflops / sgemm_gflops;
    const double towers_us = flop / sgemm_gflops / 1e3;
    result.limit_us = towers_us > result.gather_us ? towers_us : result.gather_us;
    result.of_limit = result.limit_us / result.us_per_batch;
    return result;
}

static void print_table(const char *model, double sgemm_gflops, const struct result *results, uint32_t count)
{
    printf("model %s, one core, %s\nsgemm %d x %d: %.1f GFLOP/s\n\n", model, rk_engine_describe(), SGEMM_N, SGEMM_N,
           sgemm_gflops);
    printf("%6s %13s %12s %9s %9s %11s %11s %9s\n", "batch", "candidates/s", "us/batch", "GFLOP/s", "of sgemm",
           "gather us", "limit us", "of limit");
    for (uint32_t i = 0; i < count; i++)
        printf("%6u %13.0f %12.2f %9.2f %8.1f%% %11.2f %11.2f %8.1f%%\n", results[i].batch, results[i].candidates_per_s,
               results[i].us_per_batch, results[i].gflops, 100.0 * results[i].of_sgemm_peak, results[i].gather_us,
               results[i].limit_us, 100.0 * results[i].of_limit);
}

static void print_json(const char *model, double sgemm_gflops, const struct result *results, uint32_t count)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "batch",
                                        (json_int_t)results[i].batch, "candidates_per_s", results[i].candidates_per_s,
                                        "us_per_batch", results[i].us_per_batch, "gflops", results[i].gflops,
                                        "of_sgemm_peak", results[i].of_sgemm_peak, "gather_us", results[i].gather_us,
                                        "limit_us", results[i].limit_us, "of_limit", results[i].of_limit));
    json_t *all = json_pack("{s:s, s:s, s:s, s:f, s:i, s:o}", "bench", "engine", "model", model, "engine",
                            rk_engine_describe(), "sgemm_gflops", sgemm_gflops, "rounds", (int)ROUNDS, "results", list);
    if (all == NULL || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0)
        fail(NULL, "failed to print the results");
    json_decref(all);
    puts("");
}

/* Stays on the core where it is: no migration between rounds, and one core is what is measured. */
static void pin(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)sched_getcpu(), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        perror("bench_engine: not pinned to a core");
}

int main(int argc, char **argv)
{
    struct options options;
    read_options(argc, argv, &options);
    pin();
    rk_arena_init(&arena, 1 << 20);
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    if (rk_kernels_check_mask(&error) != RK_OK)
        fail(&error, "kernels");
    if (rk_model_open(options.model, NULL, &model, &error) != RK_OK)
        fail(&error, "model");
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    struct sources sources = {0};
    read_requests(options.requests, spec, &sources);

    static struct measurement measurements[MAX_SIZES];
    uint32_t max_batch = 1;
    for (uint32_t i = 0; i < options.num_sizes; i++) {
        measurements[i].size = options.sizes[i];
        max_batch = options.sizes[i] > max_batch ? options.sizes[i] : max_batch;
        build_batches(model, &sources, &measurements[i]);
    }
    struct rk_engine *engine = NULL;
    if (rk_engine_create(model, max_batch, &engine, &error) != RK_OK)
        fail(&error, "engine");

    float *square = array(3u * SGEMM_N * SGEMM_N, sizeof *square);
    for (size_t i = 0; i < 2u * SGEMM_N * SGEMM_N; i++)
        square[i] = (float)(i % 17) / 17.0f - 0.5f;
    double sgemm_gflops[ROUNDS];
    const double slice = options.seconds / ROUNDS;
    for (int round = 0; round < ROUNDS; round++) {
        sgemm_gflops[round] = time_sgemm(square, square + SGEMM_N * SGEMM_N, square + 2 * SGEMM_N * SGEMM_N, slice);
        for (uint32_t i = 0; i < options.num_sizes; i++) {
            time_engine(engine, &measurements[i], slice, round);
            time_gather(&measurements[i], slice / 4, round);
        }
    }

    struct result results[MAX_SIZES];
    const double peak = median(sgemm_gflops);
    const struct rk_model_cost cost = rk_model_spec_cost(spec, 1.0);
    for (uint32_t i = 0; i < options.num_sizes; i++)
        results[i] = conclude(&measurements[i], &cost, peak);
    (options.json ? print_json : print_table)(spec->name, peak, results, options.num_sizes);
    rk_engine_destroy(engine);
    rk_model_close(model);
    free(sources.requests);
    rk_arena_deinit(&arena);
    return 0;
}
