/* A mutex, a condition and a list per model. Critical sections are a few list steps, so that the lock is nearly always
 * free; waiting workers sleep on the condition. A push wakes one sleeper; a worker that leaves work behind wakes the
 * next, so a burst, or one large request, spreads over the workers without waking more of them than there is work for.
 */
#include "server/queue.h"

#include <pthread.h>
#include <stdlib.h>

#include "server/clock.h"

struct rk_queue {
    struct rk_queue_config config;
    pthread_mutex_t lock;
    pthread_cond_t work;
    _Atomic uint32_t num_jobs; /* in all lanes; written under the lock, read without it for the status */
    uint32_t sleepers;
    uint32_t turn; /* the lane to look at first */
    bool stopped;
    struct rk_lane lanes[];
};

enum rk_status rk_queue_create(const struct rk_queue_config *config, struct rk_queue **queue, struct rk_error *error)
{
    *queue = calloc(1, sizeof **queue + config->num_models * sizeof(struct rk_lane));
    if (*queue == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make the queue: out of memory");
    (*queue)->config = *config;
    pthread_mutex_init(&(*queue)->lock, NULL);
    pthread_cond_init(&(*queue)->work, NULL);
    return RK_OK;
}

void rk_queue_destroy(struct rk_queue *queue)
{
    if (queue == NULL)
        return;
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

enum rk_status rk_queue_push(struct rk_queue *queue, struct rk_job *job, uint64_t now_us)
{
    if (job->deadline_us <= now_us)
        return RK_DEADLINE;
    struct rk_lane *lane = &queue->lanes[job->model->index];
    enum rk_status status = RK_OK;
    bool wake = false;
    pthread_mutex_lock(&queue->lock);
    if (queue->stopped) {
        status = RK_CANCELLED;
    } else if (lane->num_jobs >= queue->config.max_jobs) {
        status = RK_EXHAUSTED;
    } else {
        rk_lane_append(lane, job, queue->config.max_batch);
        atomic_fetch_add_explicit(&queue->num_jobs, 1, memory_order_relaxed);
        wake = queue->sleepers > 0;
    }
    pthread_mutex_unlock(&queue->lock);
    if (wake)
        pthread_cond_signal(&queue->work);
    return status;
}

static struct rk_lane *next_lane(struct rk_queue *queue)
{
    for (uint32_t i = 0; i < queue->config.num_models; i++) {
        uint32_t index = (queue->turn + i) % queue->config.num_models;
        if (queue->lanes[index].oldest != NULL) {
            queue->turn = (index + 1) % queue->config.num_models;
            return &queue->lanes[index];
        }
    }
    return NULL;
}

bool rk_queue_take(struct rk_queue *queue, struct rk_batch *batch, uint32_t *model)
{
    pthread_mutex_lock(&queue->lock);
    struct rk_lane *lane;
    while ((lane = next_lane(queue)) == NULL && !queue->stopped) {
        queue->sleepers++;
        pthread_cond_wait(&queue->work, &queue->lock);
        queue->sleepers--;
    }
    bool wake = false;
    if (lane != NULL) {
        uint32_t before = lane->num_jobs;
        rk_batch_fill(batch, lane, rk_clock_us());
        uint32_t left = atomic_fetch_sub_explicit(&queue->num_jobs, before - lane->num_jobs, memory_order_relaxed) -
                        (before - lane->num_jobs);
        wake = left > 0 && queue->sleepers > 0;
        *model = (uint32_t)(lane - queue->lanes);
    }
    pthread_mutex_unlock(&queue->lock);
    if (wake)
        pthread_cond_signal(&queue->work);
    return lane != NULL;
}

void rk_queue_stop(struct rk_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->stopped = true;
    pthread_mutex_unlock(&queue->lock);
    pthread_cond_broadcast(&queue->work);
}

uint64_t rk_queue_depth(struct rk_queue *queue)
{
    return atomic_load_explicit(&queue->num_jobs, memory_order_relaxed);
}
