/* What every backend must pass (model/backend.h): random models of every architecture and number format that it says it
 * can do, its scores beside the engine's.
 *
 * RANKD_BACKEND is the path of a plug-in, or "cpu" (the default); RANKD_BACKEND_OPTIONS goes to its device. Exit status
 * 77 when there is no such device on this machine. Each test runs in a process of its own and opens the device there.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "model/backends.h"
#include "tests/unit/model/small_model.h"

enum { MAX_BATCH = 300, SLICES = 8 };

static const struct rk_backend *backend;
static struct rk_device *device;
static const struct rk_capabilities *capabilities;
static struct rk_arena arena;
static struct random random_numbers;

static const char *from_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

static void init(void)
{
    struct rk_error error = {0};
    rk_arena_init(&arena, 1 << 16);
    cr_assert_eq(rk_backend_find(from_environment("RANKD_BACKEND", "cpu"), NULL, 0, &backend, &error), RK_OK, "%s",
                 error.text);
    const enum rk_status status =
        backend->open(&rk_backend_host, from_environment("RANKD_BACKEND_OPTIONS", ""), &device, &error);
    if (status == RK_NOT_FOUND)
        cr_skip("%s", error.text);
    cr_assert_eq(status, RK_OK, "%s", error.text);
    capabilities = backend->capabilities(device);
    random_numbers = random_from_seed();
}

static void deinit(void)
{
    backend->close(device);
    rk_arena_deinit(&arena);
}

TestSuite(backend, .init = init, .fini = deinit, .timeout = 300);

/* ---- models ---- */

static uint32_t pick(uint32_t allowed, uint32_t wanted, uint32_t count)
{
    while ((allowed >> wanted & 1) == 0)
        wanted = (wanted + 1) % count;
    return wanted;
}

static enum rk_dense_format dense(enum rk_dense_format wanted)
{
    return (enum rk_dense_format)pick(capabilities->dense_formats, wanted, RK_DENSE_FORMAT_COUNT);
}

/* Changes what the backend cannot do into what it can. */
static struct small_shape within_capabilities(struct small_shape shape)
{
    for (int t = 0; t < SMALL_MAX; t++)
        shape.tables[t].format =
            (enum rk_row_format)pick(capabilities->row_formats, shape.tables[t].format, RK_ROW_FORMAT_COUNT);
    for (int l = 0; l < SMALL_MAX; l++) {
        shape.bottom_format[l] = dense(shape.bottom_format[l]);
        shape.cross_format[l] = dense(shape.cross_format[l]);
    }
    for (int l = 0; l <= SMALL_MAX; l++)
        shape.top_format[l] = dense(shape.top_format[l]);
    shape.vector_format = dense(shape.vector_format);
    return shape;
}

/* A shape with an interaction that the backend has. */
static struct small_shape random_shape(void)
{
    struct small_shape shape;
    do
        shape = small_shape_random(&random_numbers);
    while ((capabilities->interactions >> shape.op & 1) == 0);
    return shape;
}

static struct small_shape typical_shape(void)
{
    return within_capabilities(small_shape_typical((enum rk_interaction_op)pick(capabilities->interactions, 0, 3)));
}

/* One model: on the processor and in the device. */
struct pair {
    struct rk_model model;
    struct rk_engine *engine;
    struct rk_loaded *loaded;
    struct rk_runner *runner;
    struct rk_error_bound bound;
};

static void see_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    (void)context;
    cr_expect(what != NULL && what[0] != '\0' && done <= total, "progress: %llu of %llu", (unsigned long long)done,
              (unsigned long long)total);
}

static enum rk_status load(const struct rk_model *model, struct rk_loaded **loaded)
{
    const struct rk_load_options options = {.progress = see_progress};
    struct rk_error error = {0};
    const enum rk_status status = backend->load(device, model, &options, loaded, &error);
    if (status == RK_UNSUPPORTED)
        cr_expect(error.status == status && error.text[0] != '\0', "it refuses a model and does not say why");
    else
        cr_assert_eq(status, RK_OK, "%s", error.text);
    return status;
}

