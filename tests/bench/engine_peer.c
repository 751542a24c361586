/* The engine as one side of a comparison with other programs: it keeps a model and batches ready, and runs when told.
 *
 *   engine_peer MODEL_DIR FILE.jsonl...
 *
 * Each file holds batches of one size, a request a line. Rows lie in huge pages, as rankd has them. A line on standard
 * input is a command, answered by one line:
 *
 *   run SIZE SECONDS THREADS   score batches of that size on so many cores, each with an engine of its own and starting
 *                              at another batch; candidates per second, all threads together, and candidates per
 *                              second of processor time, which a machine that does other things as well hardly changes
 *   score SIZE                 logits of the first batch of that size, [candidates][heads]
 *
 * "ready" comes first, once the model is loaded, with what computes. Threads are those of a run: they touch their own
 * engine, and everything else only to read. */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/engine.h"
#include "model/jsonl.h"

enum { MAX_SIZES = 16, MAX_THREADS = 256 };

struct size {
    uint32_t candidates;
    struct rk_request *batches;
    size_t count;
};

struct runner {
    pthread_t thread;
    struct rk_engine *engine;
    float *logits;
    int core;
    const struct size *size;
    double seconds, rate, candidates, processor_s;
    size_t first;
    pthread_barrier_t *start;
};

static struct rk_arena arena; /* everything that lives until the end */
static struct size sizes[MAX_SIZES];
static uint32_t num_sizes;
static struct runner runners[MAX_THREADS];
static uint32_t num_cores;

static void fail(const struct rk_error *error, const char *what)
{
    fprintf(stderr, "engine_peer: %s%s%s\n", what, error != NULL ? ": " : "", error != NULL ? error->text : "");
    exit(1);
}

static double clock_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- what there is to run ---- */

static void read_batches(const char *path, const struct rk_model_spec *spec, struct size *size)
{
    struct rk_error error = {0};
    struct rk_jsonl_reader *reader = NULL;
    if (rk_jsonl_open(path, &reader, &error) != RK_OK)
        fail(&error, "batches");
    const char *line;
    size_t length, capacity = 0;
    uint64_t number;
    while (rk_jsonl_next(reader, &line, &length, &number, &error) == RK_OK && line != NULL) {
        if (size->count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 64;
            size->batches = reallocarray(size->batches, capacity, sizeof *size->batches);
            if (size->batches == NULL)
                fail(NULL, "out of memory");
        }
        struct rk_named_request named;
        if (rk_jsonl_parse(line, length, &arena, &named, &error) != RK_OK ||
            rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, &named, &arena, &size->batches[size->count], &error) !=
                RK_OK) {
            rk_error_prefix(&error, "%s:%" PRIu64, path, number);
            break;
        }
        if (named.num_candidates != size->batches[0].num_candidates) {
            rk_error_set(&error, RK_INVALID, "%s:%" PRIu64 " has %u candidates, the first line %u", path, number,
                         named.num_candidates, size->batches[0].num_candidates);
            break;
        }
        size->count++;
    }
    rk_jsonl_close(reader);
    if (error.status != RK_OK || size->count == 0)
        fail(&error, "batches");
    size->candidates = size->batches[0].num_candidates;
}

static void create_engines(const struct rk_model *model)
{
    uint32_t max_batch = 1;
    for (uint32_t s = 0; s < num_sizes; s++)
        max_batch = sizes[s].candidates > max_batch ? sizes[s].candidates : max_batch;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        fail(NULL, "cannot tell which cores may be used");
    struct rk_error error = {0};
    for (int core = 0; core < CPU_SETSIZE && num_cores < MAX_THREADS; core++) {
        if (!CPU_ISSET((size_t)core, &allowed))
            continue;
        struct runner *runner = &runners[num_cores++];
        runner->core = core;
        runner->logits = rk_arena_array(&arena, (size_t)max_batch * rk_model_spec_of(model)->num_heads, sizeof(float));
        if (runner->logits == NULL || rk_engine_create(model, max_batch, &runner->engine, &error) != RK_OK)
            fail(&error, "engine");
    }
}

/* ---- commands ---- */

