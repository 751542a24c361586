/* What schedule.c and schedule_judge.c share: the state, and predictions. Only they include it. */
#ifndef RANKD_SERVER_SCHEDULE_INTERNAL_H
#define RANKD_SERVER_SCHEDULE_INTERNAL_H

#include "server/deadline_heap.h"
#include "server/overload.h"
#include "server/schedule.h"
#include "server/shares.h"

struct rk_lane {
    struct rk_deadline_heap heap;
    uint64_t num_candidates; /* not taken yet */
};

struct rk_class {
    double used; /* predicted time of its batches over its weight; not less than the schedule's when it became busy */
    uint32_t weight, num_jobs;
    struct rk_lane *lanes; /* [num_models] */
    uint64_t work_ns;      /* that waits in them */
    struct rk_job *oldest, *newest;
    struct rk_overload overload;
    struct rk_shares *shares;
};

/* How long a model's batches take over what its curve says. */
struct rk_correction {
    double factor;
    uint32_t num_refused; /* for it, since the last batch */
};

struct rk_schedule {
    struct rk_schedule_config config;
    uint32_t num_classes, num_jobs;
    struct rk_class classes[RK_MAX_PRIORITIES];
    double used; /* of the class that was served last, before that */
    uint64_t num_late, next_order;
    uint64_t num_refused[RK_NUM_REFUSAL_REASONS];
    uint64_t work_ns, running_ns; /* that waits; of batches that were filled and not learned from yet */
    uint32_t num_running;         /* such batches */
    uint64_t bytes;               /* of what waits */
    uint64_t random;
    struct rk_correction corrections[]; /* [num_models] */
};

static inline const struct rk_cost_curve *rk_schedule_curve(const struct rk_schedule *schedule, uint32_t model)
{
    return &schedule->config.models[model].cost;
}

static inline struct rk_lane *rk_schedule_lane(struct rk_schedule *schedule, const struct rk_job *job)
{
    return &schedule->classes[job->priority].lanes[job->model->index];
}

/* Of a job's ids, those that so many of its candidates read, about. */
static inline double rk_schedule_ids(const struct rk_job *job, uint32_t count)
{
    return (double)job->request.num_ids * count / job->request.num_candidates;
}

/* UINT64_MAX: no limit. */
static inline uint64_t rk_schedule_left_ns(uint64_t deadline_us, uint64_t now_us)
{
    const uint64_t us = deadline_us > now_us ? deadline_us - now_us : 0;
    return us < UINT64_MAX / 1000u ? us * 1000u : UINT64_MAX;
}

/* What a batch takes. */
uint64_t rk_schedule_predict_ns(const struct rk_schedule *schedule, uint32_t model, uint32_t num_candidates,
                                uint32_t num_slices, double ids);

/* The least that what is left of a job can take. */
uint64_t rk_schedule_needed_ns(const struct rk_schedule *schedule, const struct rk_job *job);

/* How long work of this class waits before this much of it begins: at the rate that the class's weight gives it, or if
 * nothing else came, whichever is sooner. */
uint64_t rk_schedule_wait_us(const struct rk_schedule *schedule, const struct rk_class *class, uint64_t ahead_ns);

/* Can work that needs so long not be done by then? Counts refusals in a row, and learns from them. */
bool rk_schedule_too_late(struct rk_schedule *schedule, uint32_t model, uint64_t needed_ns, uint64_t deadline_us,
                          uint64_t now_us);

struct rk_judgement {
    uint64_t work_ns; /* of all workers together, where batches are as large as pays */
    uint64_t wait_us, lead_us, due_us;
    enum rk_refusal_reason reason;
};

/* Counts the request as offered where `offered` says so, or where it is refused. */
void rk_schedule_judge(struct rk_schedule *schedule, const struct rk_ask *ask, uint64_t now_us, bool offered,
                       struct rk_judgement *judgement);

/* Counts a refusal and says when to come again. */
void rk_schedule_refuse(struct rk_schedule *schedule, const struct rk_class *class, enum rk_refusal_reason reason,
                        uint64_t wait_us, struct rk_job_refusal *refusal);

#endif
