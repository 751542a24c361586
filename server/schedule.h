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
 * took.
 *
 * What comes is judged at once (rk_schedule_add), and refused where
 *
 *   its deadline   leaves less time than the work takes, on all workers, after what is due before it
 *   its queue      is full: of requests, of work, of bytes
 *   its class      is overloaded (server/overload.h) and it would have to wait for longer than the bound
 *   its client     then asks for more than its share (server/shares.h), and somebody has to wait at all
 *
 * so that what was taken is done, and what is refused is told at once. Clients that are ahead of their share are
 * ordered later by their lead while there is no overload. Should predictions be so wrong that what waits in
 * an overload waits for longer than the bound all the same, the newest goes first and the oldest are sent away. */
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
    uint64_t max_wait_us;            /* the most work that may wait in a class, as its wait; 0: no limit */
    uint64_t max_bytes;              /* of all jobs that wait; 0: no limit */
    uint64_t target_us, interval_us; /* of rk_overload; target 0: there never is one */
    uint32_t max_pushback_ms;        /* the longest retry hint; 0: none is given */
    uint64_t seed;                   /* of what hints are spread with */
};

/* A request that may become a job, as far as it is known yet. */
struct rk_ask {
    const struct rk_served_model *model;
    uint32_t priority, num_candidates;
    uint64_t num_ids; /* 0: not known yet */
    uint64_t deadline_us;
    uint64_t client, connection;
    size_t bytes;
};

enum rk_status rk_schedule_create(const struct rk_schedule_config *config, struct rk_schedule **schedule,
                                  struct rk_error *error);
void rk_schedule_destroy(struct rk_schedule *schedule); /* NULL is allowed */

/* Would it be refused now? So a request can be sent away before it is decoded. True: it is, and counted. */
bool rk_schedule_refuses(struct rk_schedule *schedule, const struct rk_ask *ask, uint64_t now_us,
                         struct rk_job_refusal *refusal);

/* Takes a filled job. RK_EXHAUSTED, RK_DEADLINE: it is refused, job->refusal says why. On failure the job is still the
 * caller's. */
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
uint64_t rk_schedule_num_refused(const struct rk_schedule *schedule, enum rk_refusal_reason reason); /* likewise */
bool rk_schedule_overloaded(const struct rk_schedule *schedule, uint32_t priority);

#endif
