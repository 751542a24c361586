/* One thread: pass over all models, rest, again. The rate is kept by sleeping after each piece that was hashed, on a
 * condition, so that stopping is immediate. A damaged model is marked by rk_model_scrub, answers DATA_LOSS from then
 * on, and is not read again. */
#include "server/scrub.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/log.h"

struct rk_scrub {
    const struct rk_registry *registry;
    uint32_t interval_s, rate_mib_s;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping; /* under the lock */
};

/* Sleeps; true when it is time to stop. */
static bool rest(struct rk_scrub *scrub, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    pthread_mutex_lock(&scrub->lock);
    while (!scrub->stopping && pthread_cond_timedwait(&scrub->wake, &scrub->lock, &until) == 0)
        continue;
    bool stopping = scrub->stopping;
    pthread_mutex_unlock(&scrub->lock);
    return stopping;
}

static bool keep_rate(void *context, uint64_t bytes)
{
    struct rk_scrub *scrub = context;
    double seconds = (double)bytes / ((double)scrub->rate_mib_s * (1 << 20));
    return !rest(scrub, (uint64_t)(seconds * 1e9));
}

static void check(struct rk_scrub *scrub, const struct rk_served_model *model)
{
    struct rk_error error = {0};
    enum rk_status status = rk_model_scrub(model->model, keep_rate, scrub, &error);
    if (status == RK_OK || status == RK_CANCELLED)
        return;
    rk_log(RK_LOG_ERROR,
           "ALARM model=%s version=%" PRId64 " is damaged and answers DATA_LOSS: %s; publish it anew and restart",
           model->name, model->version, error.text);
}

static void *run(void *argument)
{
    struct rk_scrub *scrub = argument;
    uint32_t num_models = scrub->registry->num_models;
    bool *reported = calloc(num_models, sizeof *reported);
    while (reported != NULL && !rest(scrub, (uint64_t)scrub->interval_s * 1000000000u)) {
        for (uint32_t i = 0; i < num_models; i++) {
            const struct rk_served_model *model = &scrub->registry->models[i];
            if (reported[i])
                continue;
            check(scrub, model);
            reported[i] = rk_model_damaged(model->model);
        }
    }
    free(reported);
    return NULL;
}

enum rk_status rk_scrub_start(const struct rk_registry *registry, uint32_t interval_s, uint32_t rate_mib_s,
                              struct rk_scrub **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_scrub *scrub = calloc(1, sizeof *scrub);
    if (scrub == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to start the scrubber: out of memory");
    scrub->registry = registry;
    scrub->interval_s = interval_s;
    scrub->rate_mib_s = rate_mib_s;
    pthread_mutex_init(&scrub->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&scrub->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int code = pthread_create(&scrub->thread, NULL, run, scrub);
    if (code != 0) {
        pthread_cond_destroy(&scrub->wake);
        pthread_mutex_destroy(&scrub->lock);
        free(scrub);
        return rk_error_set(error, RK_EXHAUSTED, "failed to start the scrubber: %s", strerror(code));
    }
    pthread_setname_np(scrub->thread, "scrub");
    *result = scrub;
    return RK_OK;
}

void rk_scrub_stop(struct rk_scrub *scrub)
{
    if (scrub == NULL)
        return;
    pthread_mutex_lock(&scrub->lock);
    scrub->stopping = true;
    pthread_mutex_unlock(&scrub->lock);
    pthread_cond_signal(&scrub->wake);
    pthread_join(scrub->thread, NULL);
    pthread_cond_destroy(&scrub->wake);
    pthread_mutex_destroy(&scrub->lock);
    free(scrub);
}
