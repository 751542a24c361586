/* A batch goes through its model's runner; its jobs are settled with what came of it. One thread's own. */
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
    struct rk_compute *compute;
    uint32_t num_runners;
    struct rk_runner *runners[]; /* by model */
};

enum rk_status rk_scorer_create(const struct rk_registry *registry, uint32_t max_batch, struct rk_scorer **result,
                                struct rk_error *error)
{
    *result = NULL;
    struct rk_scorer *scorer = calloc(1, sizeof *scorer + registry->num_models * sizeof scorer->runners[0]);
    if (scorer == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make a scorer: out of memory");
    const struct rk_backend *backend = registry->compute->backend;
    scorer->compute = registry->compute;
    enum rk_status status = rk_batch_init(&scorer->batch, max_batch, error);
    for (uint32_t i = 0; status == RK_OK && i < registry->num_models; i++) {
        status = backend->create(registry->models[i].loaded, max_batch, &scorer->runners[i], error);
        if (status == RK_OK)
            scorer->num_runners++;
        else
            rk_error_prefix(error, "failed to make a runner for model %s", registry->models[i].name);
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
    for (uint32_t i = 0; i < scorer->num_runners; i++)
        scorer->compute->backend->destroy(scorer->runners[i]);
    rk_batch_deinit(&scorer->batch);
    free(scorer);
}

struct rk_batch *rk_scorer_batch(struct rk_scorer *scorer)
{
    return &scorer->batch;
}

enum rk_status rk_scorer_try(struct rk_scorer *scorer, uint32_t model, const struct rk_slice *slices,
                             uint32_t num_slices, struct rk_run_cost *cost, struct rk_error *error)
{
    if (cost != NULL)
        *cost = (struct rk_run_cost){0}; /* whatever the backend does when it fails */
    return scorer->compute->backend->run(scorer->runners[model], slices, num_slices, cost, error);
}

/* A run that fails is no caller's fault: people must hear of it. */
static void sound_alarm(struct rk_scorer *scorer, const struct rk_served_model *model, enum rk_status status,
                        const struct rk_error *error)
{
    if (status == RK_UNAVAILABLE)
        atomic_store(&scorer->compute->lost, true);
    if (!rk_log_allowed(&scorer->alarmed, ALARM_INTERVAL_US))
        return;
    if (status == RK_CORRUPT)
        rk_log(RK_LOG_ERROR,
               "ALARM model=%s: its files were damaged while they were served, it answers DATA_LOSS; "
               "publish it anew and restart",
               model->name);
    else if (status == RK_UNAVAILABLE)
        rk_log(RK_LOG_ERROR, "ALARM backend %s is lost, every request is answered UNAVAILABLE; restart rankd: %s",
               scorer->compute->backend->name, error->text);
    else
        rk_log(RK_LOG_ERROR, "ALARM model=%s: backend %s failed: %s", model->name, scorer->compute->backend->name,
               error->text);
}

void rk_scorer_run(struct rk_scorer *scorer, uint32_t model)
{
    struct rk_batch *batch = &scorer->batch;
    rk_batch_settle_dropped(batch);
    if (batch->num_slices == 0)
        return;
    struct rk_run_cost cost;
    struct rk_error error;
    rk_error_clear(&error);
    const bool asked = rk_batch_wants_cost(batch);
    const uint64_t begun_ns = asked ? rk_clock_ns() : 0;
    enum rk_status status =
        rk_scorer_try(scorer, model, batch->slices, batch->num_slices, asked ? &cost : NULL, &error);
    if (asked)
        rk_batch_add_cost(batch, begun_ns, &cost);
    if (status != RK_OK)
        sound_alarm(scorer, batch->jobs[0]->model, status, &error);
    rk_counter_add(&scorer->counters.batches, 1);
    rk_counter_add(&scorer->counters.slices, batch->num_slices);
    rk_counter_add(&scorer->counters.candidates, batch->num_candidates);
    rk_batch_settle(batch, status);
}

const struct rk_scorer_counters *rk_scorer_counters_of(const struct rk_scorer *scorer)
{
    return &scorer->counters;
}
