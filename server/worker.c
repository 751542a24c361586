/* One worker: a thread with a scorer of its own, sized for the largest batch. It shares nothing with other workers but
 * the queue. */
#include "server/worker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/clock.h"
#include "server/processors.h"

struct rk_worker {
    struct rk_queue *queue;
    struct rk_scorer *scorer;
    pthread_t thread;
};

static void *run(void *argument)
{
    struct rk_worker *worker = argument;
    struct rk_batch *batch = rk_scorer_batch(worker->scorer);
    while (rk_queue_take(worker->queue, batch)) {
        const uint64_t begun_ns = rk_clock_ns();
        rk_scorer_run(worker->scorer, batch->model);
        batch->took_ns = rk_clock_ns() - begun_ns; /* with the answers: all that the next batch waits for */
    }
    return NULL;
}

static enum rk_status start_thread(struct rk_worker *worker, const struct rk_worker_config *config,
                                   struct rk_error *error)
{
    char where[40] = "";
    uint32_t processor = 0;
    pthread_attr_t attributes;
    enum rk_status status = RK_OK;
    pthread_attr_init(&attributes);
    if (config->pinned) {
        status = rk_processors_pin(&attributes, config->index, &processor, error);
        snprintf(where, sizeof where, " on processor %u", processor);
    }
    if (status == RK_OK) {
        const int code = pthread_create(&worker->thread, &attributes, run, worker);
        if (code != 0)
            status = rk_error_set(error, RK_EXHAUSTED, "failed to make its thread%s: %s", where, strerror(code));
    }
    pthread_attr_destroy(&attributes);
    return status;
}

enum rk_status rk_worker_start(const struct rk_worker_config *config, struct rk_worker **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to start worker %u: out of memory", config->index);
    worker->queue = config->queue;
    enum rk_status status = rk_scorer_create(config->registry, config->max_batch, &worker->scorer, error);
    if (status == RK_OK)
        status = start_thread(worker, config, error);
    if (status != RK_OK) {
        rk_error_prefix(error, "failed to start worker %u", config->index);
        rk_scorer_destroy(worker->scorer);
        free(worker);
        return status;
    }
    char name[16];
    snprintf(name, sizeof name, "worker-%u", config->index % 10000u);
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
