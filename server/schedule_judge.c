/* Is a request taken? Predictions of what it costs and how long it would wait, against its deadline, the queue's
 * bounds, the overload and its client's share. */
#include "server/schedule_internal.h"

#define LEARNING       16   /* about so many batches are remembered */
#define MAX_CORRECTION 16.0 /* a curve is not wrong by more, either way */
#define MAX_REFUSED    32   /* in a row without a batch */
#define URGENT_BOUNDS  2    /* in an overload, a deadline within so many bounds is urgent */
#define MAX_LOOKS      256  /* at waiting jobs, to know what is due before a new one */

/* ---- predictions ---- */

uint64_t rk_schedule_predict_ns(const struct rk_schedule *schedule, uint32_t model, uint32_t num_candidates,
                                uint32_t num_slices, double ids)
{
    const struct rk_cost_curve *curve = rk_schedule_curve(schedule, model);
    const uint64_t ns = rk_cost_curve_ns(curve, num_candidates) + (num_slices - 1) * curve->request_ns;
    return (uint64_t)(schedule->corrections[model].factor * ((double)ns + ids * RK_COST_COLD_ROW_NS));
}

/* The least that so many candidates of one request, with so many ids, can take. */
static uint64_t least_ns(const struct rk_schedule *schedule, uint32_t model, uint32_t num_candidates, double ids)
{
    const uint32_t parts =
        rk_cost_curve_parts(rk_schedule_curve(schedule, model), num_candidates, schedule->config.num_workers);
    return rk_schedule_predict_ns(schedule, model, (num_candidates - 1) / parts + 1, 1, ids / parts);
}

uint64_t rk_schedule_needed_ns(const struct rk_schedule *schedule, const struct rk_job *job)
{
    const uint32_t left = job->request.num_candidates - job->taken;
    return least_ns(schedule, job->model->index, left, rk_schedule_ids(job, left));
}

/* What a request costs where batches are as large as pays. */
static uint64_t work_ns(const struct rk_schedule *schedule, const struct rk_ask *ask)
{
    const struct rk_cost_curve *curve = rk_schedule_curve(schedule, ask->model->index);
    const double each_ns = (double)rk_cost_curve_ns(curve, curve->full) / curve->full;
    const double ns =
        each_ns * ask->num_candidates + (double)curve->request_ns + (double)ask->num_ids * RK_COST_COLD_ROW_NS;
    return 1 + (uint64_t)(schedule->corrections[ask->model->index].factor * ns);
}

uint64_t rk_schedule_wait_us(const struct rk_schedule *schedule, const struct rk_class *class, uint64_t ahead_ns)
{
    uint64_t weights = class->num_jobs > 0 ? 0 : class->weight;
    for (uint32_t c = 0; c < schedule->num_classes; c++)
        weights += schedule->classes[c].num_jobs > 0 ? schedule->classes[c].weight : 0;
    const double shared_ns = (double)ahead_ns * (double)weights / class->weight;
    const double alone_ns = (double)(schedule->work_ns - class->work_ns + ahead_ns);
    return (uint64_t)((shared_ns < alone_ns ? shared_ns : alone_ns) / schedule->config.num_workers / 1000.0);
}

/* How long until a worker is free: half of what they have begun is over. */
static uint64_t running_us(const struct rk_schedule *schedule)
{
    if (schedule->num_running < schedule->config.num_workers)
        return 0;
    return schedule->running_ns / 2 / schedule->config.num_workers / 1000;
}

static void correct(struct rk_correction *correction, double by)
{
    const double factor = correction->factor * by;
    correction->factor = factor > MAX_CORRECTION         ? MAX_CORRECTION
                         : factor < 1.0 / MAX_CORRECTION ? 1.0 / MAX_CORRECTION
                                                         : factor;
}

/* A refusal teaches nothing about the time that the work would have taken. So that a model of which too much was once
 * thought is tried again, many refusals in a row lower what is thought of it. */
