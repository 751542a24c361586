/* A batch goes through its model's engine; its jobs are settled with what came of it. One thread's own. */
#include "server/scorer.h"

#include <stdlib.h>

#include "server/clock.h"
#include "server/job_cost.h"
#include "server/log.h"

#define ALARM_INTERVAL_US 60000000u

struct rk_scorer {
    struct rk_scorer_counters counters;
    struct rk_batch batch;
    struct rk_log_limit alarmed;
    uint32_t num_engines;
    struct rk_engine *engines[]; /* by model */
};

enum rk_status rk_scorer_create(const struct rk_registry *registry, uint32_t max_batch, struct rk_scorer **result,
                                struct rk_error *error)
{
    *result = NULL;
    struct rk_scorer *scorer = calloc(1, sizeof *scorer + registry->num_models * sizeof scorer->engines[0]);
    if (scorer == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make a scorer: out of memory");
    enum rk_status status = rk_batch_init(&scorer->batch, max_batch, error);
    for (uint32_t i = 0; status == RK_OK && i < registry->num_models; i++) {
        status = rk_engine_create(registry->models[i].model, max_batch, &scorer->engines[i], error);
        if (status == RK_OK)
            scorer->num_engines++;
        else
            rk_error_prefix(error, "failed to make an engine for model %s", registry->models[i].name);
    }
    if (status != RK_OK) {
        rk_scorer_destroy(scorer);
        return status;
    }
    *result = scorer;
    return RK_OK;
}

void rk_scorer_destroy(struct rk_scorer *scorer)
{
    if (scorer == NULL)
        return;
    for (uint32_t i = 0; i < scorer->num_engines; i++)
        rk_engine_destroy(scorer->engines[i]);
    rk_batch_deinit(&scorer->batch);
    free(scorer);
}

struct rk_batch *rk_scorer_batch(struct rk_scorer *scorer)
{
    return &scorer->batch;
}

void rk_scorer_run(struct rk_scorer *scorer, uint32_t model)
{
    struct rk_batch *batch = &scorer->batch;
    rk_batch_settle_dropped(batch);
    if (batch->num_slices == 0)
        return;
    struct rk_run_cost cost;
    const bool asked = rk_batch_wants_cost(batch);
    const uint64_t begun_ns = asked ? rk_clock_ns() : 0;
    enum rk_status status =
        rk_engine_run(scorer->engines[model], batch->slices, batch->num_slices, asked ? &cost : NULL);
    if (asked)
        rk_batch_add_cost(batch, begun_ns, &cost);
    if (status == RK_CORRUPT && rk_log_allowed(&scorer->alarmed, ALARM_INTERVAL_US))
        rk_log(RK_LOG_ERROR,
               "ALARM model=%s: its files were damaged while they were served, it answers DATA_LOSS; "
               "publish it anew and restart",
               batch->jobs[0]->model->name);
    rk_counter_add(&scorer->counters.batches, 1);
    rk_counter_add(&scorer->counters.slices, batch->num_slices);
    rk_counter_add(&scorer->counters.candidates, batch->num_candidates);
    rk_batch_settle(batch, status);
}

struct rk_engine *rk_scorer_engine(struct rk_scorer *scorer, uint32_t model)
{
    return scorer->engines[model];
}

const struct rk_scorer_counters *rk_scorer_counters_of(const struct rk_scorer *scorer)
{
    return &scorer->counters;
}
