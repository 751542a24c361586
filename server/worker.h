/* Compute workers: threads that take batches from the queue and run them through their own engines. */
#ifndef RANKD_SERVER_WORKER_H
#define RANKD_SERVER_WORKER_H

#include <stdint.h>

#include "server/queue.h"
#include "server/registry.h"
#include "server/scorer.h"

struct rk_worker;

/* Makes one engine per model, then the thread. The registry and the queue must outlive the worker. */
enum rk_status rk_worker_start(uint32_t index, const struct rk_registry *registry, struct rk_queue *queue,
                               uint32_t max_batch, struct rk_worker **worker, struct rk_error *error);

/* Waits for the thread, which leaves when the queue is stopped and empty; frees everything. NULL is allowed. */
void rk_worker_join(struct rk_worker *worker);

const struct rk_scorer_counters *rk_worker_counters_of(const struct rk_worker *worker);

#endif
