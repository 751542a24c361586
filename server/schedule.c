/* The schedule's state: lanes[class][model], a clock of used time per class, a correction per model. What waits in a
 * class is also a list by age.
 *
 * All times within are nanoseconds from now, UINT64_MAX for no limit. Work per call is bounded: a heap's depth for a
 * job, one look at every lane for a batch, and at most MAX_DROPPED jobs that are of no use any more. */
#include "server/schedule.h"

#include <stdlib.h>

#include "server/schedule_internal.h"

#define MAX_DROPPED     64     /* in one batch */
#define SHARE_MEMORY_US 100000 /* unless the configuration has an interval */
#define SHED_BOUNDS     2      /* in an overload, what has waited for so many bounds is sent away */

enum rk_status rk_schedule_create(const struct rk_schedule_config *config, struct rk_schedule **result,
                                  struct rk_error *error)
{
    *result = NULL;
    struct rk_schedule *schedule = calloc(1, sizeof *schedule + config->num_models * sizeof schedule->corrections[0]);
    if (schedule == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make the queue: out of memory");
    schedule->config = *config;
    schedule->num_classes = config->priorities->count;
    schedule->random = config->seed | 1;
    enum rk_status status = RK_OK;
    for (uint32_t m = 0; m < config->num_models; m++)
        schedule->corrections[m].factor = 1.0;
    for (uint32_t c = 0; status == RK_OK && c < schedule->num_classes; c++) {
        struct rk_class *class = &schedule->classes[c];
        class->weight = config->priorities->classes[c].weight;
        class->overload = (struct rk_overload){.target_us = config->target_us, .interval_us = config->interval_us};
        class->lanes = calloc(config->num_models, sizeof *class->lanes);
        class->shares = calloc(1, sizeof *class->shares);
        if (class->lanes == NULL || class->shares == NULL)
            status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
        else
            class->shares->memory_us = config->interval_us > 0 ? config->interval_us : SHARE_MEMORY_US;
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
        free(schedule->classes[c].shares);
    }
    free(schedule);
}

/* ---- coming and going ---- */

static void enlist(struct rk_class *class, struct rk_job *job)
{
    job->older = class->newest;
    job->newer = NULL;
    *(class->newest != NULL ? &class->newest->newer : &class->oldest) = job;
    class->newest = job;
}

static void delist(struct rk_class *class, struct rk_job *job)
{
    *(job->older != NULL ? &job->older->newer : &class->oldest) = job->newer;
    *(job->newer != NULL ? &job->newer->older : &class->newest) = job->older;
}

enum rk_status rk_schedule_add(struct rk_schedule *schedule, struct rk_job *job, uint64_t now_us)
{
    const struct rk_ask ask = {.model = job->model,
                               .priority = job->priority,
                               .num_candidates = job->request.num_candidates,
                               .num_ids = job->request.num_ids,
                               .deadline_us = job->deadline_us,
                               .client = job->client,
                               .connection = job->connection,
                               .bytes = job->bytes};
    struct rk_class *class = &schedule->classes[job->priority];
    struct rk_lane *lane = rk_schedule_lane(schedule, job);
    struct rk_judgement judgement;
    rk_job_begin(job);
    rk_schedule_judge(schedule, &ask, now_us, true, &judgement);
    if (judgement.reason != RK_NOT_REFUSED) {
        rk_schedule_refuse(schedule, class, judgement.reason, judgement.wait_us, &job->refusal);
        return rk_refusal_status(judgement.reason);
    }
    rk_shares_charge(class->shares, job->client, job->connection, judgement.work_ns / schedule->config.num_workers,
                     judgement.wait_us, now_us);
    job->refusal = (struct rk_job_refusal){0};
    job->due_us = judgement.due_us;
    job->work_ns = judgement.work_ns;
    job->queued_us = now_us;
    rk_deadline_heap_add(&lane->heap, job, schedule->next_order++); /* it was judged that there is room */
    enlist(class, job);
    if (class->num_jobs++ == 0 && class->used < schedule->used)
        class->used = schedule->used;
    lane->num_candidates += job->request.num_candidates;
    class->work_ns += job->work_ns;
    schedule->work_ns += job->work_ns;
    schedule->bytes += job->bytes;
    schedule->num_jobs++;
    return RK_OK;
}

/* So much of the work of a waiting job waits no more. */
static void take_work(struct rk_schedule *schedule, struct rk_job *job, uint64_t ns)
{
    job->work_ns -= ns;
    schedule->classes[job->priority].work_ns -= ns;
    schedule->work_ns -= ns;
}

static void leave(struct rk_schedule *schedule, struct rk_job *job)
{
    struct rk_lane *lane = rk_schedule_lane(schedule, job);
    rk_deadline_heap_remove(&lane->heap, job);
    delist(&schedule->classes[job->priority], job);
    take_work(schedule, job, job->work_ns);
    lane->num_candidates -= job->request.num_candidates - job->taken;
    schedule->classes[job->priority].num_jobs--;
    schedule->bytes -= job->bytes;
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
static struct rk_class *next_class(struct rk_schedule *schedule)
{
    struct rk_class *next = NULL;
    for (uint32_t c = 0; c < schedule->num_classes; c++) {
        struct rk_class *class = &schedule->classes[c];
        if (class->num_jobs > 0 && (next == NULL || class->used < next->used))
            next = class;
    }
    return next;
}

/* The most urgent job of a class that has one. */
static struct rk_job *most_urgent(const struct rk_schedule *schedule, const struct rk_class *class)
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
    if (!cancelled && !rk_schedule_too_late(schedule, job->model->index, rk_schedule_needed_ns(schedule, job),
                                            job->deadline_us, now_us))
        return false;
    schedule->num_late += !cancelled;
    leave(schedule, job);
    rk_batch_drop(batch, job);
    return true;
}

/* In an overload, sends away what has waited for too long, oldest first, but for what has been begun. */
static void shed(struct rk_schedule *schedule, struct rk_batch *batch, uint64_t now_us)
{
    for (uint32_t c = 0; c < schedule->num_classes; c++) {
        struct rk_class *class = &schedule->classes[c];
        const uint64_t most_us = SHED_BOUNDS * rk_overload_bound_us(&class->overload);
        struct rk_job *job;
        for (uint32_t n = 0; class->overload.active && n < MAX_DROPPED && (job = class->oldest) != NULL; n++) {
            if (job->taken > 0 || now_us - job->queued_us <= most_us)
                break;
            rk_schedule_refuse(schedule, class, RK_REFUSED_OVERLOAD,
                               rk_schedule_wait_us(schedule, class, class->work_ns), &job->refusal);
            leave(schedule, job);
            rk_batch_drop(batch, job);
        }
    }
}

/* In an overload, has it waited for longer than anything should that was taken? */
static bool stale(const struct rk_class *class, const struct rk_job *job, uint64_t now_us)
{
    const uint64_t bound_us = rk_overload_bound_us(&class->overload);
    return class->overload.active && now_us - job->queued_us > bound_us + bound_us / 2;
}

/* Who is next of a class that has work: the most urgent; when that one has waited for too long in an overload and is
 * not begun, the newest, which can still be answered soon. */
static struct rk_job *next_of(const struct rk_schedule *schedule, const struct rk_class *class, uint64_t now_us)
{
    struct rk_job *job = most_urgent(schedule, class);
    return job->taken == 0 && stale(class, job, now_us) ? class->newest : job;
}

/* The job that is to come first. NULL: none, or enough had to be dropped. */
static struct rk_job *next_job(struct rk_schedule *schedule, struct rk_batch *batch, uint64_t now_us)
{
    struct rk_class *class;
    for (uint32_t dropped = 0; dropped < MAX_DROPPED && (class = next_class(schedule)) != NULL; dropped++) {
        struct rk_job *job = next_of(schedule, class, now_us);
        if (!drop(schedule, batch, job, now_us))
            return job;
    }
    return NULL;
}

/* How long the first jobs of all other lanes can wait for this one's `own_ns`, those left out that cannot wait so long
 * anyhow. */
static uint64_t others_wait_ns(const struct rk_schedule *schedule, const struct rk_lane *own, uint64_t own_ns,
                               uint64_t now_us)
{
    uint64_t wait_ns = UINT64_MAX;
    for (uint32_t c = 0; c < schedule->num_classes; c++) {
        const struct rk_class *class = &schedule->classes[c];
        for (uint32_t m = 0; class->num_jobs > 0 && m < schedule->config.num_models; m++) {
            const struct rk_lane *lane = &class->lanes[m];
            const struct rk_heap_entry *top = rk_deadline_heap_top(&lane->heap);
            if (lane == own || top == NULL || top->job->deadline_us == UINT64_MAX)
                continue;
            const uint64_t have_ns = rk_schedule_left_ns(top->job->deadline_us, now_us),
                           need_ns = rk_schedule_needed_ns(schedule, top->job);
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
    const uint32_t left = job->request.num_candidates - job->taken;
    const uint64_t ns = count == left ? job->work_ns : job->work_ns / left * count;
    rk_overload_serve(&schedule->classes[job->priority].overload, ns);
    if (count == left) {
        leave(schedule, job);
    } else {
        take_work(schedule, job, ns);
        rk_schedule_lane(schedule, job)->num_candidates -= count;
    }
    rk_batch_add(batch, job, count);
}

/* Who joins a batch of this lane; NULL: nobody now. */
static struct rk_job *next_mate(const struct rk_schedule *schedule, const struct rk_class *class,
                                const struct rk_lane *lane, uint64_t now_us)
{
    struct rk_job *job = rk_deadline_heap_top(&lane->heap)->job;
    if (!stale(class, job, now_us))
        return job;
    job = next_of(schedule, class, now_us);
    return &class->lanes[job->model->index] == lane ? job : NULL;
}

static uint32_t least_of(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

bool rk_schedule_fill(struct rk_schedule *schedule, struct rk_batch *batch, uint64_t now_us, uint32_t num_idle)
{
    batch->predicted_ns = batch->took_ns = 0;
    shed(schedule, batch, now_us);
    struct rk_job *job = next_job(schedule, batch, now_us);
    if (job == NULL)
        return batch->dropped != NULL;
    const uint32_t model = job->model->index;
    struct rk_class *class = &schedule->classes[job->priority];
    struct rk_lane *lane = &class->lanes[model];
    const struct rk_cost_curve *curve = rk_schedule_curve(schedule, model);

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
        end_ns = others_wait_ns(schedule, lane,
                                rk_schedule_predict_ns(schedule, model, least, 1, rk_schedule_ids(job, least)), now_us);
        while (count > least && rk_schedule_predict_ns(schedule, model, count, 1, rk_schedule_ids(job, count)) > end_ns)
            count = count / 2 > least ? count / 2 : least;
    }
    if (rk_schedule_left_ns(job->deadline_us, now_us) < end_ns)
        end_ns = rk_schedule_left_ns(job->deadline_us, now_us);

    double ids = rk_schedule_ids(job, count);
    add_slice(schedule, batch, job, count);
    batch->model = model;
    batch->predicted_ns = rk_schedule_predict_ns(schedule, model, count, 1, ids);
    for (uint32_t looked = 0; looked < schedule->config.max_batch && lane->heap.num_jobs > 0; looked++) {
        struct rk_job *next = next_mate(schedule, class, lane, now_us);
        if (next == NULL || next == job)
            break;
        if (drop(schedule, batch, next, now_us))
            continue;
        job = next;
        count = job->request.num_candidates - job->taken;
        const uint64_t together = (uint64_t)batch->num_candidates + count;
        if (together > least_of(share, curve->full))
            break;
        const uint64_t ns = rk_schedule_predict_ns(schedule, model, (uint32_t)together, batch->num_slices + 1,
                                                   ids + rk_schedule_ids(job, count));
        const uint64_t have_ns = rk_schedule_left_ns(job->deadline_us, now_us);
        if (have_ns < end_ns) /* one that is ordered later than its deadline says */
            end_ns = have_ns;
        if (ns > end_ns)
            break;
        ids += rk_schedule_ids(job, count);
        add_slice(schedule, batch, job, count);
        batch->predicted_ns = ns;
    }
    schedule->running_ns += batch->predicted_ns;
    schedule->num_running++;
    rk_overload_observe(&class->overload, rk_schedule_wait_us(schedule, class, class->work_ns), now_us);
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

uint64_t rk_schedule_num_refused(const struct rk_schedule *schedule, enum rk_refusal_reason reason)
{
    return schedule->num_refused[reason];
}

bool rk_schedule_overloaded(const struct rk_schedule *schedule, uint32_t priority)
{
    return schedule->classes[priority].overload.active;
}
