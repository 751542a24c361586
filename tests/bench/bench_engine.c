/* How fast the engine scores on one core, where its time goes, and how far that is from what the core can do.
 *
 *   bench_engine --model DIR --requests F.jsonl [--batch 1,32,128,512] [--seconds 1] [--mapped] [--json]
 *
 * Timed by turns, round after round, so that whatever else the machine does hits all alike; medians are printed:
 *
 *   engine    rk_engine_run() over batches of exactly B candidates under one context each
 *   stages    the same, with the engine's own clock
 *   gather    prefetching and touching every cache line of the rows that a batch reads: what memory takes at least
 *   peaks     loops of nothing but multiply-adds on registers, for each number format
 *
 * The limit is the longer of the gather and the multiply-adds at their peaks, those of the context counted once:
 * memory and compute could go on at the same time. Times are this thread's share of the processor. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { MAX_SIZES = 16, ROUNDS = 15, MAX_BATCHES = 256, MAX_SIZE = 1 << 16 };

struct options {
    const char *model, *requests;
    uint32_t sizes[MAX_SIZES], num_sizes;
    double seconds;
    bool mapped, json;
};

struct measurement {
    struct bench_batches batches;
    double engine_us[ROUNDS], gather_us[ROUNDS];
    struct {
        double lookup_us[ROUNDS], interaction_us[ROUNDS], towers_us[ROUNDS], rest_us[ROUNDS];
    } stages;
};

/* Of one size, per batch. */
struct result {
    uint32_t batch;
    double candidates_per_s, us, gather_us, compute_us, of_limit;
    struct bench_cost stages;
    double row_bytes, weight_bytes, interaction_macs, tower_macs;
};

static void read_sizes(const char *text, struct options *options, bool *good)
{
    options->num_sizes = 0;
    for (const char *at = text; *good && *at != '\0' && options->num_sizes < MAX_SIZES; at += *at == ',') {
        char *end;
        const unsigned long size = strtoul(at, &end, 10);
        *good = end != at && (*end == ',' || *end == '\0') && size > 0 && size <= MAX_SIZE;
        options->sizes[options->num_sizes++] = (uint32_t)size;
        at = end;
    }
}

static void read_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"model", required_argument, NULL, 'm'},
                                          {"requests", required_argument, NULL, 'r'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"mapped", no_argument, NULL, 'M'},
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
            read_sizes(optarg, options, &good);
            break;
        case 's':
            options->seconds = strtod(optarg, NULL);
            good &= options->seconds > 0.0 && options->seconds <= 3600.0;
            break;
        case 'M':
            options->mapped = true;
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
            "usage: bench_engine --model DIR --requests F.jsonl [--batch 1,32,128,512] [--seconds 1] [--mapped] "
            "[--json]\n"
            "  --batch    candidates per batch, up to %d sizes of at most %d\n"
            "  --seconds  measuring time for each size and probe\n"
            "  --mapped   rows are read where their files are mapped, not copied into huge pages\n",
            MAX_SIZES, MAX_SIZE);
    exit(2);
}

static struct result conclude(struct measurement *measurement, const struct bench_work *work, uint64_t weight_bytes,
                              const double macs_per_us[RK_DENSE_FORMAT_COUNT])
{
    const uint32_t size = measurement->batches.size;
    struct result result = {.batch = size, .weight_bytes = (double)weight_bytes};
    result.us = median(measurement->engine_us, ROUNDS);
    result.gather_us = median(measurement->gather_us, ROUNDS);
    result.candidates_per_s = 1e6 * size / result.us;
    result.stages =
        (struct bench_cost){median(measurement->stages.lookup_us, ROUNDS),
                            median(measurement->stages.interaction_us, ROUNDS),
                            median(measurement->stages.towers_us, ROUNDS), median(measurement->stages.rest_us, ROUNDS)};
    result.interaction_macs = work->interaction_request + size * work->interaction_candidate;
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++) {
        const double macs = work->request[f] + size * work->candidate[f];
        result.tower_macs += macs;
        if (macs > 0 && macs_per_us[f] > 0)
            result.compute_us += macs / macs_per_us[f];
    }
    result.tower_macs -= result.interaction_macs;
    for (size_t b = 0; b < measurement->batches.count; b++)
        result.row_bytes += (double)measurement->batches.list[b].row_bytes / (double)measurement->batches.count;
    result.of_limit = (result.gather_us > result.compute_us ? result.gather_us : result.compute_us) / result.us;
    return result;
}

