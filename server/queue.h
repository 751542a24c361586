/* The queue between event loops and compute workers: one bounded lane per model, one lock for all of them.
 *
 * Lock order: the queue's lock is taken alone; nothing is called under it but list work. */
#ifndef RANKD_SERVER_QUEUE_H
#define RANKD_SERVER_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/batch.h"
#include "server/job.h"

struct rk_queue;

struct rk_queue_config {
    uint32_t num_models;
    uint32_t max_jobs;  /* per model */
    uint32_t max_batch; /* candidates */
};

enum rk_status rk_queue_create(const struct rk_queue_config *config, struct rk_queue **queue, struct rk_error *error);
void rk_queue_destroy(struct rk_queue *queue); /* must be empty, its workers gone */

/* Queues a filled job in its model's lane. RK_EXHAUSTED: the lane is full; RK_DEADLINE: it is too late already;
 * RK_CANCELLED: the queue was stopped. On failure the job is still the caller's. */
enum rk_status rk_queue_push(struct rk_queue *queue, struct rk_job *job, uint64_t now_us);

/* Waits for work and fills the batch from one model's lane, whose index is written to *model; lanes take turns. The
 * batch may hold dropped jobs only. Returns false once the queue was stopped and is empty. */
bool rk_queue_take(struct rk_queue *queue, struct rk_batch *batch, uint32_t *model);

/* Workers empty the queue and leave. */
void rk_queue_stop(struct rk_queue *queue);

uint64_t rk_queue_depth(struct rk_queue *queue); /* jobs waiting, all models */

#endif
