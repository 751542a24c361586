/* What computing the context once is worth: the same requests in two forms, on one core.
 *
 *   bench_context --model DIR --requests F.jsonl --flat-model DIR --flat-requests F.jsonl [--candidates 270]
 *                 [--seconds 4] [--json]
 *
 * The flat model has the same tables and towers, but all its features and dense inputs are the candidates', and its
 * requests repeat the context for each of them: what a server does that knows rows only. tests/bench/bench_context.py
 * makes both. By turns, round after round; medians, of this thread's share of the processor. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { ROUNDS = 21, MAX_BATCHES = 64, FORMS = 2, MAX_CANDIDATES = 1 << 16 };

int main(int argc, char **argv)
{
    const char *paths[FORMS] = {NULL}, *requests[FORMS] = {NULL};
    uint32_t candidates = 270;
    double seconds = 4.0;
    bool json = false;
    bench_options(argc, argv,
                  (struct bench_option[]){
                      BENCH_OPTION("model", BENCH_TEXT, &paths[0], "the package's folder"),
                      BENCH_OPTION("requests", BENCH_TEXT, &requests[0], "JSON lines"),
                      BENCH_OPTION("flat-model", BENCH_TEXT, &paths[1], "the same without a context"),
                      BENCH_OPTION("flat-requests", BENCH_TEXT, &requests[1], "the same with the context repeated"),
                      BENCH_OPTION_UP_TO(MAX_CANDIDATES, "candidates", BENCH_COUNT, &candidates, "in a batch"),
                      BENCH_OPTION("seconds", BENCH_SECONDS, &seconds, "measuring time"),
                      BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    struct rk_model *models[FORMS];
    struct rk_engine *engines[FORMS];
    struct bench_batches batches[FORMS];
    struct rk_error error = {0};
    double us[FORMS][ROUNDS], difference = 0.0;
    bench_pin(BENCH_THIS_CORE);
    for (int f = 0; f < FORMS; f++) {
        models[f] = bench_model(paths[f], true);
        batches[f] = bench_batches(models[f], requests[f], candidates, MAX_BATCHES);
        if (rk_engine_create(models[f], candidates, &engines[f], &error) != RK_OK)
            bench_fail("engine", &error);
        bench_run(engines[f], &batches[f], 0.0); /* the first batch, whose scores must agree */
    }
    const size_t num_logits = (size_t)candidates * rk_model_spec_of(models[0])->num_heads;
    for (size_t l = 0; l < num_logits; l++)
        difference = fmax(difference, fabs((double)batches[0].logits[l] - (double)batches[1].logits[l]));
    for (int round = 0; round < ROUNDS; round++)
        for (int f = 0; f < FORMS; f++)
            us[f][round] = bench_run(engines[f], &batches[f], seconds / FORMS / ROUNDS);
    const double once = median(us[0], ROUNDS), flat = median(us[1], ROUNDS);
    if (json)
        printf("{\"bench\": \"context\", \"model\": \"%s\", \"candidates\": %u, \"once_us\": %.3f, \"flat_us\": %.3f, "
               "\"ratio\": %.4f, \"largest_difference\": %.3g}\n",
               rk_model_spec_of(models[0])->name, candidates, once, flat, flat / once, difference);
    else
        printf(
            "%u candidates: %.1f us with the context once, %.1f us with all features per candidate: %.2f times as fast "
            "(largest difference of a logit %.2g)\n",
            candidates, once, flat, flat / once, difference);
    for (int f = 0; f < FORMS; f++) {
        rk_engine_destroy(engines[f]);
        rk_model_close(models[f]);
    }
    return 0;
}