static void run_batch(const struct runner *runner, size_t batch)
{
    const struct rk_slice slice = {&runner->size->batches[batch % runner->size->count], 0, runner->size->candidates,
                                   runner->logits};
    if (rk_engine_run(runner->engine, &slice, 1, NULL) != RK_OK)
        fail(NULL, "the engine failed: the model's files were damaged");
}

static void *run_thread(void *argument)
{
    struct runner *runner = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)runner->core, &set);
    sched_setaffinity(0, sizeof set, &set);
    pthread_barrier_wait(runner->start);
    uint64_t runs = 0;
    const double start = clock_s(CLOCK_MONOTONIC), processor_start = clock_s(CLOCK_THREAD_CPUTIME_ID);
    double spent;
    do {
        run_batch(runner, runner->first + runs++);
        spent = clock_s(CLOCK_MONOTONIC) - start;
    } while (spent < runner->seconds);
    runner->processor_s = clock_s(CLOCK_THREAD_CPUTIME_ID) - processor_start;
    runner->candidates = (double)runs * runner->size->candidates;
    runner->rate = runner->candidates / spent;
    return NULL;
}

static void command_run(const struct size *size, double seconds, uint32_t threads)
{
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, threads);
    for (uint32_t t = 0; t < threads; t++) {
        struct runner *runner = &runners[t];
        runner->size = size;
        runner->seconds = seconds;
        runner->first = t * size->count / threads;
        runner->start = &start;
        if (pthread_create(&runner->thread, NULL, run_thread, runner) != 0)
            fail(NULL, "failed to start a thread");
    }
    double rate = 0, candidates = 0, processor_s = 0;
    for (uint32_t t = 0; t < threads; t++) {
        pthread_join(runners[t].thread, NULL);
        rate += runners[t].rate;
        candidates += runners[t].candidates;
        processor_s += runners[t].processor_s;
    }
    pthread_barrier_destroy(&start);
    printf("%.9g %.9g\n", rate, candidates / processor_s);
}

static void command_score(const struct size *size, uint32_t num_heads)
{
    runners[0].size = size;
    run_batch(&runners[0], 0);
    for (uint32_t i = 0; i < size->candidates * num_heads; i++)
        printf("%s%.9g", i > 0 ? " " : "", (double)runners[0].logits[i]);
    puts("");
}

static const struct size *find_size(uint32_t candidates)
{
    for (uint32_t s = 0; s < num_sizes; s++)
        if (sizes[s].candidates == candidates)
            return &sizes[s];
    fail(NULL, "no file has batches of the size that was asked for");
    return NULL;
}

static void obey(const struct rk_model_spec *spec)
{
    char line[256];
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint32_t size, threads;
        double seconds;
        if (sscanf(line, "run %" SCNu32 " %lf %" SCNu32, &size, &seconds, &threads) == 3 && threads > 0 &&
            threads <= num_cores)
            command_run(find_size(size), seconds, threads);
        else if (sscanf(line, "score %" SCNu32, &size) == 1)
            command_score(find_size(size), spec->num_heads);
        else
            fail(NULL, "expected: run SIZE SECONDS THREADS (at most one per core), or: score SIZE");
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 2 + MAX_SIZES) {
        fprintf(stderr, "usage: engine_peer MODEL_DIR FILE.jsonl...\n");
        return 2;
    }
    rk_arena_init(&arena, 1 << 20);
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    const struct rk_row_options rows = {.memory = RK_ROWS_HUGE_PAGES, .limits = {.num_shards = 1}};
    const struct rk_model_open_options options = {.rows = &rows};
    if (rk_kernels_check_mask(&error) != RK_OK || rk_model_open(argv[1], &options, &model, &error) != RK_OK)
        fail(&error, "model");
    for (int file = 2; file < argc; file++)
        read_batches(argv[file], rk_model_spec_of(model), &sizes[num_sizes++]);
    create_engines(model);
    printf("ready %s\n", rk_engine_describe());
    fflush(stdout);
    obey(rk_model_spec_of(model));
    for (uint32_t t = 0; t < num_cores; t++)
        rk_engine_destroy(runners[t].engine);
    rk_model_close(model);
    for (uint32_t s = 0; s < num_sizes; s++)
        free(sizes[s].batches);
    rk_arena_deinit(&arena);
    return 0;
}
