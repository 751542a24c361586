/* One worker: a thread, an engine per model (scratch memory sized for the largest batch), one batch. Nothing here
 * allocates once the thread runs, and it shares nothing with other workers but the queue. */
#include "server/worker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"

#define ALARM_INTERVAL_US 60000000u

struct rk_worker {
    struct rk_worker_counters counters;
    struct rk_queue *queue;
    struct rk_batch batch;
    struct rk_log_limit alarmed;
    pthread_t thread;
    uint32_t num_engines;
    struct rk_engine *engines[]; /* by model */
};

static void *run(void *argument)
{
    struct rk_worker *worker = argument;
    struct rk_batch *batch = &worker->batch;
    uint32_t model;
    while (rk_queue_take(worker->queue, batch, &model)) {
        rk_batch_settle_dropped(batch);
        if (batch->num_slices == 0)
            continue;
        enum rk_status status = rk_engine_run(worker->engines[model], batch->slices, batch->num_slices);
        if (status == RK_CORRUPT && rk_log_allowed(&worker->alarmed, ALARM_INTERVAL_US))
            rk_log(RK_LOG_ERROR,
                   "ALARM model=%s: its files were damaged while they were served, it answers DATA_LOSS; "
                   "publish it anew and restart",
                   batch->jobs[0]->model->name);
        rk_counter_add(&worker->counters.batches, 1);
        rk_counter_add(&worker->counters.slices, batch->num_slices);
        rk_counter_add(&worker->counters.candidates, batch->num_candidates);
        rk_batch_settle(batch, status);
    }
    return NULL;
}

static void free_worker(struct rk_worker *worker)
{
    for (uint32_t i = 0; i < worker->num_engines; i++)
        rk_engine_destroy(worker->engines[i]);
    rk_batch_deinit(&worker->batch);
    free(worker);
}

enum rk_status rk_worker_start(uint32_t index, const struct rk_registry *registry, struct rk_queue *queue,
                               uint32_t max_batch, struct rk_worker **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_worker *worker = calloc(1, sizeof *worker + registry->num_models * sizeof worker->engines[0]);
    if (worker == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to start worker %u: out of memory", index);
    worker->queue = queue;
    enum rk_status status = rk_batch_init(&worker->batch, max_batch, error);
    for (uint32_t i = 0; status == RK_OK && i < registry->num_models; i++) {
        status = rk_engine_create(registry->models[i].model, max_batch, &worker->engines[i], error);
        if (status == RK_OK)
            worker->num_engines++;
        else
            rk_error_prefix(error, "failed to make worker %u's engine for model %s", index, registry->models[i].name);
    }
    if (status == RK_OK) {
        int code = pthread_create(&worker->thread, NULL, run, worker);
        if (code != 0)
            status = rk_error_set(error, RK_EXHAUSTED, "failed to start worker %u: %s", index, strerror(code));
    }
    if (status != RK_OK) {
        free_worker(worker);
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
    free_worker(worker);
}

const struct rk_worker_counters *rk_worker_counters_of(const struct rk_worker *worker)
{
    return &worker->counters;
}
