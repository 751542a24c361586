/* The schedule's state: lanes[class][model], a clock of used time per class, a correction per model.
 *
 * All times within are nanoseconds from now, UINT64_MAX for no limit. Work per call is bounded: a heap's depth for a
 * job, one look at every lane for a batch, and at most MAX_DROPPED jobs that are of no use any more. */
#include "server/schedule.h"

#include <stdlib.h>

#include "server/deadline_heap.h"

#define MAX_DROPPED    64   /* in one batch */
#define LEARNING       16   /* about so many batches are remembered */
#define MAX_CORRECTION 16.0 /* a curve is not wrong by more, either way */
#define MAX_REFUSED    32   /* in a row without a batch */

struct lane {
    struct rk_deadline_heap heap;
    uint64_t num_candidates; /* not taken yet */
};

struct class
{
    double used; /* predicted time of its batches over its weight; not less than the schedule's when it became busy */
    uint32_t weight, num_jobs;
    struct lane *lanes; /* [num_models] */
};

/* How long a model's batches take over what its curve says. */
struct correction {
    double factor;
    uint32_t num_refused; /* for it, since the last batch */
};

struct rk_schedule {
    struct rk_schedule_config config;
    uint32_t num_classes, num_jobs;
    struct class classes[RK_MAX_PRIORITIES];
    double used; /* of the class that was served last, before that */
    uint64_t num_late, next_order;
    struct correction corrections[]; /* [num_models] */
};