static struct rk_runner *create(struct rk_loaded *loaded, uint32_t max_batch)
{
    struct rk_runner *runner = NULL;
    struct rk_error error = {0};
    cr_assert_eq(backend->create(loaded, max_batch, &runner, &error), RK_OK, "%s", error.text);
    return runner;
}

/* False: the backend does not take it. */
static bool open_pair(struct pair *pair, const struct small_shape *shape, uint32_t max_batch)
{
    struct rk_error error = {0};
    *pair = (struct pair){0};
    small_model_describe(&pair->model, shape);
    small_model_open(&pair->model, &random_numbers);
    cr_assert_eq(rk_backend_check_model(backend, capabilities, &pair->model.spec, &error), RK_OK, "%s", error.text);
    if (load(&pair->model, &pair->loaded) != RK_OK) {
        small_model_close(&pair->model);
        return false;
    }
    pair->runner = create(pair->loaded, max_batch);
    pair->bound = rk_backend_error_bound(capabilities, &pair->model.spec);
    cr_assert_eq(rk_engine_create(&pair->model, max_batch, &pair->engine, &error), RK_OK, "%s", error.text);
    return true;
}

static void open_typical(struct pair *pair, uint32_t max_batch)
{
    const struct small_shape shape = typical_shape();
    cr_assert(open_pair(pair, &shape, max_batch), "it refuses a model of the plainest kind");
}

static void close_pair(struct pair *pair)
{
    backend->destroy(pair->runner);
    backend->unload(pair->loaded);
    rk_engine_destroy(pair->engine);
    small_model_close(&pair->model);
}

/* ---- runs ---- */

static struct rk_request make_request(const struct pair *pair, uint32_t num_candidates)
{
    const uint32_t lengths = random_below(&random_numbers, 2) ? UINT32_MAX : (uint32_t)random_below(&random_numbers, 4);
    return small_bound_request(&pair->model.spec, num_candidates, lengths, &random_numbers, &arena);
}

static float *make_logits(const struct pair *pair, uint32_t num_candidates)
{
    const size_t count = (size_t)num_candidates * pair->model.spec.num_heads;
    float *logits = rk_arena_array(&arena, count, sizeof *logits);
    for (size_t i = 0; i < count; i++)
        logits[i] = NAN;
    return logits;
}

static void run(const struct pair *pair, struct rk_runner *runner, const struct rk_slice *slices, uint32_t num_slices)
{
    struct rk_error error = {0};
    cr_assert_eq(backend->run(runner, slices, num_slices, NULL, &error), RK_OK, "%s", error.text);
    cr_expect_eq(error.status, RK_OK, "it sets an error and succeeds: %s", error.text);
    (void)pair;
}

static void expect_same_bits(const char *what, const float *logits, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cr_assert(memcmp(&logits[i], &expected[i], sizeof *logits) == 0, "%s: logit %zu is %.9g, then %.9g", what, i,
                  (double)expected[i], (double)logits[i]);
}

/* Of all logits of a test. */
static struct {
    uint64_t all, near;
} seen;

/* What a slice got, against the engine. */
static void expect_scores(const char *what, const struct pair *pair, const struct rk_slice *slice)
{
    const struct rk_slice on_processor = {slice->request, slice->first, slice->count, make_logits(pair, slice->count)};
    const size_t heads = pair->model.spec.num_heads;
    cr_assert_eq(rk_engine_run(pair->engine, &on_processor, 1, NULL), RK_OK);
    if (capabilities->exact)
        expect_same_bits(what, slice->logits, on_processor.logits, slice->count * heads);
    for (size_t i = 0; i < slice->count * heads; i++) {
        const double got = (double)slice->logits[i], expected = (double)on_processor.logits[i];
        const double error = fabs(got - expected) / fmax(1.0, fabs(expected));
        seen.all++;
        seen.near += error <= pair->bound.usual;
        cr_assert(error <= pair->bound.most, "%s: candidate %zu head %zu is %.9g, the processor gives %.9g (bound %g)",
                  what, slice->first + i / heads, i % heads, got, expected, pair->bound.most);
    }
}

