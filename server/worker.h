/* Compute workers: threads that take batches from the queue and run them through their own engines. */
#ifndef RANKD_SERVER_WORKER_H
#define RANKD_SERVER_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "server/queue.h"
#include "server/registry.h"
#include "server/scorer.h"

struct rk_worker;

struct rk_worker_config {
    const struct rk_registry *registry; /* must outlive the worker, as the queue must */
    struct rk_queue *queue;
    uint32_t index;
    uint32_t max_batch;
    bool pinned; /* to processor number `index` of those that the process may use */
};

/* Makes one engine per model, then the thread. The error names the processor when the worker cannot be pinned to it. */
enum rk_status rk_worker_start(const struct rk_worker_config *config, struct rk_worker **worker,
                               struct rk_error *error);

/* Waits for the thread, which leaves when the queue is stopped and empty; frees everything. NULL is allowed. */
void rk_worker_join(struct rk_worker *worker);

const struct rk_scorer_counters *rk_worker_counters_of(const struct rk_worker *worker);

#endif
