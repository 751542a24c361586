/* A lane per model, as the queue has them, but filled and emptied by one thread between two sleeps.
 *
 * What a request costs is estimated from two measurements per model, a made-up request of one candidate and one of
 * many, as first + more * (candidates - 1), plus what each row costs that is not in cache: made-up rows soon are. */
#include "server/express.h"

#include <stdlib.h>
#include <time.h>

#include "model/traffic.h"
#include "server/clock.h"

#define MAX_CANDIDATES 64u /* in one batch: keeps the engines small */
#define COLD_ROW_NS    30u /* a row from memory, with others on their way beside it */
#define MEASUREMENTS   8   /* of each size; the least counts */

struct cost {
    uint64_t first_ns, more_ns;
};

struct rk_express {
    struct rk_scorer *scorer;
    uint64_t budget_ns, taken_ns; /* for a turn; of what was taken in this one */
    uint32_t num_models, num_jobs;
    struct cost *costs;     /* [num_models] */
    struct rk_lane lanes[]; /* [num_models] */
};

/* ---- what a model costs ---- */

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum rk_status measure_size(struct rk_scorer *scorer, const struct rk_served_model *model,
                                   uint32_t num_candidates, struct rk_arena *arena, uint64_t *least_ns,
                                   struct rk_error *error)
{
    const struct rk_model_spec *spec = model->spec;
    const struct rk_request_limits limits = RK_REQUEST_LIMITS_DEFAULT;
    const struct rk_traffic_options options = {.num_candidates = num_candidates};
    struct rk_random random = {.state = num_candidates};
    struct rk_named_request named;
    struct rk_request request;
    float *logits = rk_arena_array(arena, (size_t)num_candidates * spec->num_heads, sizeof *logits);
    enum rk_status status =
        logits != NULL ? RK_OK : rk_error_set(error, RK_NO_MEMORY, "out of memory for a measurement");
    if (status == RK_OK)
        status = rk_traffic_request(spec, &options, &random, 0, arena, &named, error);
    if (status == RK_OK)
        status = rk_request_bind(spec, &limits, &named, arena, &request, error);
    const struct rk_slice slice = {.request = &request, .count = num_candidates, .logits = logits};
    *least_ns = UINT64_MAX;
    for (int i = 0; status == RK_OK && i < MEASUREMENTS; i++) {
        uint64_t begin_ns = clock_ns();
        status = rk_scorer_try(scorer, model->index, &slice, 1, NULL, error);
        uint64_t taken_ns = clock_ns() - begin_ns;
        if (taken_ns < *least_ns)
            *least_ns = taken_ns;
    }
    return status;
}

static enum rk_status measure(struct rk_scorer *scorer, const struct rk_served_model *model, struct cost *cost,
                              struct rk_error *error)
{
    struct rk_arena arena;
    uint64_t many_ns = 0;
    rk_arena_init(&arena, 64 << 10);
    enum rk_status status = measure_size(scorer, model, 1, &arena, &cost->first_ns, error);
    if (status == RK_OK)
        status = measure_size(scorer, model, MAX_CANDIDATES, &arena, &many_ns, error);
    cost->more_ns = many_ns > cost->first_ns ? (many_ns - cost->first_ns) / (MAX_CANDIDATES - 1) + 1 : 1;
    rk_arena_deinit(&arena);
    return status;
}

static uint64_t estimate_ns(const struct cost *cost, const struct rk_request *request)
{
    return cost->first_ns + cost->more_ns * (request->num_candidates - 1) + COLD_ROW_NS * request->num_ids;
}

/* ---- life ---- */

enum rk_status rk_express_create(const struct rk_registry *registry, uint64_t budget_us, struct rk_express **result,
                                 struct rk_error *error)
{
    *result = NULL;
    struct rk_express *express = calloc(1, sizeof *express + registry->num_models * sizeof express->lanes[0]);
    struct cost *costs = calloc(registry->num_models, sizeof *costs);
    if (express == NULL || costs == NULL) {
        free(costs);
        free(express);
        return rk_error_set(error, RK_NO_MEMORY, "failed to make an express lane: out of memory");
    }
    express->costs = costs;
    express->num_models = registry->num_models;
    express->budget_ns = budget_us * 1000u;
    enum rk_status status = RK_OK;
    if (budget_us > 0)
        status = rk_scorer_create(registry, MAX_CANDIDATES, &express->scorer, error);
    for (uint32_t i = 0; express->scorer != NULL && status == RK_OK && i < express->num_models; i++)
        status = measure(express->scorer, &registry->models[i], &costs[i], error);
    if (status != RK_OK) {
        rk_error_prefix(error, "failed to make an express lane");
        rk_express_destroy(express);
        return status;
    }
    *result = express;
    return RK_OK;
}

void rk_express_destroy(struct rk_express *express)
{
    if (express == NULL)
        return;
    rk_scorer_destroy(express->scorer);
    free(express->costs);
    free(express);
}

/* ---- a turn ---- */

bool rk_express_take(struct rk_express *express, struct rk_job *job)
{
    if (express->budget_ns == 0 || job->request.num_candidates > MAX_CANDIDATES)
        return false;
    uint64_t cost_ns = estimate_ns(&express->costs[job->model->index], &job->request);
    if (cost_ns > express->budget_ns - express->taken_ns)
        return false;
    express->taken_ns += cost_ns;
    express->num_jobs++;
    rk_lane_append(&express->lanes[job->model->index], job, MAX_CANDIDATES);
    return true;
}

void rk_express_run(struct rk_express *express)
{
    if (express->num_jobs == 0)
        return;
    const uint64_t now_us = rk_clock_us();
    for (uint32_t i = 0; i < express->num_models; i++)
        while (express->lanes[i].oldest != NULL) {
            rk_batch_fill(rk_scorer_batch(express->scorer), &express->lanes[i], now_us);
            rk_scorer_run(express->scorer, i);
        }
    express->num_jobs = 0;
    express->taken_ns = 0;
}

const struct rk_scorer_counters *rk_express_counters_of(const struct rk_express *express)
{
    static const struct rk_scorer_counters none;
    return express->scorer != NULL ? rk_scorer_counters_of(express->scorer) : &none;
}