static void expect_usual_errors(void)
{
    cr_expect(seen.near >= seen.all / 100 * 95, "only %llu of %llu logits are within the usual bound",
              (unsigned long long)seen.near, (unsigned long long)seen.all);
}

/* A batch of slices of several requests, each with its own logits; at most MAX_BATCH candidates. */
static void make_batch(const struct pair *pair, uint32_t longest, struct rk_request requests[SLICES],
                       struct rk_slice slices[SLICES])
{
    uint32_t left = MAX_BATCH;
    for (int s = 0; s < SLICES; s++) {
        const uint32_t have = (uint32_t)random_between(&random_numbers, 1, longest);
        requests[s] = make_request(pair, have);
        const uint32_t first = (uint32_t)random_below(&random_numbers, have);
        uint32_t count = (uint32_t)random_between(&random_numbers, 0, have - first);
        count = count < left ? count : left;
        left -= count;
        slices[s] = (struct rk_slice){&requests[s], first, count, make_logits(pair, count)};
    }
}

static void compare_batch(const char *what, const struct pair *pair, uint32_t longest)
{
    struct rk_request requests[SLICES];
    struct rk_slice slices[SLICES];
    make_batch(pair, longest, requests, slices);
    run(pair, pair->runner, slices, SLICES);
    for (int s = 0; s < SLICES; s++)
        expect_scores(what, pair, &slices[s]);
}

/* ---- tests ---- */

Test(backend, it_says_what_it_is_and_can)
{
    const char *text = backend->describe(device);
    cr_assert(text != NULL && text[0] != '\0' && strchr(text, '\n') == NULL, "it is described as '%s'", text);
    cr_expect(capabilities->row_formats != 0 && capabilities->row_formats >> RK_ROW_FORMAT_COUNT == 0);
    cr_expect(capabilities->dense_formats != 0 && capabilities->dense_formats >> RK_DENSE_FORMAT_COUNT == 0);
    cr_expect(capabilities->interactions != 0 && capabilities->interactions >> 3 == 0);
    for (int f = 0; !capabilities->exact && f < RK_DENSE_FORMAT_COUNT; f++)
        if (capabilities->dense_formats >> f & 1)
            cr_expect(capabilities->error[f].usual <= 1e-3 && capabilities->error[f].most <= 0.5,
                      "logits in %s may be off by %g, and by %g", rk_dense_format_name((enum rk_dense_format)f),
                      capabilities->error[f].usual, capabilities->error[f].most);
}

Test(backend, options_that_it_does_not_know_are_refused)
{
    struct rk_device *other = NULL;
    struct rk_error error = {0};
    cr_expect_eq(backend->open(&rk_backend_host, "no such option", &other, &error), RK_INVALID);
    cr_expect(strstr(error.text, "no such option") != NULL, "the text does not say which: '%s'", error.text);
    cr_expect_eq(backend->open(&rk_backend_host, "no such option", &other, NULL), RK_INVALID);
}

Test(backend, every_architecture_scores_as_on_the_processor)
{
    uint32_t taken = 0;
    for (int round = 0; round < 80; round++) {
        struct pair pair;
        char what[64];
        const struct small_shape shape = random_shape(), fitting = within_capabilities(shape);
        rk_arena_reset(&arena, SIZE_MAX);
        snprintf(what, sizeof what, "round %d, interaction %d", round, (int)shape.op);
        if (!open_pair(&pair, &fitting, MAX_BATCH))
            continue;
        compare_batch(what, &pair, 40);
        close_pair(&pair);
        taken++;
    }
    expect_usual_errors();
    cr_expect(taken > 20, "it takes only %u of 80 models", taken);
}

