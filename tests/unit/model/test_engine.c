/* The engine against a plain double-precision implementation of the same mathematics, over random architectures. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>

#include "model/columns.h"
#include "model/engine.h"
#include "tests/unit/model/plain_model.h"
#include "tests/unit/model/small_model.h"

static struct rk_arena arena;

static void setup(void)
{
    rk_arena_init(&arena, 1 << 16);
}

static void teardown(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(engine, .init = setup, .fini = teardown, .timeout = 120);

static void expect_logits(const struct rk_model *model, const struct rk_request *request, uint32_t first,
                          uint32_t count, const float *logits, const char *what)
{
    const uint32_t num_heads = model->spec.num_heads;
    for (uint32_t c = 0; c < count; c++) {
        const double *expected = plain_logits(model, request, first + c, &arena);
        for (uint32_t h = 0; h < num_heads; h++) {
            const double got = (double)logits[c * num_heads + h];
            const double bound = 1e-5 * fmax(1.0, fabs(expected[h]));
            cr_assert(fabs(got - expected[h]) <= bound, "%s: candidate %u head %u is %.9g, expected %.9g", what,
                      first + c, h, got, expected[h]);
        }
    }
}

static struct rk_engine *create_engine(const struct rk_model *model, uint32_t max_batch)
{
    struct rk_engine *engine = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_engine_create(model, max_batch, &engine, &error), RK_OK, "%s", error.text);
    return engine;
}

/* ---- tests ---- */

Test(engine, random_architectures_score_as_plain_mathematics_does)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 150; round++) {
        const struct small_shape shape = small_shape_random(&random);
        struct rk_model model;
        small_model_describe(&model, &shape);
        small_model_open(&model, &random);
        struct rk_engine *engine = create_engine(&model, (uint32_t)random_between(&random, 1, 40));
        for (int r = 0; r < 3; r++) {
            rk_arena_reset(&arena, SIZE_MAX);
            const uint32_t count = (uint32_t)random_between(&random, 1, 30);
            const uint32_t lengths = random_below(&random, 2) ? UINT32_MAX : (uint32_t)random_below(&random, 3);
            const struct rk_request request = small_bound_request(&model.spec, count, lengths, &random, &arena);
            float *logits = rk_arena_array(&arena, count * shape.num_heads, sizeof *logits);
            cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
            char what[128];
            snprintf(what, sizeof what, "round %d op %d dense %u+%u features %u", round, (int)shape.op,
                     shape.context_dense, shape.candidate_dense, shape.num_features);
            expect_logits(&model, &request, 0, count, logits, what);
        }
        rk_engine_destroy(engine);
        small_model_close(&model);
    }
}

/* Slices of several requests, in batches larger and smaller than a tile. */
Test(engine, slices_of_many_requests_share_a_batch)
{
    struct random random = random_from_seed();
    for (int op = 0; op < 3; op++)
        for (int dense = 0; dense < 4; dense++) {
            struct small_shape shape = small_shape_typical((enum rk_interaction_op)op);
            shape.context_dense = dense & 1 ? 2 : 0;
            shape.candidate_dense = dense & 2 ? 3 : 0;
            if (dense == 0)
                shape.num_bottom = 0;
            struct rk_model model;
            small_model_describe(&model, &shape);
            small_model_open(&model, &random);
            enum { MAX_BATCH = 1500, SLICES = 12 };
            struct rk_engine *engine = create_engine(&model, MAX_BATCH);
            for (int round = 0; round < 6; round++) {
                rk_arena_reset(&arena, SIZE_MAX);
                struct rk_slice slices[SLICES];
                struct rk_request requests[SLICES];
                uint32_t left = MAX_BATCH;
                for (int s = 0; s < SLICES; s++) {
                    const uint32_t most = round % 2 == 0 ? 400 : 60; /* the former span tiles */
                    const uint32_t have = (uint32_t)random_between(&random, 1, most);
                    requests[s] = small_bound_request(&model.spec, have, UINT32_MAX, &random, &arena);
                    const uint32_t first = (uint32_t)random_below(&random, have);
                    uint32_t count = (uint32_t)random_between(&random, 0, have - first);
                    count = count < left ? count : left;
                    left -= count;
                    slices[s] = (struct rk_slice){&requests[s], first, count,
                                                  rk_arena_array(&arena, count * shape.num_heads, sizeof(float))};
                }
                cr_assert_eq(rk_engine_run(engine, slices, SLICES, NULL), RK_OK);
                for (int s = 0; s < SLICES; s++)
                    expect_logits(&model, slices[s].request, slices[s].first, slices[s].count, slices[s].logits,
                                  "slice");
            }
            rk_engine_destroy(engine);
            small_model_close(&model);
        }
}

