/* Filling and settling batches. A slice is named by its first candidate. `dropped` is a list through job->next; the
 * reason stands in each job (cancelled, else its deadline). */
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

void rk_batch_add(struct rk_batch *batch, struct rk_job *job, uint32_t count)
{
    batch->slices[batch->num_slices] = (struct rk_slice){
        .request = &job->request,
        .first = job->taken,
        .count = count,
        .logits = job->logits + (size_t)job->taken * job->model->spec->num_heads,
    };
    batch->jobs[batch->num_slices++] = job;
    batch->num_candidates += count;
    job->taken += count;
}

void rk_batch_drop(struct rk_batch *batch, struct rk_job *job)
{
    job->next = batch->dropped;
    batch->dropped = job;
}

void rk_batch_settle_dropped(struct rk_batch *batch)
{
    while (batch->dropped != NULL) {
        struct rk_job *job = batch->dropped;
        batch->dropped = job->next;
        const bool cancelled = atomic_load_explicit(&job->cancelled, memory_order_relaxed);
        const enum rk_status refused = rk_refusal_status(job->refusal.reason);
        rk_job_settle(job, job->request.num_candidates - job->taken,
                      cancelled          ? RK_CANCELLED
                      : refused != RK_OK ? refused
                                         : RK_DEADLINE);
    }
}

void rk_batch_settle(struct rk_batch *batch, enum rk_status status)
{
    for (uint32_t i = 0; i < batch->num_slices; i++)
        rk_job_settle(batch->jobs[i], batch->slices[i].count, status);
    batch->num_slices = batch->num_candidates = 0;
}