Test(backend, every_number_format_scores_as_on_the_processor)
{
    for (int format = 0; format < RK_ROW_FORMAT_COUNT + RK_DENSE_FORMAT_COUNT; format++)
        for (int op = 0; op < 3; op++) {
            struct pair pair;
            char what[64];
            struct small_shape shape = small_shape_typical((enum rk_interaction_op)op);
            const bool rows = format < RK_ROW_FORMAT_COUNT;
            const int which = rows ? format : format - RK_ROW_FORMAT_COUNT;
            for (int t = 0; rows && t < SMALL_MAX; t++)
                shape.tables[t].format = (enum rk_row_format)which;
            for (int l = 0; !rows && l <= SMALL_MAX; l++) {
                shape.bottom_format[l % SMALL_MAX] = shape.cross_format[l % SMALL_MAX] = (enum rk_dense_format)which;
                shape.top_format[l] = (enum rk_dense_format)which;
                shape.vector_format = (enum rk_dense_format)which;
            }
            if ((capabilities->interactions >> op & 1) == 0 ||
                ((rows ? capabilities->row_formats : capabilities->dense_formats) >> which & 1) == 0)
                continue;
            rk_arena_reset(&arena, SIZE_MAX);
            snprintf(what, sizeof what, "%s in %s, interaction %d", rows ? "rows" : "layers",
                     rows ? rk_row_format_name((enum rk_row_format)which)
                          : rk_dense_format_name((enum rk_dense_format)which),
                     op);
            shape = within_capabilities(shape);
            if (!open_pair(&pair, &shape, MAX_BATCH))
                continue;
            compare_batch(what, &pair, 100);
            close_pair(&pair);
        }
    expect_usual_errors();
}

Test(backend, formats_mixed_at_random_score_as_on_the_processor)
{
    for (int round = 0; round < 80; round++) {
        struct pair pair;
        char what[64];
        struct small_shape shape = random_shape();
        small_shape_quantise(&shape, &random_numbers);
        shape = within_capabilities(shape);
        rk_arena_reset(&arena, SIZE_MAX);
        snprintf(what, sizeof what, "round %d, interaction %d", round, (int)shape.op);
        if (!open_pair(&pair, &shape, MAX_BATCH))
            continue;
        compare_batch(what, &pair, 40);
        close_pair(&pair);
    }
    expect_usual_errors();
}

Test(backend, a_score_has_the_same_bits_whatever_shares_its_batch)
{
    for (int round = 0; round < 30; round++) {
        struct pair pair;
        struct small_shape shape = random_shape();
        if (round % 2)
            small_shape_quantise(&shape, &random_numbers);
        shape = within_capabilities(shape);
        rk_arena_reset(&arena, SIZE_MAX);
        if (!open_pair(&pair, &shape, MAX_BATCH))
            continue;
        const uint32_t count = (uint32_t)random_between(&random_numbers, 1, 200);
        const uint32_t own = (uint32_t)random_between(&random_numbers, 1, count);
        const uint32_t heads = pair.model.spec.num_heads;
        const struct rk_request request = make_request(&pair, count), other = make_request(&pair, 60);
        float *whole = make_logits(&pair, count), *parts = make_logits(&pair, count), *one = make_logits(&pair, 1);
        const struct rk_slice together = {&request, 0, count, whole};
        run(&pair, pair.runner, &together, 1);
        float *beside = make_logits(&pair, 60);
        const struct rk_slice mixed[] = {{&other, 3, 20, beside},
                                         {&request, own, count - own, parts + (size_t)own * heads},
                                         {&other, 30, 30, beside + (size_t)20 * heads},
                                         {&request, 0, own, parts}};
        run(&pair, pair.runner, mixed, 4);
        expect_same_bits("in parts, beside another request", parts, whole, (size_t)count * heads);
        const struct rk_slice alone = {&request, count - 1, 1, one};
        run(&pair, pair.runner, &alone, 1);
        expect_same_bits("alone", one, whole + (size_t)(count - 1) * heads, heads);
        close_pair(&pair);
    }
}

