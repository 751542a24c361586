/* A batch: slices of jobs of one model that go through the engine together, and jobs that need none. Owned by one
 * thread. */
#ifndef RANKD_SERVER_BATCH_H
#define RANKD_SERVER_BATCH_H

#include <stdint.h>

#include "model/engine.h"
#include "server/job.h"

struct rk_batch {
    uint32_t max_candidates;
    uint32_t num_slices, num_candidates;
    struct rk_slice *slices; /* [max_candidates]: a slice has at least one */
    struct rk_job **jobs;    /* whose slice it is */
    struct rk_job *dropped;  /* cancelled, too late or sent away: never computed */
    uint32_t model;
    uint64_t predicted_ns, took_ns; /* how long the run should take, as the schedule thinks, and how long it took */
};

enum rk_status rk_batch_init(struct rk_batch *batch, uint32_t max_candidates, struct rk_error *error);
void rk_batch_deinit(struct rk_batch *batch);

/* Adds the next `count` candidates of the job, for which there is room; they are then taken. */
void rk_batch_add(struct rk_batch *batch, struct rk_job *job, uint32_t count);

/* Adds a job whose remaining candidates are not to be computed. */
void rk_batch_drop(struct rk_batch *batch, struct rk_job *job);

/* Settles what is in the batch, which is then empty: the dropped jobs, cancelled ones as such and others as refused
 * (job->refusal) or too late; every slice with the engine's status. */
void rk_batch_settle_dropped(struct rk_batch *batch);
void rk_batch_settle(struct rk_batch *batch, enum rk_status status);

#endif
