/* A batch: slices of queued jobs of one model that go through the engine together. Owned by one worker. */
#ifndef RANKD_SERVER_BATCH_H
#define RANKD_SERVER_BATCH_H

#include <stdint.h>

#include "model/engine.h"
#include "server/job.h"

/* Jobs of one model, oldest first. */
struct rk_lane {
    struct rk_job *oldest, *newest;
    uint32_t num_jobs;
};

struct rk_batch {
    uint32_t max_candidates;
    uint32_t num_slices, num_candidates;
    struct rk_slice *slices; /* [max_candidates]: a slice has at least one */
    struct rk_job **jobs;    /* whose slice it is */
    struct rk_job *dropped;  /* cancelled or expired: never computed */
};

enum rk_status rk_batch_init(struct rk_batch *batch, uint32_t max_candidates, struct rk_error *error);
void rk_batch_deinit(struct rk_batch *batch);

/* Readies a filled job for batches of at most max_candidates and puts it at the lane's end. */
void rk_lane_append(struct rk_lane *lane, struct rk_job *job, uint32_t max_candidates);

/* How many candidates each slice of a request takes: a request over the limit is cut into equal parts, so that the
 * workers that share it finish together. */
uint32_t rk_batch_slice_candidates(uint32_t num_candidates, uint32_t max_candidates);

/* Moves work from the lane into the empty batch until it is full: whole slices only, because every slice computes its
 * request's context anew. Jobs that are cancelled or past their deadline are moved to `dropped`. Under the queue's
 * lock. */
void rk_batch_fill(struct rk_batch *batch, struct rk_lane *lane, uint64_t now_us);

/* Settles what rk_batch_fill took: the dropped jobs, and every slice with the engine's status. Without the lock. */
void rk_batch_settle_dropped(struct rk_batch *batch);
void rk_batch_settle(struct rk_batch *batch, enum rk_status status);

#endif
