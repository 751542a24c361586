/* A mutex, a condition and the schedule. Critical sections are short, so that the lock is nearly always free; waiting
 * workers sleep on the condition. A push wakes one sleeper; a worker that leaves work behind wakes the next, so a
 * burst, or one large request, spreads over the workers without waking more of them than there is work for. */
#include "server/queue.h"

#include <pthread.h>
#include <stdlib.h>

#include "server/clock.h"

struct rk_queue {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct rk_schedule *schedule;
    uint32_t num_sleepers;
    bool stopped;
    /* The schedule's, for those without the lock. */
    _Atomic uint64_t num_jobs, num_late, num_refused[RK_NUM_REFUSAL_REASONS];
    _Atomic uint32_t overloaded; /* bit by bit the classes */
    uint32_t num_classes;
};

enum rk_status rk_queue_create(const struct rk_schedule_config *config, struct rk_queue **result,
                               struct rk_error *error)
{
    *result = NULL;
    struct rk_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make the queue: out of memory");
    const enum rk_status status = rk_schedule_create(config, &queue->schedule, error);
    if (status != RK_OK) {
        free(queue);
        return status;
    }
    queue->num_classes = config->priorities->count;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    *result = queue;
    return RK_OK;
}

void rk_queue_destroy(struct rk_queue *queue)
{
    if (queue == NULL)
        return;
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->lock);
    rk_schedule_destroy(queue->schedule);
    free(queue);
}

/* Before the lock is given back. */
static void publish(struct rk_queue *queue)
{
    atomic_store_explicit(&queue->num_jobs, rk_schedule_num_jobs(queue->schedule), memory_order_relaxed);
    atomic_store_explicit(&queue->num_late, rk_schedule_num_late(queue->schedule), memory_order_relaxed);
    for (uint32_t r = 0; r < RK_NUM_REFUSAL_REASONS; r++)
        atomic_store_explicit(&queue->num_refused[r], rk_schedule_num_refused(queue->schedule, r),
                              memory_order_relaxed);
    uint32_t overloaded = 0;
    for (uint32_t c = 0; c < queue->num_classes; c++)
        overloaded |= (uint32_t)rk_schedule_overloaded(queue->schedule, c) << c;
    atomic_store_explicit(&queue->overloaded, overloaded, memory_order_relaxed);
}

enum rk_status rk_queue_push(struct rk_queue *queue, struct rk_job *job, uint64_t now_us)
{
    pthread_mutex_lock(&queue->lock);
    const enum rk_status status = queue->stopped ? RK_CANCELLED : rk_schedule_add(queue->schedule, job, now_us);
    const bool wake = status == RK_OK && queue->num_sleepers > 0;
    publish(queue);
    pthread_mutex_unlock(&queue->lock);
    if (wake)
        pthread_cond_signal(&queue->work);
    return status;
}

bool rk_queue_refuses(struct rk_queue *queue, const struct rk_ask *ask, uint64_t now_us, struct rk_job_refusal *refusal)
{
    if (rk_queue_num_jobs(queue) == 0)
        return false;
    pthread_mutex_lock(&queue->lock);
    const bool refuses = !queue->stopped && rk_schedule_refuses(queue->schedule, ask, now_us, refusal);
    publish(queue);
    pthread_mutex_unlock(&queue->lock);
    return refuses;
}

void rk_queue_cancel(struct rk_queue *queue, struct rk_job *job)
{
    const uint64_t now_us = rk_clock_us();
    pthread_mutex_lock(&queue->lock);
    const uint32_t left = job->request.num_candidates - job->taken;
    const bool removed = rk_schedule_remove(queue->schedule, job, now_us);
    publish(queue);
    pthread_mutex_unlock(&queue->lock);
    if (removed)
        rk_job_settle(job, left, RK_CANCELLED);
}

bool rk_queue_take(struct rk_queue *queue, struct rk_batch *batch)
{
    pthread_mutex_lock(&queue->lock);
    rk_schedule_learn(queue->schedule, batch);
    bool filled;
    while (!(filled = rk_schedule_fill(queue->schedule, batch, rk_clock_us(), queue->num_sleepers)) &&
           !queue->stopped) {
        queue->num_sleepers++;
        pthread_cond_wait(&queue->work, &queue->lock);
        queue->num_sleepers--;
    }
    const bool wake = rk_schedule_num_jobs(queue->schedule) > 0 && queue->num_sleepers > 0;
    publish(queue);
    pthread_mutex_unlock(&queue->lock);
    if (wake)
        pthread_cond_signal(&queue->work);
    return filled;
}

void rk_queue_stop(struct rk_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->stopped = true;
    pthread_mutex_unlock(&queue->lock);
    pthread_cond_broadcast(&queue->work);
}

uint64_t rk_queue_num_jobs(const struct rk_queue *queue)
{
    return atomic_load_explicit(&queue->num_jobs, memory_order_relaxed);
}

uint64_t rk_queue_num_late(const struct rk_queue *queue)
{
    return atomic_load_explicit(&queue->num_late, memory_order_relaxed);
}

uint64_t rk_queue_num_refused(const struct rk_queue *queue, enum rk_refusal_reason reason)
{
    return atomic_load_explicit(&queue->num_refused[reason], memory_order_relaxed);
}

bool rk_queue_overloaded(const struct rk_queue *queue, uint32_t priority)
{
    return (atomic_load_explicit(&queue->overloaded, memory_order_relaxed) >> priority & 1) != 0;
}