/* Rounding to a few levels turns a difference in the last bit of a float into one of a whole level, where a number lies
 * on the edge between two. So most logits must be as near as in float32, and the others not far. */
Test(engine, quantised_architectures_score_as_plain_mathematics_with_their_rounding)
{
    struct random random = random_from_seed();
    uint32_t all = 0, near = 0;
    for (int round = 0; round < 150; round++) {
        struct small_shape shape = small_shape_random(&random);
        small_shape_quantise(&shape, &random);
        struct rk_model model;
        small_model_describe(&model, &shape);
        small_model_open(&model, &random);
        struct rk_engine *engine = create_engine(&model, (uint32_t)random_between(&random, 1, 40));
        rk_arena_reset(&arena, SIZE_MAX);
        const uint32_t count = (uint32_t)random_between(&random, 1, 30);
        const struct rk_request request = small_bound_request(&model.spec, count, UINT32_MAX, &random, &arena);
        float *logits = rk_arena_array(&arena, count * shape.num_heads, sizeof *logits);
        cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
        for (uint32_t c = 0; c < count; c++) {
            const double *expected = plain_logits(&model, &request, c, &arena);
            for (uint32_t h = 0; h < shape.num_heads; h++, all++) {
                const double error =
                    fabs((double)logits[c * shape.num_heads + h] - expected[h]) / fmax(1.0, fabs(expected[h]));
                near += error <= 2e-5;
                cr_assert(error <= 0.5, "round %d op %d: candidate %u head %u is %.9g, expected %.9g", round,
                          (int)shape.op, c, h, (double)logits[c * shape.num_heads + h], expected[h]);
            }
        }
        rk_engine_destroy(engine);
        small_model_close(&model);
    }
    cr_assert_gt(near, all / 100 * 95, "only %u of %u logits are within 2e-5", near, all);
}

/* The promise: a candidate's score has the same bits alone, among many, in any slice and tile, beside any neighbours.
 */
Test(engine, a_score_does_not_depend_on_what_shares_its_batch)
{
    struct random random = random_from_seed();
    enum { MAX_SLICES = 40 };
    for (int round = 0; round < 60; round++) {
        struct small_shape shape = small_shape_random(&random);
        if (round % 4 != 0)
            small_shape_quantise(&shape, &random);
        struct rk_model model;
        small_model_describe(&model, &shape);
        small_model_open(&model, &random);
        rk_arena_reset(&arena, SIZE_MAX);
        const uint32_t num_heads = shape.num_heads, count = (uint32_t)random_between(&random, 1, 500);
        const struct rk_request request = small_bound_request(&model.spec, count, UINT32_MAX, &random, &arena),
                                other = small_bound_request(&model.spec, 200, UINT32_MAX, &random, &arena);
        float *whole = rk_arena_array(&arena, count * num_heads, sizeof *whole),
              *split = rk_arena_array(&arena, count * num_heads, sizeof *split),
              *rest = rk_arena_array(&arena, 200 * num_heads, sizeof *rest);
        struct rk_engine *engine = create_engine(&model, 1024), *small = create_engine(&model, 1);
        cr_assert_eq(rk_engine_score(engine, &request, whole), RK_OK);
        for (int kind = 0; kind < 4; kind++) {
            if (kind == 0) { /* each alone */
                cr_assert_eq(rk_engine_score(small, &request, split), RK_OK);
            } else { /* slices of random lengths, between slices of another request */
                struct rk_slice slices[2 * MAX_SLICES + 1];
                uint32_t num_slices = 0, done = 0;
                for (int s = 0; s < MAX_SLICES && done < count; s++) {
                    const uint32_t first = (uint32_t)random_below(&random, 200);
                    const uint32_t neighbours = (uint32_t)random_below(&random, 200 - first > 10 ? 10 : 200 - first);
                    uint32_t own = (uint32_t)random_between(&random, 0, 2 * count / MAX_SLICES + 1);
                    own = s + 1 == MAX_SLICES || own > count - done ? count - done : own;
                    slices[num_slices++] = (struct rk_slice){&other, first, neighbours, rest};
                    slices[num_slices++] = (struct rk_slice){&request, done, own, split + done * num_heads};
                    done += own;
                }
                cr_assert_eq(rk_engine_run(engine, slices, num_slices, NULL), RK_OK);
            }
            for (uint32_t i = 0; i < count * num_heads; i++)
                cr_assert_eq(memcmp(&split[i], &whole[i], sizeof *split), 0,
                             "round %d op %d way %d: candidate %u is %.9g, then %.9g", round, (int)shape.op, kind,
                             i / num_heads, (double)whole[i], (double)split[i]);
        }
        rk_engine_destroy(engine);
        rk_engine_destroy(small);
        small_model_close(&model);
    }
}

