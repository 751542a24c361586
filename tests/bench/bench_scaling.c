/* All cores against one: an engine on each, on batches of its own.
 *
 *   bench_scaling --model DIR --requests F.jsonl [--candidates 128] [--cores N] [--seconds 6] [--json]
 *
 * By turns, round after round, one core alone and all at the same time. Rates are per core's time that the threads were
 * given, so that other programs do not count, but what cores take from each other in caches and memory does. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { ROUNDS = 15, MAX_BATCHES = 64, MAX_CANDIDATES = 1 << 16 };

struct core {
    pthread_t thread;
    pthread_barrier_t *all;
    uint32_t number;
    struct rk_engine *engine;
    struct bench_batches batches;
    double slice, alone_us[ROUNDS], together_us[ROUNDS];
};

static void *run(void *argument)
{
    struct core *core = argument;
    bench_pin((int)core->number);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(core->all);
        if (core->number == 0)
            core->alone_us[round] = bench_run(core->engine, &core->batches, core->slice);
        pthread_barrier_wait(core->all);
        core->together_us[round] = bench_run(core->engine, &core->batches, core->slice);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    const uint32_t usable = (uint32_t)CPU_COUNT(&allowed);
    const char *path = NULL, *requests = NULL;
    uint32_t candidates = 128, num_cores = usable;
    double seconds = 6.0;
    bool json = false;
    bench_options(argc, argv,
                  (struct bench_option[]){
                      BENCH_OPTION("model", BENCH_TEXT, &path, "the package's folder"),
                      BENCH_OPTION("requests", BENCH_TEXT, &requests, "JSON lines"),
                      BENCH_OPTION_UP_TO(MAX_CANDIDATES, "candidates", BENCH_COUNT, &candidates, "in a batch"),
                      BENCH_OPTION_UP_TO(usable, "cores", BENCH_COUNT, &num_cores, "of those this process may use"),
                      BENCH_OPTION("seconds", BENCH_SECONDS, &seconds, "measuring time"),
                      BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    struct rk_model *model = bench_model(path, true);
    struct core *cores = bench_array(num_cores, sizeof *cores);
    struct rk_error error = {0};
    pthread_barrier_t all;
    pthread_barrier_init(&all, NULL, num_cores);
    const struct bench_batches batches = bench_batches(model, requests, candidates, MAX_BATCHES);
    for (uint32_t c = 0; c < num_cores; c++) {
        cores[c] = (struct core){.all = &all, .number = c, .batches = batches, .slice = seconds / 2 / ROUNDS};
        cores[c].batches.next = (size_t)c * batches.count / num_cores;
        cores[c].batches.logits = bench_array((size_t)candidates * rk_model_spec_of(model)->num_heads, sizeof(float));
        if (rk_engine_create(model, candidates, &cores[c].engine, &error) != RK_OK)
            bench_fail("engine", &error);
    }
    for (uint32_t c = 0; c < num_cores; c++)
        if (pthread_create(&cores[c].thread, NULL, run, &cores[c]) != 0)
            bench_fail("a thread cannot be started", NULL);
    double together = 0.0;
    for (uint32_t c = 0; c < num_cores; c++) {
        pthread_join(cores[c].thread, NULL);
        together += 1e6 * candidates / median(cores[c].together_us, ROUNDS);
        rk_engine_destroy(cores[c].engine);
    }
    const double alone = 1e6 * candidates / median(cores[0].alone_us, ROUNDS);
    if (json)
        printf("{\"bench\": \"scaling\", \"candidates\": %u, \"cores\": %u, \"alone_per_s\": %.1f, \"together_per_s\": "
               "%.1f, \"ratio\": %.4f}\n",
               candidates, num_cores, alone, together, together / alone / num_cores);
    else
        printf("one core %.0f candidates/s, %u cores %.0f: %.3f of %u times one\n", alone, num_cores, together,
               together / alone / num_cores, num_cores);
    rk_model_close(model);
    return 0;
}
