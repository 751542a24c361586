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
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { MAX_SIZES = BENCH_MAX_COUNTS, ROUNDS = 15, MAX_BATCHES = 256, MAX_SIZE = 1 << 16 };

struct measurement {
    struct bench_batches batches;
    double engine_us[ROUNDS], gather_us[ROUNDS];
    struct {
        double lookup_us[ROUNDS], interaction_us[ROUNDS], towers_us[ROUNDS], rest_us[ROUNDS];
    } stages;
};

enum { LOOKUP, INTERACTION, TOWERS, REST, NUM_STAGES };
static const char *const stage_names[NUM_STAGES] = {"lookup", "interaction", "towers", "rest"};

/* Of one size, per batch. */
struct result {
    uint32_t batch;
    double candidates_per_s, us, gather_us, compute_us, of_limit;
    struct {
        double us, macs, bytes;
    } stages[NUM_STAGES];
};

static double stage_macs(const struct bench_stage *stage, enum rk_dense_format format, uint32_t size)
{
    return stage->request.macs[format] + size * stage->candidate.macs[format];
}

static struct result conclude(struct measurement *measurement, const struct bench_work *work,
                              const double macs_per_us[RK_DENSE_FORMAT_COUNT])
{
    const struct bench_batches *batches = &measurement->batches;
    const uint32_t size = batches->size;
    const struct bench_stage *worked[NUM_STAGES] = {[INTERACTION] = &work->interaction, [TOWERS] = &work->towers};
    struct result result = {.batch = size};
    result.us = median(measurement->engine_us, ROUNDS);
    result.gather_us = median(measurement->gather_us, ROUNDS);
    result.candidates_per_s = 1e6 * size / result.us;
    result.stages[LOOKUP].us = median(measurement->stages.lookup_us, ROUNDS);
    result.stages[INTERACTION].us = median(measurement->stages.interaction_us, ROUNDS);
    result.stages[TOWERS].us = median(measurement->stages.towers_us, ROUNDS);
    result.stages[REST].us = median(measurement->stages.rest_us, ROUNDS);
    for (size_t b = 0; b < batches->count; b++) {
        result.stages[LOOKUP].macs += (double)batches->list[b].elements / (double)batches->count;
        result.stages[LOOKUP].bytes += (double)batches->list[b].row_bytes / (double)batches->count;
    }
    for (int s = INTERACTION; s <= TOWERS; s++) {
        result.stages[s].bytes = worked[s]->request.bytes + size * worked[s]->candidate.bytes;
        for (enum rk_dense_format f = 0; f < RK_DENSE_FORMAT_COUNT; f++) {
            const double macs = stage_macs(worked[s], f, size);
            result.stages[s].macs += macs;
            if (macs > 0 && macs_per_us[f] > 0)
                result.compute_us += macs / macs_per_us[f];
        }
    }
    result.of_limit = (result.gather_us > result.compute_us ? result.gather_us : result.compute_us) / result.us;
    return result;
}

static void print_table(const char *model, const double macs_per_us[], const struct result *results, uint32_t count)
{
    printf("model %s, one core, %s\npeaks, multiply-adds per us:", model, rk_engine_describe());
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        if (macs_per_us[f] > 0)
            printf(" %s %.0f", rk_dense_format_name((enum rk_dense_format)f), macs_per_us[f]);
    printf("\n\n%6s %13s | %9s", "batch", "candidates/s", "all");
    for (int s = 0; s < NUM_STAGES; s++)
        printf(" %11s", stage_names[s]);
    printf(" | %9s %9s %9s\n%6s %13s | %57s | %9s %9s %9s\n", "gather", "compute", "of limit", "", "", "us/candidate",
           "us/cand.", "us/cand.", "");
    for (uint32_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        const double n = r->batch;
        printf("%6u %13.0f | %9.3f", r->batch, r->candidates_per_s, r->us / n);
        for (int s = 0; s < NUM_STAGES; s++)
            printf(" %11.3f", r->stages[s].us / n);
        printf(" | %9.3f %9.3f %8.1f%%\n", r->gather_us / n, r->compute_us / n, 100.0 * r->of_limit);
    }
}

static void print_json(const char *model, const double macs_per_us[], const struct result *results, uint32_t count)
{
    json_t *list = json_array(), *peaks = json_object();
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        json_object_set_new(peaks, rk_dense_format_name((enum rk_dense_format)f), json_real(macs_per_us[f]));
    for (uint32_t i = 0; i < count; i++) {
        const struct result *r = &results[i];
        json_t *stages = json_object();
        for (int s = 0; s < NUM_STAGES; s++)
            json_object_set_new(stages, stage_names[s],
                                json_pack("{s:f, s:f, s:f}", "us", r->stages[s].us, "macs", r->stages[s].macs, "bytes",
                                          r->stages[s].bytes));
        json_array_append_new(list, json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "batch", (json_int_t)r->batch,
                                              "candidates_per_s", r->candidates_per_s, "us_per_batch", r->us,
                                              "gather_us", r->gather_us, "compute_us", r->compute_us, "of_limit",
                                              r->of_limit, "stages", stages));
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
    const char *path = NULL, *requests = NULL;
    struct bench_counts sizes = {{1, 32, 128, 512}, 4};
    double seconds = 1.0;
    bool mapped = false, json = false;
    bench_options(argc, argv,
                  (struct bench_option[]){
                      BENCH_OPTION("model", BENCH_TEXT, &path, "the package's folder"),
                      BENCH_OPTION("requests", BENCH_TEXT, &requests, "JSON lines"),
                      BENCH_OPTION_UP_TO(MAX_SIZE, "batch", BENCH_COUNTS, &sizes, "candidates per batch"),
                      BENCH_OPTION("seconds", BENCH_SECONDS, &seconds, "measuring time of each size and probe"),
                      BENCH_OPTION("mapped", BENCH_FLAG, &mapped, "read rows from their files, not from huge pages"),
                      BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    bench_pin(BENCH_THIS_CORE);
    struct rk_model *model = bench_model(path, !mapped);
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    static struct measurement measurements[MAX_SIZES];
    uint32_t max_batch = 1;
    for (uint32_t i = 0; i < sizes.count; i++) {
        measurements[i].batches = bench_batches(model, requests, sizes.list[i], MAX_BATCHES);
        max_batch = sizes.list[i] > max_batch ? sizes.list[i] : max_batch;
    }
    struct rk_engine *engine = NULL;
    struct rk_error error = {0};
    if (rk_engine_create(model, max_batch, &engine, &error) != RK_OK)
        bench_fail("engine", &error);

    double rates[RK_DENSE_FORMAT_COUNT][ROUNDS];
    const double slice = seconds / ROUNDS;
    for (int round = 0; round < ROUNDS; round++) {
        for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
            rates[f][round] = probe_rate((enum rk_dense_format)f, slice / 4);
        for (uint32_t i = 0; i < sizes.count; i++) {
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
    for (uint32_t i = 0; i < sizes.count; i++)
        results[i] = conclude(&measurements[i], &work, macs_per_us);
    (json ? print_json : print_table)(spec->name, macs_per_us, results, sizes.count);
    rk_engine_destroy(engine);
    rk_model_close(model);
    return 0;
}
