/* Making batches. A slice of a job is named by its first candidate; the lane's oldest job may be half taken, so it
 * stays in front until its last slice has been given out. `dropped` is a list through job->next, which is free once a
 * job has left its lane; the reason stands in each job (cancelled, else its deadline). */
#include "server/batch.h"

#include <stdlib.h>

enum rk_status rk_batch_init(struct rk_batch *batch, uint32_t max_candidates, struct rk_error *error)
{
    *batch = (struct rk_batch){.max_candidates = max_candidates};
    batch->slices = calloc(max_candidates, sizeof *batch->slices);
    batch->jobs = calloc(max_candidates, sizeof *batch->jobs);
    if (batch->slices == NULL || batch->jobs == NULL) {
        rk_batch_deinit(batch);
        return rk_error_set(error, RK_NO_MEMORY, "failed to make room for batches of %u candidates", max_candidates);
    }
    return RK_OK;
}

void rk_batch_deinit(struct rk_batch *batch)
{
    free(batch->slices);
    free(batch->jobs);
    *batch = (struct rk_batch){0};
}

uint32_t rk_batch_slice_candidates(uint32_t num_candidates, uint32_t max_candidates)
{
    if (num_candidates <= max_candidates)
        return num_candidates;
    uint32_t parts = (num_candidates - 1) / max_candidates + 1;
    return (num_candidates - 1) / parts + 1;
}

void rk_lane_append(struct rk_lane *lane, struct rk_job *job, uint32_t max_candidates)
{
    atomic_store_explicit(&job->unsettled, job->request.num_candidates, memory_order_relaxed);
    job->slice_candidates = rk_batch_slice_candidates(job->request.num_candidates, max_candidates);
    job->taken = 0;
    job->next = NULL;
    if (lane->newest != NULL)
        lane->newest->next = job;
    else
        lane->oldest = job;
    lane->newest = job;
    lane->num_jobs++;
}

static struct rk_job *pop(struct rk_lane *lane)
{
    struct rk_job *job = lane->oldest;
    lane->oldest = job->next;
    if (lane->oldest == NULL)
        lane->newest = NULL;
    lane->num_jobs--;
    job->next = NULL;
    return job;
}

void rk_batch_fill(struct rk_batch *batch, struct rk_lane *lane, uint64_t now_us)
{
    batch->num_slices = batch->num_candidates = 0;
    batch->dropped = NULL;
    while (lane->oldest != NULL) {
        struct rk_job *job = lane->oldest;
        if (atomic_load_explicit(&job->cancelled, memory_order_relaxed) || job->deadline_us <= now_us) {
            pop(lane);
            job->next = batch->dropped;
            batch->dropped = job;
            continue;
        }
        uint32_t left = job->request.num_candidates - job->taken;
        uint32_t count = left < job->slice_candidates ? left : job->slice_candidates;
        if (count > batch->max_candidates - batch->num_candidates)
            return;
        batch->slices[batch->num_slices] = (struct rk_slice){
            .request = &job->request,
            .first = job->taken,
            .count = count,
            .logits = job->logits + (size_t)job->taken * job->model->spec->num_heads,
        };
        batch->jobs[batch->num_slices++] = job;
        batch->num_candidates += count;
        job->taken += count;
        if (job->taken == job->request.num_candidates)
            pop(lane);
    }
}

void rk_batch_settle_dropped(struct rk_batch *batch)
{
    while (batch->dropped != NULL) {
        struct rk_job *job = batch->dropped;
        batch->dropped = job->next;
        bool cancelled = atomic_load_explicit(&job->cancelled, memory_order_relaxed);
        rk_job_settle(job, job->request.num_candidates - job->taken, cancelled ? RK_CANCELLED : RK_DEADLINE);
    }
}

void rk_batch_settle(struct rk_batch *batch, enum rk_status status)
{
    for (uint32_t i = 0; i < batch->num_slices; i++)
        rk_job_settle(batch->jobs[i], batch->slices[i].count, status);
    batch->num_slices = batch->num_candidates = 0;
}