Test(engine, what_a_neighbour_asks_changes_no_bit_of_a_score)
{
    struct random random = random_from_seed();
    for (int op = 0; op < 3; op++) {
        const struct small_shape shape = small_shape_typical((enum rk_interaction_op)op);
        struct rk_model model;
        small_model_describe(&model, &shape);
        small_model_open(&model, &random);
        struct rk_engine *engine = create_engine(&model, 64);
        const struct rk_request request = small_bound_request(&model.spec, 20, UINT32_MAX, &random, &arena);
        float first[40], again[40], others[40];
        for (int round = 0; round < 10; round++) {
            const struct rk_request neighbour = small_bound_request(&model.spec, 20, UINT32_MAX, &random, &arena);
            if (round % 2)
                for (int i = 0; i < 60; i++)
                    ((float *)neighbour.candidate_dense)[i] = round == 1 ? NAN : 1e30f;
            const struct rk_slice slices[] = {{&neighbour, 0, 20, others}, {&request, 0, 20, again}};
            cr_assert_eq(rk_engine_run(engine, slices, 2, NULL), RK_OK);
            if (round == 0)
                memcpy(first, again, sizeof first);
            cr_assert_eq(memcmp(first, again, sizeof first), 0, "op %d round %d: %.9g became %.9g", op, round,
                         (double)first[0], (double)again[0]);
        }
        rk_engine_destroy(engine);
        small_model_close(&model);
    }
}

Test(engine, rows_so_wide_that_scratch_is_bounded_still_score)
{
    struct random random = random_from_seed();
    struct small_shape shape = small_shape_typical(RK_INTERACTION_CAT);
    shape.num_hidden = 1;
    shape.hidden[0] = 1 << 20;
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    struct rk_engine *engine = create_engine(&model, 1 << 20);
    const struct rk_request request = small_bound_request(&model.spec, 3, UINT32_MAX, &random, &arena);
    float *logits = rk_arena_array(&arena, 3 * shape.num_heads, sizeof *logits);
    cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
    for (uint32_t i = 0; i < 3 * shape.num_heads; i++)
        cr_assert(isfinite(logits[i]));
    rk_engine_destroy(engine);
    small_model_close(&model);
}

Test(engine, nan_in_the_weights_reaches_the_logits)
{
    struct random random = random_from_seed();
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    *(float *)(model.weights + model.bottom[0].weight.offset) = NAN;
    small_model_pack(&model);
    struct rk_engine *engine = create_engine(&model, 64);
    const struct rk_request request = small_bound_request(&model.spec, 5, 1, &random, &arena);
    float logits[10];
    cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
    for (int i = 0; i < 10; i++)
        cr_assert(isnan(logits[i]), "logit %d is %g: ReLU has swallowed the NaN", i, (double)logits[i]);
    rk_engine_destroy(engine);
    small_model_close(&model);
}

Test(engine, a_damaged_model_gives_corrupt)
{
    struct random random = random_from_seed();
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_CAT);
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    struct rk_engine *engine = create_engine(&model, 4);
    const struct rk_request request = small_bound_request(&model.spec, 10, 1, &random, &arena);
    float logits[20];
    cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
    model.damaged = true;
    cr_assert_eq(rk_engine_score(engine, &request, logits), RK_CORRUPT);
    rk_engine_destroy(engine);
    small_model_close(&model);
}

