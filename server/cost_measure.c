/* Runs made-up requests of 1, 2, 4 ... candidates through a runner of each model and notes the least time of a few
 * runs: whatever else the machine does can only add to it. The same request is run again and again, so its rows are in
 * cache; whoever predicts adds RK_COST_COLD_ROW_NS for each row. Main's thread. */
#include "server/cost_measure.h"

#include "model/traffic.h"
#include "server/clock.h"

#define BUDGET_NS     150000000u /* of one model; the last size may take some of it again */
#define MEASUREMENTS  8          /* of each size at most */
#define LEAST_TIMES   2          /* the first run finds its rows cold */
#define MANY_REQUESTS 64         /* in the batch that tells what a further request costs */

struct bench {
    const struct rk_backend *backend;
    const struct rk_served_model *model;
    struct rk_runner *runner;
    struct rk_arena arena;
    uint64_t end_ns;
};

/* The least time of one batch of `num_slices` times the same request. */
static enum rk_status measure(struct bench *bench, uint32_t num_candidates, uint32_t num_slices, uint64_t *least_ns,
                              struct rk_error *error)
{
    const struct rk_model_spec *spec = bench->model->spec;
    const struct rk_request_limits limits = {.max_candidates = num_candidates, .max_ids = UINT64_MAX};
    const struct rk_traffic_options options = {.num_candidates = num_candidates};
    struct rk_random random = {.state = num_candidates};
    struct rk_named_request named;
    struct rk_request request;
    struct rk_arena *arena = &bench->arena;
    rk_arena_reset(arena, 0);
    float *logits = rk_arena_array(arena, (size_t)num_candidates * spec->num_heads, sizeof *logits);
    struct rk_slice *slices = rk_arena_array(arena, num_slices, sizeof *slices);
    if (logits == NULL || slices == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for a batch of %u candidates", num_candidates);
    enum rk_status status = rk_traffic_request(spec, &options, &random, 0, arena, &named, error);
    if (status == RK_OK)
        status = rk_request_bind(spec, &limits, &named, arena, &request, error);
    for (uint32_t i = 0; i < num_slices; i++)
        slices[i] = (struct rk_slice){.request = &request, .count = num_candidates, .logits = logits};
    *least_ns = UINT64_MAX;
    for (int i = 0; status == RK_OK && i < MEASUREMENTS; i++) {
        const uint64_t begun_ns = rk_clock_ns();
        if (i >= LEAST_TIMES && begun_ns > bench->end_ns)
            break;
        status = bench->backend->run(bench->runner, slices, num_slices, NULL, error);
        const uint64_t taken_ns = rk_clock_ns() - begun_ns;
        if (taken_ns < *least_ns)
            *least_ns = taken_ns;
    }
    return status;
}

/* A point that is not measured lies on the line through the two before it. */
static uint64_t extrapolate(const struct rk_cost_curve *curve, uint32_t point)
{
    const uint32_t *candidates = curve->candidates;
    const uint64_t before_ns = point > 1 ? curve->ns[point - 2] : 0, ns = curve->ns[point - 1];
    const uint32_t before = point > 1 ? candidates[point - 2] : 0;
    const double slope = ns > before_ns ? (double)(ns - before_ns) / (candidates[point - 1] - before) : 0;
    return ns + (uint64_t)(slope * (candidates[point] - candidates[point - 1]));
}

static enum rk_status measure_curve(struct bench *bench, uint32_t max_batch, struct rk_cost_curve *curve,
                                    struct rk_error *error)
{
    enum rk_status status = RK_OK;
    *curve = (struct rk_cost_curve){0};
    for (uint32_t size = 1; status == RK_OK; size = size < max_batch - size ? 2 * size : max_batch) {
        const uint32_t point = curve->num_points;
        curve->candidates[point] = size;
        curve->ns[point] = point > 0 ? extrapolate(curve, point) : 0;
        const uint64_t now_ns = rk_clock_ns(), left_ns = bench->end_ns > now_ns ? bench->end_ns - now_ns : 0;
        if (curve->num_measured == point && LEAST_TIMES * curve->ns[point] <= left_ns) {
            status = measure(bench, size, 1, &curve->ns[point], error);
            curve->num_measured++;
        }
        curve->num_points++;
        if (size == max_batch)
            break;
    }
    if (status == RK_OK)
        rk_cost_curve_finish(curve);
    return status;
}

static enum rk_status measure_model(struct bench *bench, uint32_t max_batch, struct rk_cost_curve *curve,
                                    struct rk_error *error)
{
    const uint32_t many = max_batch < MANY_REQUESTS ? max_batch : MANY_REQUESTS;
    uint64_t many_ns = 0;
    bench->end_ns = rk_clock_ns() + BUDGET_NS;
    enum rk_status status = bench->backend->create(bench->model->loaded, max_batch, &bench->runner, error);
    if (status != RK_OK)
        return status;
    status = measure(bench, 1, many, &many_ns, error);
    if (status == RK_OK)
        status = measure_curve(bench, max_batch, curve, error);
    if (status == RK_OK && many > 1 && many_ns > rk_cost_curve_ns(curve, many))
        curve->request_ns = (many_ns - rk_cost_curve_ns(curve, many)) / (many - 1);
    bench->backend->destroy(bench->runner);
    return status;
}

enum rk_status rk_cost_measure(struct rk_registry *registry, uint32_t max_batch, struct rk_error *error)
{
    enum rk_status status = RK_OK;
    for (uint32_t i = 0; status == RK_OK && i < registry->num_models; i++) {
        struct bench bench = {.backend = registry->compute->backend, .model = &registry->models[i]};
        rk_arena_init(&bench.arena, 64 << 10);
        status = measure_model(&bench, max_batch, &registry->models[i].cost, error);
        if (status != RK_OK)
            rk_error_prefix(error, "failed to measure what model %s costs", registry->models[i].name);
        rk_arena_deinit(&bench.arena);
    }
    return status;
}
