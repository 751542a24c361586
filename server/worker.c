/* One worker: a thread with a scorer of its own, sized for the largest batch. It shares nothing with other workers but
 * the queue. */
#include "server/worker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rk_worker {
    struct rk_queue *queue;
    struct rk_scorer *scorer;
    pthread_t thread;
};

static void *run(void *argument)
{
    struct rk_worker *worker = argument;
    uint32_t model;
    while (rk_queue_take(worker->queue, rk_scorer_batch(worker->scorer), &model))
        rk_scorer_run(worker->scorer, model);
    return NULL;
}

enum rk_status rk_worker_start(uint32_t index, const struct rk_registry *registry, struct rk_queue *queue,
                               uint32_t max_batch, struct rk_worker **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to start worker %u: out of memory", index);
    worker->queue = queue;
    enum rk_status status = rk_scorer_create(registry, max_batch, &worker->scorer, error);
    if (status == RK_OK) {
        int code = pthread_create(&worker->thread, NULL, run, worker);
        if (code != 0)
            status = rk_error_set(error, RK_EXHAUSTED, "%s", strerror(code));
    }
    if (status != RK_OK) {
        rk_error_prefix(error, "failed to start worker %u", index);
        rk_scorer_destroy(worker->scorer);
        free(worker);
        return status;
    }
    char name[16];
    snprintf(name, sizeof name, "worker-%u", index % 10000u);
    pthread_setname_np(worker->thread, name);
    *result = worker;
    return RK_OK;
}

void rk_worker_join(struct rk_worker *worker)
{
    if (worker == NULL)
        return;
    pthread_join(worker->thread, NULL);
    rk_scorer_destroy(worker->scorer);
    free(worker);
}

const struct rk_scorer_counters *rk_worker_counters_of(const struct rk_worker *worker)
{
    return rk_scorer_counters_of(worker->scorer);
}