enum rk_status rk_schedule_create(const struct rk_schedule_config *config, struct rk_schedule **result,
                                  struct rk_error *error)
{
    *result = NULL;
    struct rk_schedule *schedule = calloc(1, sizeof *schedule + config->num_models * sizeof schedule->corrections[0]);
    if (schedule == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make the queue: out of memory");
    schedule->config = *config;
    schedule->num_classes = config->priorities->count;
    enum rk_status status = RK_OK;
    for (uint32_t m = 0; m < config->num_models; m++)
        schedule->corrections[m].factor = 1.0;
    for (uint32_t c = 0; status == RK_OK && c < schedule->num_classes; c++) {
        struct class *class = &schedule->classes[c];
        class->weight = config->priorities->classes[c].weight;
        class->lanes = calloc(config->num_models, sizeof *class->lanes);
        if (class->lanes == NULL)
            status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
        for (uint32_t m = 0; status == RK_OK && m < config->num_models; m++)
            status = rk_deadline_heap_init(&class->lanes[m].heap, config->max_jobs, error);
    }
    if (status != RK_OK) {
        rk_error_prefix(error, "failed to make the queue");
        rk_schedule_destroy(schedule);
        return status;
    }
    *result = schedule;
    return RK_OK;
}

void rk_schedule_destroy(struct rk_schedule *schedule)
{
    if (schedule == NULL)
        return;
    for (uint32_t c = 0; c < schedule->num_classes; c++) {
        for (uint32_t m = 0; schedule->classes[c].lanes != NULL && m < schedule->config.num_models; m++)
            rk_deadline_heap_deinit(&schedule->classes[c].lanes[m].heap);
        free(schedule->classes[c].lanes);
    }
    free(schedule);
}

/* ---- predictions ---- */

static const struct rk_cost_curve *curve_of(const struct rk_schedule *schedule, uint32_t model)
{
    return &schedule->config.models[model].cost;
}

/* Of a job's ids, those that so many of its candidates read, about. */
static double ids_of(const struct rk_job *job, uint32_t count)
{
    return (double)job->request.num_ids * count / job->request.num_candidates;
}

static uint64_t predict_ns(const struct rk_schedule *schedule, uint32_t model, uint32_t num_candidates,
                           uint32_t num_slices, double ids)
{
    const struct rk_cost_curve *curve = curve_of(schedule, model);
    const uint64_t ns = rk_cost_curve_ns(curve, num_candidates) + (num_slices - 1) * curve->request_ns;
    return (uint64_t)(schedule->corrections[model].factor * ((double)ns + ids * RK_COST_COLD_ROW_NS));
}

/* The least that what is left of a job can take. */
static uint64_t needed_ns(const struct rk_schedule *schedule, const struct rk_job *job)
{
    const uint32_t model = job->model->index, left = job->request.num_candidates - job->taken;
    const uint32_t parts = rk_cost_curve_parts(curve_of(schedule, model), left, schedule->config.num_workers);
    const uint32_t part = (left - 1) / parts + 1;
    return predict_ns(schedule, model, part, 1, ids_of(job, part));
}

static uint64_t left_ns(uint64_t deadline_us, uint64_t now_us)
{
    const uint64_t us = deadline_us > now_us ? deadline_us - now_us : 0;
    return us < UINT64_MAX / 1000u ? us * 1000u : UINT64_MAX;
}

static void correct(struct correction *correction, double by)
{
    const double factor = correction->factor * by;
    correction->factor = factor > MAX_CORRECTION         ? MAX_CORRECTION
                         : factor < 1.0 / MAX_CORRECTION ? 1.0 / MAX_CORRECTION
                                                         : factor;
}

/* A refusal teaches nothing about the time that the work would have taken. So that a model of which too much was once
 * thought is tried again, many refusals in a row lower what is thought of it. */
static bool too_late(struct rk_schedule *schedule, const struct rk_job *job, uint64_t now_us)
{
    if (job->deadline_us <= now_us)
        return true;
    if (needed_ns(schedule, job) <= left_ns(job->deadline_us, now_us))
        return false;
    struct correction *correction = &schedule->corrections[job->model->index];
    if (++correction->num_refused > MAX_REFUSED)
        correct(correction, 1.0 - 1.0 / LEARNING);
    return true;
}

void rk_schedule_learn(struct rk_schedule *schedule, const struct rk_batch *batch)
{
    if (batch->predicted_ns == 0)
        return;
    const double ratio = (double)batch->took_ns / (double)batch->predicted_ns;
    const double bounded = ratio < 2.0 ? ratio : 2.0; /* one run that was interrupted must not count for many */
    correct(&schedule->corrections[batch->model], 1.0 + (bounded - 1.0) / LEARNING);
    schedule->corrections[batch->model].num_refused = 0;
}

/* ---- coming and going ---- */

static struct lane *lane_of(struct rk_schedule *schedule, const struct rk_job *job)
{
    return &schedule->classes[job->priority].lanes[job->model->index];
}

enum rk_status rk_schedule_add(struct rk_schedule *schedule, struct rk_job *job, uint64_t now_us)
{
    struct class *class = &schedule->classes[job->priority];
    struct lane *lane = lane_of(schedule, job);
    rk_job_begin(job);
    if (too_late(schedule, job, now_us)) {
        schedule->num_late++;
        return RK_DEADLINE;
    }
    if (!rk_deadline_heap_add(&lane->heap, job, schedule->next_order++))
        return RK_EXHAUSTED;
    if (class->num_jobs++ == 0 && class->used < schedule->used)
        class->used = schedule->used;
    lane->num_candidates += job->request.num_candidates;
    schedule->num_jobs++;
    return RK_OK;
}

static void leave(struct rk_schedule *schedule, struct rk_job *job)
{
    struct lane *lane = lane_of(schedule, job);
    rk_deadline_heap_remove(&lane->heap, job);
    lane->num_candidates -= job->request.num_candidates - job->taken;
    schedule->classes[job->priority].num_jobs--;
    schedule->num_jobs--;
}

bool rk_schedule_remove(struct rk_schedule *schedule, struct rk_job *job, uint64_t now_us)
{
    if (job->place == 0)
        return false;
    if (job->deadline_us <= now_us)
        schedule->num_late++;
    leave(schedule, job);
    return true;
}

/* ---- batches ---- */

/* The busy class that has had the least, the first of several. */
static struct class *next_class(struct rk_schedule *schedule)
{
    struct class *next = NULL;
    for (uint32_t c = 0; c < schedule->num_classes; c++) {
        struct class *class = &schedule->classes[c];
        if (class->num_jobs > 0 && (next == NULL || class->used < next->used))
            next = class;
    }
    return next;
}

/* The most urgent job of a class that has one. */
static struct rk_job *most_urgent(const struct rk_schedule *schedule, const struct class *class)
{
    const struct rk_heap_entry *first = NULL;
    for (uint32_t m = 0; m < schedule->config.num_models; m++) {
        const struct rk_heap_entry *top = rk_deadline_heap_top(&class->lanes[m].heap);
        if (top != NULL && (first == NULL || rk_heap_entry_before(top, first)))
            first = top;
    }
    return first->job;
}

/* Moves the job to the batch's dropped ones if it is of no use any more. */
static bool drop(struct rk_schedule *schedule, struct rk_batch *batch, struct rk_job *job, uint64_t now_us)
{
    const bool cancelled = atomic_load_explicit(&job->cancelled, memory_order_relaxed);
    if (!cancelled && !too_late(schedule, job, now_us))
        return false;
    schedule->num_late += !cancelled;
    leave(schedule, job);
    rk_batch_drop(batch, job);
    return true;
}

/* The job that is to come first. NULL: none, or enough had to be dropped. */
static struct rk_job *next_job(struct rk_schedule *schedule, struct rk_batch *batch, uint64_t now_us)
{
    struct class *class;
    for (uint32_t dropped = 0; dropped < MAX_DROPPED && (class = next_class(schedule)) != NULL; dropped++) {
        struct rk_job *job = most_urgent(schedule, class);
        if (!drop(schedule, batch, job, now_us))
            return job;
    }
    return NULL;
}

/* How long the first jobs of all other lanes can wait for this one's `own_ns`, those left out that cannot wait so long
 * anyhow. */
static uint64_t others_wait_ns(const struct rk_schedule *schedule, const struct lane *own, uint64_t own_ns,
                               uint64_t now_us)
{
    uint64_t wait_ns = UINT64_MAX;
    for (uint32_t c = 0; c < schedule->num_classes; c++) {
        const struct class *class = &schedule->classes[c];
        for (uint32_t m = 0; class->num_jobs > 0 && m < schedule->config.num_models; m++) {
            const struct lane *lane = &class->lanes[m];
            const struct rk_heap_entry *top = rk_deadline_heap_top(&lane->heap);
            if (lane == own || top == NULL || top->deadline_us == UINT64_MAX)
                continue;
            const uint64_t have_ns = left_ns(top->deadline_us, now_us), need_ns = needed_ns(schedule, top->job);
            const uint64_t slack_ns = have_ns > need_ns ? have_ns - need_ns : 0;
            if (slack_ns >= own_ns && slack_ns < wait_ns)
                wait_ns = slack_ns;
        }
    }
    return wait_ns;
}

/* Adds the next slice of the job, which leaves its lane with the last one. */
static void add_slice(struct rk_schedule *schedule, struct rk_batch *batch, struct rk_job *job, uint32_t count)
{
    if (job->taken + count == job->request.num_candidates)
        leave(schedule, job);
    else
        lane_of(schedule, job)->num_candidates -= count;
    rk_batch_add(batch, job, count);
}

static uint32_t least_of(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

bool rk_schedule_fill(struct rk_schedule *schedule, struct rk_batch *batch, uint64_t now_us, uint32_t num_idle)
{
    batch->predicted_ns = batch->took_ns = 0;
    struct rk_job *job = next_job(schedule, batch, now_us);
    if (job == NULL)
        return batch->dropped != NULL;
    const uint32_t model = job->model->index;
    struct class *class = &schedule->classes[job->priority];
    struct lane *lane = &class->lanes[model];
    const struct rk_cost_curve *curve = curve_of(schedule, model);

    /* This worker's share of what waits in the lane; then the first job's next slice. */
    const uint32_t waiting = least_of(lane->num_candidates, UINT32_MAX);
    const uint32_t parts = num_idle > 0 ? rk_cost_curve_parts(curve, waiting, 1 + num_idle) : 1;
    const uint32_t share = (waiting - 1) / parts + 1, most = least_of(share, schedule->config.max_batch);
    const uint32_t left = job->request.num_candidates - job->taken;
    uint32_t count = (left - 1) / ((left - 1) / most + 1) + 1;

    /* What stays behind waits for this batch, unless another worker is there for it. */
    uint64_t end_ns = UINT64_MAX;
    if (num_idle == 0) {
        const uint32_t least = least_of(count, curve->least);
        end_ns = others_wait_ns(schedule, lane, predict_ns(schedule, model, least, 1, ids_of(job, least)), now_us);
        while (count > least && predict_ns(schedule, model, count, 1, ids_of(job, count)) > end_ns)
            count = count / 2 > least ? count / 2 : least;
    }
    if (left_ns(job->deadline_us, now_us) < end_ns) /* the tightest of the batch: later ones are less urgent */
        end_ns = left_ns(job->deadline_us, now_us);

    double ids = ids_of(job, count);
    add_slice(schedule, batch, job, count);
    batch->model = model;
    batch->predicted_ns = predict_ns(schedule, model, count, 1, ids);
    const struct rk_heap_entry *top;
    for (uint32_t looked = 0; looked < schedule->config.max_batch; looked++) {
        if ((top = rk_deadline_heap_top(&lane->heap)) == NULL || top->job == job)
            break;
        if (drop(schedule, batch, top->job, now_us))
            continue;
        job = top->job;
        count = job->request.num_candidates - job->taken;
        const uint64_t together = (uint64_t)batch->num_candidates + count;
        if (together > least_of(share, curve->full))
            break;
        const uint64_t ns =
            predict_ns(schedule, model, (uint32_t)together, batch->num_slices + 1, ids + ids_of(job, count));
        if (ns > end_ns)
            break;
        ids += ids_of(job, count);
        add_slice(schedule, batch, job, count);
        batch->predicted_ns = ns;
    }
    schedule->used = class->used;
    class->used += (double)batch->predicted_ns / class->weight;
    return true;
}

uint32_t rk_schedule_num_jobs(const struct rk_schedule *schedule)
{
    return schedule->num_jobs;
}

uint64_t rk_schedule_num_late(const struct rk_schedule *schedule)
{
    return schedule->num_late;
}
