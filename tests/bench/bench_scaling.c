/* All cores against one: an engine on each, on batches of its own.
 *
 *   bench_scaling --model DIR --requests F.jsonl [--candidates 128] [--cores N] [--seconds 6] [--json]
 *
 * By turns, round after round, one core alone and all at the same time. Rates are per core's time that the threads were
 * given, so that other programs do not count, but what cores take from each other in caches and memory does. */
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/engine_input.h"
#include "tests/bench/probes.h"

enum { ROUNDS = 15, MAX_BATCHES = 64, MAX_CORES = 512 };

struct core {
    pthread_t thread;
    pthread_barrier_t *all;
    int number;
    struct rk_engine *engine;
    struct bench_batches batches;
    double slice, alone_us[ROUNDS], together_us[ROUNDS];
};

static void *run(void *argument)
{
    struct core *core = argument;
    bench_pin(core->number);
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
    static const struct option known[] = {{"model", required_argument, NULL, 'm'},
                                          {"requests", required_argument, NULL, 'r'},
                                          {"candidates", required_argument, NULL, 'c'},
                                          {"cores", required_argument, NULL, 'n'},
                                          {"seconds", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {0}};
    const char *path = NULL, *requests = NULL;
    uint32_t candidates = 128;
    double seconds = 6.0;
    bool json = false, good = true;
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    int num_cores = CPU_COUNT(&allowed);
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'm')
            path = optarg;
        else if (option == 'r')
            requests = optarg;
        else if (option == 'c')
            candidates = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 'n')
            num_cores = atoi(optarg);
        else if (option == 's')
            seconds = strtod(optarg, NULL);
        else if (option == 'j')
            json = true;
        else
            good = false;
    }
    if (!good || path == NULL || requests == NULL || candidates == 0 || !(seconds > 0) || optind < argc ||
        num_cores < 1 || num_cores > MAX_CORES || num_cores > CPU_COUNT(&allowed)) {
        fprintf(stderr,
                "usage: bench_scaling --model DIR --requests F.jsonl [--candidates 128] [--cores N, of those this "
                "process may use] [--seconds 6] [--json]\n");
        return 2;
    }
    struct rk_model *model = bench_model(path, true);
    struct core *cores = bench_array((size_t)num_cores, sizeof *cores);
    struct rk_error error = {0};
    pthread_barrier_t all;
    pthread_barrier_init(&all, NULL, (unsigned)num_cores);
    const struct bench_batches batches = bench_batches(model, requests, candidates, MAX_BATCHES);
    for (int c = 0; c < num_cores; c++) {
        cores[c] = (struct core){.all = &all, .number = c, .batches = batches, .slice = seconds / 2 / ROUNDS};
        cores[c].batches.next = (size_t)c * batches.count / (size_t)num_cores;
        cores[c].batches.logits = bench_array((size_t)candidates * rk_model_spec_of(model)->num_heads, sizeof(float));
        if (rk_engine_create(model, candidates, &cores[c].engine, &error) != RK_OK)
            bench_fail("engine", &error);
    }
    for (int c = 0; c < num_cores; c++)
        if (pthread_create(&cores[c].thread, NULL, run, &cores[c]) != 0)
            bench_fail("a thread cannot be started", NULL);
    double together = 0.0;
    for (int c = 0; c < num_cores; c++) {
        pthread_join(cores[c].thread, NULL);
        together += 1e6 * candidates / median(cores[c].together_us, ROUNDS);
        rk_engine_destroy(cores[c].engine);
    }
    const double alone = 1e6 * candidates / median(cores[0].alone_us, ROUNDS);
    if (json)
        printf("{\"bench\": \"scaling\", \"candidates\": %u, \"cores\": %d, \"alone_per_s\": %.1f, \"together_per_s\": "
               "%.1f, \"ratio\": %.4f}\n",
               candidates, num_cores, alone, together, together / alone / num_cores);
    else
        printf("one core %.0f candidates/s, %d cores %.0f: %.3f of %d times one\n", alone, num_cores, together,
               together / alone / num_cores, num_cores);
    rk_model_close(model);
    return 0;
}