Test(engine, a_run_says_where_its_time_went_and_scores_the_same)
{
    struct random random = random_from_seed();
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    struct rk_engine *engine = create_engine(&model, 300);
    const struct rk_request request = small_bound_request(&model.spec, 300, 2, &random, &arena);
    float expected[600], logits[600];
    const struct rk_slice plain = {&request, 0, 300, expected}, costed = {&request, 0, 300, logits};
    struct rk_run_cost cost;
    memset(&cost, 0xff, sizeof cost);
    cr_assert_eq(rk_engine_run(engine, &plain, 1, NULL), RK_OK);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    cr_assert_eq(rk_engine_run(engine, &costed, 1, &cost), RK_OK);
    clock_gettime(CLOCK_MONOTONIC, &after);
    const uint64_t most = (uint64_t)((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec);
    cr_assert_arr_eq(expected, logits, 300 * model.spec.num_heads * sizeof(float));
    cr_assert_gt(cost.lookup_ns, 0);
    cr_assert_gt(cost.interaction_ns, 0);
    cr_assert_gt(cost.towers_ns, 0);
    cr_assert_leq(cost.lookup_ns + cost.interaction_ns + cost.towers_ns + cost.rest_ns, most);
    rk_engine_destroy(engine);
    small_model_close(&model);
}

Test(engine, batches_past_the_limit_are_refused_and_the_rest_is_counted)
{
    struct random random = random_from_seed();
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    struct rk_engine *engine = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_engine_create(&model, 0, &engine, &error), RK_INVALID);
    engine = create_engine(&model, 8);
    const struct rk_request request = small_bound_request(&model.spec, 20, 2, &random, &arena);
    float logits[40];
    const struct rk_slice whole = {&request, 0, 20, logits}, nothing = {&request, 20, 0, logits};
    cr_assert_eq(rk_engine_run(engine, &whole, 1, NULL), RK_INTERNAL);
    cr_assert_eq(rk_engine_run(engine, &nothing, 1, NULL), RK_OK);
    cr_assert_eq(rk_engine_run(engine, NULL, 0, NULL), RK_OK);
    const struct rk_engine_counters before = *rk_engine_counters_of(engine);
    cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
    const struct rk_engine_counters *after = rk_engine_counters_of(engine);
    cr_assert_eq(after->batches - before.batches, 3);
    cr_assert_eq(after->candidates - before.candidates, 20);
    /* Two features of each side: context ones once per batch. */
    cr_assert_eq(after->lookups - before.lookups, 3 * 2 + 20 * 2);
    cr_assert_eq(after->rows - before.rows, 2 * (3 * 2 + 20 * 2));
    rk_engine_destroy(engine);
    rk_engine_destroy(NULL);
    small_model_close(&model);
}

Test(engine, a_request_longer_than_a_tile_looks_its_context_up_once)
{
    struct random random = random_from_seed();
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    enum { COUNT = 1200 };
    struct rk_engine *engine = create_engine(&model, COUNT);
    const struct rk_request request = small_bound_request(&model.spec, COUNT, 1, &random, &arena);
    float *logits = rk_arena_array(&arena, COUNT * shape.num_heads, sizeof *logits);
    cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
    expect_logits(&model, &request, 0, COUNT, logits, "long request");
    const uint64_t lookups = rk_engine_counters_of(engine)->lookups;
    cr_assert_eq(lookups, 2 + 2 * COUNT, "%llu lookups", (unsigned long long)lookups);
    rk_engine_destroy(engine);
    small_model_close(&model);
}

struct scorer {
    const struct rk_model *model;
    const struct rk_request *request;
    float logits[120];
    enum rk_status status;
};

static void *score_often(void *argument)
{
    struct scorer *scorer = argument;
    struct rk_engine *engine = NULL;
    scorer->status = rk_engine_create(scorer->model, 64, &engine, NULL);
    for (int round = 0; scorer->status == RK_OK && round < 200; round++)
        scorer->status = rk_engine_score(engine, scorer->request, scorer->logits);
    rk_engine_destroy(engine);
    return NULL;
}

Test(engine, engines_of_several_threads_give_the_same_bits)
{
    struct random random = random_from_seed();
    for (int op = 0; op < 3; op++) {
        const struct small_shape shape = small_shape_typical((enum rk_interaction_op)op);
        struct rk_model model;
        small_model_describe(&model, &shape);
        small_model_open(&model, &random);
        const struct rk_request request = small_bound_request(&model.spec, 60, UINT32_MAX, &random, &arena);
        static struct scorer scorers[4];
        pthread_t threads[4];
        for (int t = 0; t < 4; t++) {
            scorers[t] = (struct scorer){.model = &model, .request = &request};
            cr_assert_eq(pthread_create(&threads[t], NULL, score_often, &scorers[t]), 0);
        }
        for (int t = 0; t < 4; t++) {
            pthread_join(threads[t], NULL);
            cr_assert_eq(scorers[t].status, RK_OK);
            cr_assert_eq(memcmp(scorers[t].logits, scorers[0].logits, sizeof scorers[t].logits), 0, "thread %d", t);
        }
        expect_logits(&model, &request, 0, 60, scorers[0].logits, "threads");
        small_model_close(&model);
    }
}

