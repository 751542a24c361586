/* Whether requests are answered: what health checks and readiness of all protocols say. Any thread. */
#ifndef RANKD_SERVER_SERVING_H
#define RANKD_SERVER_SERVING_H

#include <stdatomic.h>
#include <stdbool.h>

#include "server/registry.h"

struct rk_serving {
    const struct rk_registry *registry;
    const atomic_bool *draining;
};

/* Of a model, or with NULL of the server: not while it drains, nor once its device is lost or the model damaged. */
static inline bool rk_serving_is(const struct rk_serving *serving, const struct rk_served_model *model)
{
    return !atomic_load_explicit(serving->draining, memory_order_relaxed) &&
           !atomic_load_explicit(&serving->registry->compute->lost, memory_order_relaxed) &&
           (model == NULL || !rk_model_damaged(model->model));
}

#endif