bool rk_schedule_too_late(struct rk_schedule *schedule, uint32_t model, uint64_t needed, uint64_t deadline_us,
                          uint64_t now_us)
{
    if (deadline_us <= now_us)
        return true;
    if (needed <= rk_schedule_left_ns(deadline_us, now_us))
        return false;
    struct rk_correction *correction = &schedule->corrections[model];
    if (++correction->num_refused > MAX_REFUSED)
        correct(correction, 1.0 - 1.0 / LEARNING);
    return true;
}

void rk_schedule_learn(struct rk_schedule *schedule, const struct rk_batch *batch)
{
    if (batch->predicted_ns == 0)
        return;
    schedule->running_ns -= batch->predicted_ns;
    schedule->num_running--;
    const double ratio = (double)batch->took_ns / (double)batch->predicted_ns;
    const double bounded = ratio < 2.0 ? ratio : 2.0; /* one run that was interrupted must not count for many */
    correct(&schedule->corrections[batch->model], 1.0 + (bounded - 1.0) / LEARNING);
    schedule->corrections[batch->model].num_refused = 0;
}

/* ---- judging ---- */

/* The wait of a request that is due then. */
static uint64_t wait_until_due_us(const struct rk_schedule *schedule, const struct rk_class *class, uint64_t due_us)
{
    uint32_t looks = MAX_LOOKS;
    uint64_t ahead_ns = 0;
    for (uint32_t m = 0; m < schedule->config.num_models; m++)
        ahead_ns += rk_deadline_heap_work_by(&class->lanes[m].heap, due_us, &looks);
    return rk_schedule_wait_us(schedule, class, looks > 0 ? ahead_ns : class->work_ns);
}

/* What a request is ordered by: all that have a deadline before those that have none, and these as they came. In an
 * overload nobody waits for long, so that all that is not more urgent goes as it came. */
static uint64_t due_us(const struct rk_class *class, uint64_t deadline_us, uint64_t lead_us, uint64_t now_us)
{
    const uint64_t never_us = UINT64_MAX / 2; /* and more time until the end than anybody is ahead */
    const uint64_t soon_us = now_us + URGENT_BOUNDS * rk_overload_bound_us(&class->overload);
    if (class->overload.active)
        return deadline_us < soon_us ? deadline_us : soon_us;
    if (deadline_us == UINT64_MAX)
        return never_us + now_us + lead_us;
    return deadline_us < never_us - lead_us ? deadline_us + lead_us : never_us - 1;
}

/* What would be computed late, or never, is no load. */
static void count_offer(struct rk_schedule *schedule, const struct rk_ask *ask, const struct rk_judgement *judgement)
{
    const struct rk_cost_curve *curve = rk_schedule_curve(schedule, ask->model->index);
    const double full_ns =
        schedule->corrections[ask->model->index].factor * (double)rk_cost_curve_ns(curve, curve->full);
    if (judgement->reason != RK_REFUSED_LATE)
        rk_overload_offer(&schedule->classes[ask->priority].overload, judgement->work_ns, (uint64_t)full_ns);
}

/* Waits are not known to the last moment: with a quarter to spare. */
static uint64_t spared(uint64_t us)
{
    return us + us / 4;
}

