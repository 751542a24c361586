/* The queue between event loops and compute workers: the schedule (server/schedule.h), one lock for all of it, and
 * sleeping workers.
 *
 * Lock order: the queue's lock is taken alone; nothing is called under it but the schedule. */
#ifndef RANKD_SERVER_QUEUE_H
#define RANKD_SERVER_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/schedule.h"

struct rk_queue;

enum rk_status rk_queue_create(const struct rk_schedule_config *config, struct rk_queue **queue,
                               struct rk_error *error);
void rk_queue_destroy(struct rk_queue *queue); /* must be empty, its workers gone; NULL is allowed */

/* Queues a filled job. RK_EXHAUSTED, RK_DEADLINE: as rk_schedule_add; RK_CANCELLED: the queue was stopped. On failure
 * the job is still the caller's. */
enum rk_status rk_queue_push(struct rk_queue *queue, struct rk_job *job, uint64_t now_us);

/* Would this request be refused now (rk_schedule_refuses)? Cheap where nothing waits. */
bool rk_queue_refuses(struct rk_queue *queue, const struct rk_ask *ask, uint64_t now_us,
                      struct rk_job_refusal *refusal);

/* Settles what no worker has taken of a job that nobody waits for any more; nothing if all of it is, or if it was never
 * queued. By the thread that pushed it. */
void rk_queue_cancel(struct rk_queue *queue, struct rk_job *job);

/* Learns from the batch what its last run took, waits for work and fills it again. Returns false once the queue was
 * stopped and is empty. */
bool rk_queue_take(struct rk_queue *queue, struct rk_batch *batch);

/* Workers empty the queue and leave. */
void rk_queue_stop(struct rk_queue *queue);

/* By any thread. */
uint64_t rk_queue_num_jobs(const struct rk_queue *queue);                                   /* waiting, of all models */
uint64_t rk_queue_num_refused(const struct rk_queue *queue, enum rk_refusal_reason reason); /* since it was made */
bool rk_queue_overloaded(const struct rk_queue *queue, uint32_t priority);
uint64_t
rk_queue_num_late(const struct rk_queue *queue); /* never computed because of their deadline, since it was made */

#endif
