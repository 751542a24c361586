/* How far lookups and multiplications hide one another, on one core.
 *
 *   bench_overlap --model DIR --requests F.jsonl [--candidates 512] [--seconds 6] [--json]
 *
 * By turns, round after round: whole batches; their lookups alone; the same batches with empty bags, so that all but
 * the lookups is left; lookups of rows that are in cache, so that their arithmetic is left; reading the rows' lines
 * without any. Printed are medians and whole / max(lookups, the rest): 1 if the shorter hides behind the longer, up to
 * 2 if nothing does. Arithmetic cannot hide behind arithmetic: max(reading, arithmetic + rest) is the least that is
 * possible. Times are this thread's share of the processor. tests/bench/bench_overlap.py makes a model whose two halves
 * take about as long. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { ROUNDS = 21, MAX_BATCHES = 64, MAX_CANDIDATES = 1 << 16 };

int main(int argc, char **argv)
{
    const char *path = NULL, *requests = NULL;
    uint32_t candidates = 512;
    double seconds = 6.0;
    bool json = false;
    bench_options(argc, argv,
                  (struct bench_option[]){BENCH_OPTION("model", BENCH_TEXT, &path, "the package's folder"),
                                          BENCH_OPTION("requests", BENCH_TEXT, &requests, "JSON lines"),
                                          BENCH_OPTION_UP_TO(MAX_CANDIDATES, "candidates", BENCH_COUNT, &candidates,
                                                             "in a batch"),
                                          BENCH_OPTION("seconds", BENCH_SECONDS, &seconds, "measuring time"),
                                          BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    bench_pin(BENCH_THIS_CORE);
    struct rk_model *model = bench_model(path, true);
    struct bench_batches batches = bench_batches(model, requests, candidates, MAX_BATCHES),
                         empty = bench_without_ids(&batches), few = bench_few_ids(&batches);
    struct rk_engine *engine = NULL;
    struct rk_error error = {0};
    if (rk_engine_create(model, candidates, &engine, &error) != RK_OK)
        bench_fail("engine", &error);
    double whole[ROUNDS], lookup[ROUNDS], rest[ROUNDS], gather[ROUNDS], hot[ROUNDS];
    const double slice = seconds / 5 / ROUNDS;
    for (int round = 0; round < ROUNDS; round++) {
        whole[round] = bench_run(engine, &batches, slice);
        lookup[round] = bench_lookup(&batches, slice);
        rest[round] = bench_run(engine, &empty, slice);
        gather[round] = bench_gather(&batches, slice);
        hot[round] = bench_lookup(&few, slice);
    }
    const double whole_us = median(whole, ROUNDS), lookup_us = median(lookup, ROUNDS), rest_us = median(rest, ROUNDS),
                 gather_us = median(gather, ROUNDS), hot_us = median(hot, ROUNDS),
                 longer_us = lookup_us > rest_us ? lookup_us : rest_us,
                 least_us = gather_us > hot_us + rest_us ? gather_us : hot_us + rest_us;
    if (json)
        printf("{\"bench\": \"overlap\", \"candidates\": %u, \"whole_us\": %.3f, \"lookup_us\": %.3f, \"gather_us\": "
               "%.3f, "
               "\"arithmetic_us\": %.3f, \"rest_us\": %.3f, \"ratio\": %.4f, \"least_ratio\": %.4f, \"bytes\": %llu}\n",
               candidates, whole_us, lookup_us, gather_us, hot_us, rest_us, whole_us / longer_us, least_us / longer_us,
               (unsigned long long)rk_model_bytes(model));
    else
        printf("%u candidates, %.1f GiB: whole %.1f us, lookups alone %.1f us (reading %.1f us, arithmetic %.1f us), "
               "the rest "
               "alone %.1f us: %.2f times the longer, %.2f would be possible\n",
               candidates, (double)rk_model_bytes(model) / (1 << 30), whole_us, lookup_us, gather_us, hot_us, rest_us,
               whole_us / longer_us, least_us / longer_us);
    rk_engine_destroy(engine);
    rk_model_close(model);
    return 0;
}
