/* A list of jobs per model, filled and emptied by one thread between two sleeps.
 *
 * What a request costs is read off its model's curve, plus what each row costs that is not in cache. */
#include "server/express.h"

#include <stdlib.h>

#include "server/clock.h"

#define MAX_CANDIDATES 64u /* in one batch: keeps the engines small */

struct rk_express {
    struct rk_scorer *scorer;
    uint64_t budget_ns, taken_ns; /* for a turn; of what was taken in this one */
    uint32_t num_models, num_jobs;
    struct jobs {
        struct rk_job *oldest, **end; /* end: where the next one goes */
    } jobs[];                         /* [num_models] */
};

enum rk_status rk_express_create(const struct rk_registry *registry, uint64_t budget_us, struct rk_express **result,
                                 struct rk_error *error)
{
    *result = NULL;
    struct rk_express *express = calloc(1, sizeof *express + registry->num_models * sizeof express->jobs[0]);
    if (express == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make an express lane: out of memory");
    express->num_models = registry->num_models;
    express->budget_ns = budget_us * 1000u;
    for (uint32_t i = 0; i < express->num_models; i++)
        express->jobs[i].end = &express->jobs[i].oldest;
    enum rk_status status = RK_OK;
    if (budget_us > 0)
        status = rk_scorer_create(registry, MAX_CANDIDATES, &express->scorer, error);
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
    free(express);
}

bool rk_express_may_take(const struct rk_express *express, const struct rk_served_model *model, uint32_t num_candidates)
{
    return express->budget_ns > 0 && num_candidates <= MAX_CANDIDATES &&
           rk_cost_curve_ns(&model->cost, num_candidates) <= express->budget_ns;
}

bool rk_express_take(struct rk_express *express, struct rk_job *job)
{
    if (!rk_express_may_take(express, job->model, job->request.num_candidates))
        return false;
    const uint64_t cost_ns =
        rk_cost_curve_ns(&job->model->cost, job->request.num_candidates) + RK_COST_COLD_ROW_NS * job->request.num_ids;
    if (cost_ns > express->budget_ns - express->taken_ns)
        return false;
    struct jobs *jobs = &express->jobs[job->model->index];
    rk_job_begin(job);
    job->next = NULL;
    *jobs->end = job;
    jobs->end = &job->next;
    express->taken_ns += cost_ns;
    express->num_jobs++;
    return true;
}

static void run_model(struct rk_express *express, uint32_t model, uint64_t now_us)
{
    struct rk_batch *batch = rk_scorer_batch(express->scorer);
    struct rk_job *job = express->jobs[model].oldest, *next;
    express->jobs[model] = (struct jobs){.end = &express->jobs[model].oldest};
    for (; job != NULL; job = next) {
        next = job->next;
        if (rk_job_unwanted(job, now_us)) {
            rk_batch_drop(batch, job);
            continue;
        }
        if (job->request.num_candidates > batch->max_candidates - batch->num_candidates)
            rk_scorer_run(express->scorer, model);
        rk_batch_add(batch, job, job->request.num_candidates);
    }
    rk_scorer_run(express->scorer, model);
}

void rk_express_run(struct rk_express *express)
{
    if (express->num_jobs == 0)
        return;
    const uint64_t now_us = rk_clock_us();
    for (uint32_t i = 0; i < express->num_models; i++)
        if (express->jobs[i].oldest != NULL)
            run_model(express, i, now_us);
    express->num_jobs = 0;
    express->taken_ns = 0;
}

const struct rk_scorer_counters *rk_express_counters_of(const struct rk_express *express)
{
    static const struct rk_scorer_counters none;
    return express->scorer != NULL ? rk_scorer_counters_of(express->scorer) : &none;
}