static enum rk_refusal_reason reason_to_refuse(struct rk_schedule *schedule, const struct rk_ask *ask, uint64_t now_us,
                                               const struct rk_judgement *judgement, uint64_t running)
{
    const struct rk_schedule_config *config = &schedule->config;
    const uint32_t model = ask->model->index;
    const struct rk_class *class = &schedule->classes[ask->priority];
    const struct rk_deadline_heap *heap = &class->lanes[model].heap;
    const uint64_t needed = least_ns(schedule, model, ask->num_candidates, (double)ask->num_ids);
    const uint64_t bound = rk_overload_bound_us(&class->overload), wait = judgement->wait_us;
    if (rk_schedule_too_late(schedule, model, needed, ask->deadline_us, now_us))
        return RK_REFUSED_LATE;
    if (heap->num_jobs == heap->capacity || (config->max_wait_us > 0 && wait > config->max_wait_us))
        return RK_REFUSED_FULL;
    if (config->max_bytes > 0 && ask->bytes > config->max_bytes - schedule->bytes)
        return RK_REFUSED_BYTES;
    if (class->overload.active && wait > bound)
        return RK_REFUSED_OVERLOAD;
    if (class->overload.active && wait > bound / 2 && judgement->lead_us > wait + bound)
        return RK_REFUSED_SHARE;
    if (wait == 0 || ask->deadline_us == UINT64_MAX)
        return RK_NOT_REFUSED;
    const uint64_t have_us = rk_schedule_left_ns(ask->deadline_us, now_us) / 1000, need_us = needed / 1000;
    if (have_us >= spared(wait) + need_us ||
        have_us >= spared(running + wait_until_due_us(schedule, class, judgement->due_us)) + need_us)
        return RK_NOT_REFUSED;
    return RK_REFUSED_BEHIND;
}

void rk_schedule_judge(struct rk_schedule *schedule, const struct rk_ask *ask, uint64_t now_us, bool offered,
                       struct rk_judgement *judgement)
{
    struct rk_class *class = &schedule->classes[ask->priority];
    const uint64_t queue = rk_schedule_wait_us(schedule, class, class->work_ns), running = running_us(schedule);
    const uint64_t lead = rk_shares_lead_us(class->shares, ask->client, ask->connection, now_us);
    *judgement = (struct rk_judgement){.work_ns = work_ns(schedule, ask),
                                       .wait_us = queue + running,
                                       .lead_us = lead,
                                       .due_us = due_us(class, ask->deadline_us, lead, now_us)};
    rk_overload_observe(&class->overload, queue, now_us);
    judgement->reason = reason_to_refuse(schedule, ask, now_us, judgement, running);
    if (offered || judgement->reason != RK_NOT_REFUSED)
        count_offer(schedule, ask, judgement);
}

/* When it is worth while to come again: after what waits now, and the later the more comes; each caller another time,
 * so that they do not all come together. */
static uint32_t pushback_ms(struct rk_schedule *schedule, const struct rk_class *class, uint64_t wait)
{
    if (schedule->config.max_pushback_ms == 0)
        return 0;
    schedule->random ^= schedule->random << 13; /* xorshift64 (Marsaglia, 2003) */
    schedule->random ^= schedule->random >> 7;
    schedule->random ^= schedule->random << 17;
    const double spread = 0.5 + (double)(schedule->random >> 11) / (double)(UINT64_C(1) << 53);
    double us = (double)wait;
    if (class->overload.active)
        us += (double)class->overload.interval_us * class->overload.excess;
    const double ms = us * spread / 1000.0;
    return ms >= schedule->config.max_pushback_ms ? schedule->config.max_pushback_ms : (uint32_t)ms + 1;
}

void rk_schedule_refuse(struct rk_schedule *schedule, const struct rk_class *class, enum rk_refusal_reason reason,
                        uint64_t wait, struct rk_job_refusal *refusal)
{
    schedule->num_refused[reason]++;
    schedule->num_late += reason == RK_REFUSED_LATE || reason == RK_REFUSED_BEHIND;
    *refusal = (struct rk_job_refusal){.reason = reason};
    if (reason != RK_REFUSED_LATE) /* an idle server could not do it either */
        refusal->pushback_ms = pushback_ms(schedule, class, wait);
}

bool rk_schedule_refuses(struct rk_schedule *schedule, const struct rk_ask *ask, uint64_t now_us,
                         struct rk_job_refusal *refusal)
{
    struct rk_judgement judgement;
    rk_schedule_judge(schedule, ask, now_us, false, &judgement);
    if (judgement.reason == RK_NOT_REFUSED)
        return false;
    rk_schedule_refuse(schedule, &schedule->classes[ask->priority], judgement.reason, judgement.wait_us, refusal);
    return true;
}
