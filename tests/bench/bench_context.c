/* What computing the context once is worth: the same requests in two forms, on one core.
 *
 *   bench_context --model DIR --requests F.jsonl --flat-model DIR --flat-requests F.jsonl [--candidates 270]
 *                 [--seconds 4] [--json]
 *
 * The flat model has the same tables and towers, but all its features and dense inputs are the candidates', and its
 * requests repeat the context for each of them: what a server does that knows rows only. tests/bench/bench_context.py
 * makes both. By turns, round after round; medians, of this thread's share of the processor. */
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { ROUNDS = 21, MAX_BATCHES = 64, FORMS = 2 };

struct options {
    const char *models[FORMS], *requests[FORMS];
    uint32_t candidates;
    double seconds;
    bool json;
};

static void read_options(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"model", required_argument, NULL, 'm'},
                                          {"requests", required_argument, NULL, 'r'},
                                          {"flat-model", required_argument, NULL, 'M'},
                                          {"flat-requests", required_argument, NULL, 'R'},
                                          {"candidates", required_argument, NULL, 'c'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {0}};
    *options = (struct options){.candidates = 270, .seconds = 4.0};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'm' || option == 'M')
            options->models[option == 'M'] = optarg;
        else if (option == 'r' || option == 'R')
            options->requests[option == 'R'] = optarg;
        else if (option == 'c')
            options->candidates = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 's')
            options->seconds = strtod(optarg, NULL);
        else if (option == 'j')
            options->json = true;
        else
            exit(2);
    }
    for (int f = 0; f < FORMS; f++)
        if (options->models[f] == NULL || options->requests[f] == NULL || options->candidates == 0 ||
            !(options->seconds > 0) || optind < argc) {
            fprintf(stderr,
                    "usage: bench_context --model DIR --requests F.jsonl --flat-model DIR --flat-requests F.jsonl "
                    "[--candidates 270] [--seconds 4] [--json]\n");
            exit(2);
        }
}

int main(int argc, char **argv)
{
    struct options options;
    struct rk_model *models[FORMS];
    struct rk_engine *engines[FORMS];
    struct bench_batches batches[FORMS];
    struct rk_error error = {0};
    double us[FORMS][ROUNDS], difference = 0.0;
    read_options(argc, argv, &options);
    bench_pin(BENCH_THIS_CORE);
    for (int f = 0; f < FORMS; f++) {
        models[f] = bench_model(options.models[f], true);
        batches[f] = bench_batches(models[f], options.requests[f], options.candidates, MAX_BATCHES);
        if (rk_engine_create(models[f], options.candidates, &engines[f], &error) != RK_OK)
            bench_fail("engine", &error);
        bench_run(engines[f], &batches[f], 0.0); /* the first batch, whose scores must agree */
    }
    const size_t num_logits = (size_t)options.candidates * rk_model_spec_of(models[0])->num_heads;
    for (size_t l = 0; l < num_logits; l++)
        difference = fmax(difference, fabs((double)batches[0].logits[l] - (double)batches[1].logits[l]));
    for (int round = 0; round < ROUNDS; round++)
        for (int f = 0; f < FORMS; f++)
            us[f][round] = bench_run(engines[f], &batches[f], options.seconds / FORMS / ROUNDS);
    const double once = median(us[0], ROUNDS), flat = median(us[1], ROUNDS);
    if (options.json)
        printf("{\"bench\": \"context\", \"model\": \"%s\", \"candidates\": %u, \"once_us\": %.3f, \"flat_us\": %.3f, "
               "\"ratio\": %.4f, \"largest_difference\": %.3g}\n",
               rk_model_spec_of(models[0])->name, options.candidates, once, flat, flat / once, difference);
    else
        printf(
            "%u candidates: %.1f us with the context once, %.1f us with all features per candidate: %.2f times as fast "
            "(largest difference of a logit %.2g)\n",
            options.candidates, once, flat, flat / once, difference);
    for (int f = 0; f < FORMS; f++) {
        rk_engine_destroy(engines[f]);
        rk_model_close(models[f]);
    }
    return 0;
}
