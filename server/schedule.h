/* Who is computed next, and with whom: the policy of the queue, without its threads. Every call needs the queue's lock,
 * and says what time it is.
 *
 * Jobs wait in lanes, one for each priority class of each model. When a worker comes for work,
 *
 *   the class   is the one that has had the least time for its weight (start-time fair queuing: Goyal, Vin, Cheng,
 *               1996), so that under load each has its share and none is starved; time not used is not saved up
 *   the model   is that of the class's earliest deadline
 *   the batch   takes this lane's jobs, earliest deadline first, until it is as large as pays (rk_cost_curve.full), or
 *               would take so long that a deadline in it or a more urgent one that stays behind is missed. Where other
 *               workers wait, the lane's work is spread over them: a batch is a share of it
 *
 * A large request leaves its lane in slices, of nearly equal size, each whole in one batch, because each computes the
 * request's context anew. What a batch takes is predicted by its model's curve, corrected by how long the last ones
 * took. A job that cannot be done by its deadline even if it went first and were spread over all workers is refused. */
#ifndef RANKD_SERVER_SCHEDULE_H
#define RANKD_SERVER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/batch.h"
#include "server/job.h"
#include "server/priorities.h"

struct rk_schedule;

struct rk_schedule_config {
    const struct rk_served_model *models; /* [num_models], measured; must outlive the schedule */
    uint32_t num_models;
    const struct rk_priorities *priorities; /* copied */
    uint32_t max_jobs;                      /* in a lane */
    uint32_t max_batch;                     /* candidates; the curves end there */
    uint32_t num_workers;
};

enum rk_status rk_schedule_create(const struct rk_schedule_config *config, struct rk_schedule **schedule,
                                  struct rk_error *error);
void rk_schedule_destroy(struct rk_schedule *schedule); /* NULL is allowed */

/* Takes a filled job. RK_EXHAUSTED: its lane is full; RK_DEADLINE: it is too late for it already, or will be before it
 * could be done. On failure the job is still the caller's. */
enum rk_status rk_schedule_add(struct rk_schedule *schedule, struct rk_job *job, uint64_t now_us);

/* Takes a job out that nobody waits for any more. False: it does not wait (or no longer); else the caller settles what
 * of it was not taken. */
bool rk_schedule_remove(struct rk_schedule *schedule, struct rk_job *job, uint64_t now_us);

/* Fills the empty batch for a worker, beside whom num_idle others have nothing to do. False: nothing waits. The batch
 * may hold dropped jobs only. */
bool rk_schedule_fill(struct rk_schedule *schedule, struct rk_batch *batch, uint64_t now_us, uint32_t num_idle);

/* Tells what a filled batch took (batch->took_ns), once, so that the next predictions are better. */
void rk_schedule_learn(struct rk_schedule *schedule, const struct rk_batch *batch);

uint32_t rk_schedule_num_jobs(const struct rk_schedule *schedule);
uint64_t rk_schedule_num_late(const struct rk_schedule *schedule); /* refused or dropped for their deadline, ever */

#endif