Test(backend, nothing_but_the_logits_of_the_slices_is_written)
{
    enum { GUARD = 64 };
    struct pair pair;
    open_typical(&pair, MAX_BATCH);
    const uint32_t heads = pair.model.spec.num_heads;
    const struct rk_request request = make_request(&pair, 50);
    float *logits = make_logits(&pair, 50 + 2 * GUARD);
    const struct rk_slice slice = {&request, 7, 23, logits + (size_t)GUARD * heads};
    run(&pair, pair.runner, &slice, 1);
    for (size_t i = 0; i < (size_t)GUARD * heads; i++)
        cr_expect(isnan(logits[i]) && isnan(logits[(GUARD + 23) * heads + i]), "number %zu outside was written", i);
    for (size_t i = 0; i < (size_t)23 * heads; i++)
        cr_expect(isfinite(slice.logits[i]), "logit %zu is %g", i, (double)slice.logits[i]);
    close_pair(&pair);
}

Test(backend, empty_runs_are_fine)
{
    struct pair pair;
    open_typical(&pair, 4);
    const struct rk_request request = make_request(&pair, 4);
    float *logits = make_logits(&pair, 4);
    const struct rk_slice nothing[] = {{&request, 0, 0, logits}, {&request, 4, 0, logits}};
    struct rk_run_cost cost;
    run(&pair, pair.runner, NULL, 0);
    run(&pair, pair.runner, nothing, 2);
    cr_expect_eq(backend->run(pair.runner, NULL, 0, &cost, NULL), RK_OK);
    cr_expect(isnan(logits[0]), "a logit of no candidate was written");
    backend->destroy(NULL);
    backend->unload(NULL);
    close_pair(&pair);
}

Test(backend, batches_past_the_limit_are_refused_whole)
{
    struct pair pair;
    struct rk_runner *none = NULL;
    struct rk_error error = {0};
    open_typical(&pair, 8);
    cr_expect_eq(backend->create(pair.loaded, 0, &none, &error), RK_INVALID);
    cr_expect(error.text[0] != '\0', "it does not say what is wrong with a limit of 0");
    rk_error_clear(&error);
    const struct rk_request request = make_request(&pair, 9);
    float *logits = make_logits(&pair, 9);
    const size_t heads = pair.model.spec.num_heads;
    const struct rk_slice many[] = {{&request, 0, 5, logits}, {&request, 5, 4, logits + 5 * heads}};
    cr_expect_eq(backend->run(pair.runner, many, 2, NULL, &error), RK_INTERNAL);
    cr_expect(error.text[0] != '\0', "it does not say why it refuses a batch");
    cr_expect_eq(backend->run(pair.runner, many, 2, NULL, NULL), RK_INTERNAL);
    for (size_t i = 0; i < 9 * heads; i++)
        cr_expect(isnan(logits[i]), "logit %zu of a refused batch was written", i);
    const struct rk_slice most = {&request, 1, 8, logits};
    run(&pair, pair.runner, &most, 1);
    expect_scores("after a refusal", &pair, &most);
    close_pair(&pair);
}

Test(backend, damage_to_a_model_is_noticed_and_leaves_others_alone)
{
    struct pair damaged, whole;
    open_typical(&damaged, 8);
    open_typical(&whole, 8);
    const struct rk_request request = make_request(&damaged, 8), other = make_request(&whole, 8);
    const struct rk_slice slice = {&request, 0, 8, make_logits(&damaged, 8)};
    const struct rk_slice fine = {&other, 0, 8, make_logits(&whole, 8)};
    struct rk_error error = {0};
    run(&damaged, damaged.runner, &slice, 1);
    damaged.model.damaged = true;
    cr_expect_eq(backend->run(damaged.runner, &slice, 1, NULL, &error), RK_CORRUPT);
    cr_expect(error.text[0] != '\0', "it does not say what is wrong with the model");
    run(&whole, whole.runner, &fine, 1);
    expect_scores("beside a damaged model", &whole, &fine);
    close_pair(&damaged);
    close_pair(&whole);
}

Test(backend, models_come_and_go)
{
    struct pair stays;
    open_typical(&stays, 16);
    for (int round = 0; round < 40; round++) {
        struct pair comes;
        rk_arena_reset(&arena, SIZE_MAX);
        open_typical(&comes, (uint32_t)random_between(&random_numbers, 1, MAX_BATCH));
        const struct rk_request request = make_request(&stays, 16);
        const struct rk_slice slice = {&request, 0, 16, make_logits(&stays, 16)};
        close_pair(&comes);
        run(&stays, stays.runner, &slice, 1);
        expect_scores("while others came and went", &stays, &slice);
    }
    close_pair(&stays);
}