static void print_table(const char *model, const double macs_per_us[], const struct result *results, uint32_t count)
{
    printf("model %s, one core, %s\npeaks, multiply-adds per us:", model, rk_engine_describe());
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        if (macs_per_us[f] > 0)
            printf(" %s %.0f", rk_dense_format_name((enum rk_dense_format)f), macs_per_us[f]);
    printf("\n\n%6s %13s | %9s %9s %11s %9s %9s | %9s %9s %9s\n%6s %13s | %49s us/candidate | %9s %9s %9s\n", "batch",
           "candidates/s", "all", "lookup", "interaction", "towers", "rest", "gather", "compute", "of limit", "", "",
           "", "us/cand.", "us/cand.", "");
    for (uint32_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        const double n = r->batch;
        printf("%6u %13.0f | %9.3f %9.3f %11.3f %9.3f %9.3f | %9.3f %9.3f %8.1f%%\n", r->batch, r->candidates_per_s,
               r->us / n, r->stages.lookup_us / n, r->stages.interaction_us / n, r->stages.towers_us / n,
               r->stages.rest_us / n, r->gather_us / n, r->compute_us / n, 100.0 * r->of_limit);
    }
}

static void print_json(const char *model, const double macs_per_us[], const struct result *results, uint32_t count)
{
    json_t *list = json_array(), *peaks = json_object();
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        json_object_set_new(peaks, rk_dense_format_name((enum rk_dense_format)f), json_real(macs_per_us[f]));
    for (uint32_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        json_array_append_new(list,
                              json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:{s:f, s:f, s:f, s:f}, s:f, s:f, s:f, s:f}",
                                        "batch", (json_int_t)r->batch, "candidates_per_s", r->candidates_per_s,
                                        "us_per_batch", r->us, "gather_us", r->gather_us, "compute_us", r->compute_us,
                                        "of_limit", r->of_limit, "stages_us", "lookup", r->stages.lookup_us,
                                        "interaction", r->stages.interaction_us, "towers", r->stages.towers_us, "rest",
                                        r->stages.rest_us, "row_bytes", r->row_bytes, "weight_bytes", r->weight_bytes,
                                        "interaction_macs", r->interaction_macs, "tower_macs", r->tower_macs));
    }
    json_t *all = json_pack("{s:s, s:s, s:s, s:o, s:i, s:o}", "bench", "engine", "model", model, "engine",
                            rk_engine_describe(), "macs_per_us", peaks, "rounds", (int)ROUNDS, "results", list);
    if (all == NULL || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0)
        bench_fail("failed to print the results", NULL);
    json_decref(all);
    puts("");
}

int main(int argc, char **argv)
{
    struct options options;
    read_options(argc, argv, &options);
    bench_pin(BENCH_THIS_CORE);
    struct rk_model *model = bench_model(options.model, !options.mapped);
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    static struct measurement measurements[MAX_SIZES];
    uint32_t max_batch = 1;
    for (uint32_t i = 0; i < options.num_sizes; i++) {
        measurements[i].batches = bench_batches(model, options.requests, options.sizes[i], MAX_BATCHES);
        max_batch = options.sizes[i] > max_batch ? options.sizes[i] : max_batch;
    }
    struct rk_engine *engine = NULL;
    struct rk_error error = {0};
    if (rk_engine_create(model, max_batch, &engine, &error) != RK_OK)
        bench_fail("engine", &error);

    double rates[RK_DENSE_FORMAT_COUNT][ROUNDS];
    const double slice = options.seconds / ROUNDS;
    for (int round = 0; round < ROUNDS; round++) {
        for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
            rates[f][round] = probe_rate((enum rk_dense_format)f, slice / 4);
        for (uint32_t i = 0; i < options.num_sizes; i++) {
            struct measurement *m = &measurements[i];
            m->engine_us[round] = bench_run(engine, &m->batches, slice);
            m->gather_us[round] = bench_gather(&m->batches, slice / 2);
            const struct bench_cost cost = bench_cost(engine, &m->batches, slice / 2);
            m->stages.lookup_us[round] = cost.lookup_us;
            m->stages.interaction_us[round] = cost.interaction_us;
            m->stages.towers_us[round] = cost.towers_us;
            m->stages.rest_us[round] = cost.rest_us;
        }
    }

    struct result results[MAX_SIZES];
    double macs_per_us[RK_DENSE_FORMAT_COUNT];
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        macs_per_us[f] = median(rates[f], ROUNDS);
    const struct bench_work work = bench_work(spec);
    const uint64_t weight_bytes = rk_model_spec_cost(spec, 1.0).weight_bytes;
    for (uint32_t i = 0; i < options.num_sizes; i++)
        results[i] = conclude(&measurements[i], &work, weight_bytes, macs_per_us);
    (options.json ? print_json : print_table)(spec->name, macs_per_us, results, options.num_sizes);
    rk_engine_destroy(engine);
    rk_model_close(model);
    return 0;
}