Test(engine, it_says_what_it_runs_on)
{
    cr_assert_eq(strncmp(rk_engine_describe(), "cpu (", 5), 0, "%s", rk_engine_describe());
    cr_assert_not_null(strstr(rk_engine_describe(), rk_kernels_describe()));
}

/* What an observer was shown: for each layer the inputs of one candidate after the other, in double precision. */
struct seen {
    const struct rk_model *model;
    uint32_t rows[RK_STAGE_COUNT][SMALL_MAX], context_rows[RK_STAGE_COUNT];
    float low[RK_STAGE_COUNT][SMALL_MAX], high[RK_STAGE_COUNT][SMALL_MAX];
};

static void see(void *context, enum rk_stage stage, uint32_t index, uint32_t first_column, const float *values,
                uint32_t rows, uint32_t columns, size_t stride)
{
    struct seen *seen = context;
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t count = rk_model_spec_layers(&seen->model->spec, layers);
    size_t l = 0;
    while (l < count && (layers[l].stage != stage || layers[l].index != index))
        l++;
    cr_assert_lt(l, count, "there is no layer %u of stage %d", index, (int)stage);
    uint32_t order[1024];
    const uint32_t width = layers[l].layer->weight.columns,
                   shared = rk_layer_columns(&seen->model->spec, &layers[l], order);
    cr_assert_leq(width, 1024);
    if (first_column == 0 && shared > 0) { /* the context's part: the same row for each candidate */
        cr_assert_eq(columns, shared);
        cr_assert_eq(stride, 0);
        seen->context_rows[stage] += rows;
    } else {
        cr_assert_eq(first_column, shared);
        cr_assert_eq(columns, width - shared);
        seen->rows[stage][index] += rows;
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++) {
            seen->low[stage][index] = fminf(seen->low[stage][index], values[r * stride + c]);
            seen->high[stage][index] = fmaxf(seen->high[stage][index], values[r * stride + c]);
        }
}

Test(engine, an_observer_sees_what_every_layer_reads)
{
    enum { COUNT = 300 };
    struct random random = random_from_seed();
    for (int op = 0; op < 3; op++) {
        const struct small_shape shape = small_shape_typical((enum rk_interaction_op)op);
        struct rk_model model;
        small_model_describe(&model, &shape);
        small_model_open(&model, &random);
        struct rk_engine *engine = create_engine(&model, op == 0 ? 16 : COUNT); /* many runs, or many tiles */
        struct seen seen = {.model = &model};
        cr_assert_eq(rk_engine_observe(engine, see, &seen), RK_OK);
        const struct rk_request request = small_bound_request(&model.spec, COUNT, 2, &random, &arena);
        float logits[2 * COUNT];
        cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
        struct rk_layer_use layers[RK_MAX_LAYER_USES];
        const size_t count = rk_model_spec_layers(&model.spec, layers);
        for (size_t l = 0; l < count; l++)
            cr_assert_eq(seen.rows[layers[l].stage][layers[l].index], COUNT, "stage %d layer %u: %u rows",
                         (int)layers[l].stage, layers[l].index, seen.rows[layers[l].stage][layers[l].index]);
        cr_assert_eq(seen.context_rows[RK_STAGE_BOTTOM], COUNT, "%u rows", seen.context_rows[RK_STAGE_BOTTOM]);
        cr_assert_eq(seen.context_rows[op == RK_INTERACTION_DCN_V2 ? RK_STAGE_CROSS_V : RK_STAGE_TOP], COUNT);
        /* The first layer reads the request itself; ReLU leaves nothing negative for the second. */
        float low = 0.0f, high = 0.0f;
        for (int i = 0; i < 2 + 3 * COUNT; i++) {
            const float value = i < 2 ? request.context_dense[i] : request.candidate_dense[i - 2];
            low = fminf(low, value);
            high = fmaxf(high, value);
        }
        cr_assert(seen.low[RK_STAGE_BOTTOM][0] == low && seen.high[RK_STAGE_BOTTOM][0] == high);
        cr_assert(seen.low[RK_STAGE_BOTTOM][1] == 0.0f && seen.high[RK_STAGE_BOTTOM][1] > 0.0f);
        cr_assert_eq(rk_engine_observe(engine, NULL, NULL), RK_OK);
        cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
        cr_assert_eq(seen.rows[RK_STAGE_TOP][0], COUNT, "it went on after it was told to stop");
        rk_engine_destroy(engine);
        small_model_close(&model);
    }
}