Test(backend, devices_are_opened_and_closed)
{
    for (int round = 0; round < 3; round++) {
        struct pair pair;
        open_typical(&pair, 16);
        const struct rk_request request = make_request(&pair, 16);
        const struct rk_slice slice = {&request, 0, 16, make_logits(&pair, 16)};
        run(&pair, pair.runner, &slice, 1);
        expect_scores("on a device opened anew", &pair, &slice);
        close_pair(&pair);
        backend->close(device);
        cr_assert_eq(backend->open(&rk_backend_host, from_environment("RANKD_BACKEND_OPTIONS", ""), &device, NULL),
                     RK_OK);
    }
}

struct worker {
    const struct pair *pair;
    struct rk_slice slices[SLICES];
    struct rk_request requests[SLICES];
    float *again[SLICES];
    enum rk_status status;
};

/* Makes its own runner, as a worker of the server does. */
static void *work(void *argument)
{
    struct worker *worker = argument;
    struct rk_runner *runner = NULL;
    worker->status = backend->create(worker->pair->loaded, MAX_BATCH, &runner, NULL);
    for (int round = 0; worker->status == RK_OK && round < 20; round++)
        worker->status = backend->run(runner, worker->slices, SLICES, NULL, NULL);
    backend->destroy(runner);
    return NULL;
}

Test(backend, runners_on_several_threads_give_the_bits_that_one_gives)
{
    enum { THREADS = 4 };
    struct pair pair;
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    open_typical(&pair, MAX_BATCH);
    const uint32_t heads = pair.model.spec.num_heads;
    for (int t = 0; t < THREADS; t++) {
        workers[t].pair = &pair;
        make_batch(&pair, 60, workers[t].requests, workers[t].slices);
        cr_assert_eq(pthread_create(&threads[t], NULL, work, &workers[t]), 0);
    }
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (int t = 0; t < THREADS; t++) {
        cr_assert_eq(workers[t].status, RK_OK, "thread %d: %s", t, rk_status_name(workers[t].status));
        for (int s = 0; s < SLICES; s++) {
            const struct rk_slice *slice = &workers[t].slices[s];
            const struct rk_slice alone = {slice->request, slice->first, slice->count,
                                           make_logits(&pair, slice->count)};
            run(&pair, pair.runner, &alone, 1);
            expect_same_bits("beside other threads", slice->logits, alone.logits, (size_t)slice->count * heads);
        }
    }
    close_pair(&pair);
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

Test(backend, a_run_says_where_its_time_went_and_scores_the_same)
{
    struct pair pair;
    open_typical(&pair, MAX_BATCH);
    const struct rk_request request = make_request(&pair, MAX_BATCH);
    const struct rk_slice plain = {&request, 0, MAX_BATCH, make_logits(&pair, MAX_BATCH)};
    const struct rk_slice asked = {&request, 0, MAX_BATCH, make_logits(&pair, MAX_BATCH)};
    struct rk_run_cost cost;
    memset(&cost, 0xff, sizeof cost);
    run(&pair, pair.runner, &plain, 1);
    const uint64_t begin_ns = clock_ns();
    cr_assert_eq(backend->run(pair.runner, &asked, 1, &cost, NULL), RK_OK);
    const uint64_t most_ns = clock_ns() - begin_ns;
    const uint64_t sum_ns = cost.lookup_ns + cost.interaction_ns + cost.towers_ns + cost.rest_ns + cost.transfer_ns;
    cr_expect(sum_ns > 0 && sum_ns <= most_ns, "the parts are %llu ns, the run took %llu", (unsigned long long)sum_ns,
              (unsigned long long)most_ns);
    expect_same_bits("asked what it costs", asked.logits, plain.logits, (size_t)MAX_BATCH * pair.model.spec.num_heads);
    close_pair(&pair);
}
