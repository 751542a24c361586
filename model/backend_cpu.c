/* The processor as a backend: a device without state, a loaded model is the model, a runner is an engine. The calling
 * thread computes. */
#include <stdlib.h>

#include "model/backends.h"

struct rk_device {
    struct rk_capabilities capabilities;
};

struct rk_loaded {
    const struct rk_model *model;
};

struct rk_runner {
    struct rk_engine *engine;
};

static struct rk_device cpu = {{
    .row_formats = (1u << RK_ROW_FORMAT_COUNT) - 1,
    .dense_formats = (1u << RK_DENSE_FORMAT_COUNT) - 1,
    .interactions = 1u << RK_INTERACTION_DOT | 1u << RK_INTERACTION_CAT | 1u << RK_INTERACTION_DCN_V2,
    .exact = true,
    .in_place = true,
}};

static enum rk_status open_cpu(const struct rk_backend_host *host, const char *options, struct rk_device **device,
                               struct rk_error *error)
{
    (void)host;
    if (options[0] != '\0')
        return rk_error_set(error, RK_INVALID, "backend cpu takes no options; '%.100s' was given", options);
    *device = &cpu;
    return RK_OK;
}

static void close_cpu(struct rk_device *device)
{
    (void)device;
}

static const char *describe(const struct rk_device *device)
{
    (void)device;
    return rk_engine_describe();
}

static const struct rk_capabilities *capabilities(const struct rk_device *device)
{
    return &device->capabilities;
}

static enum rk_status load(struct rk_device *device, const struct rk_model *model,
                           const struct rk_load_options *options, struct rk_loaded **loaded, struct rk_error *error)
{
    (void)device;
    (void)options;
    *loaded = malloc(sizeof **loaded);
    if (*loaded == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    (*loaded)->model = model;
    return RK_OK;
}

static void unload(struct rk_loaded *loaded)
{
    free(loaded);
}

static enum rk_status create(struct rk_loaded *loaded, uint32_t max_batch, struct rk_runner **runner,
                             struct rk_error *error)
{
    struct rk_runner *created = malloc(sizeof *created);
    if (created == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    enum rk_status status = rk_engine_create(loaded->model, max_batch, &created->engine, error);
    if (status != RK_OK) {
        free(created);
        return status;
    }
    *runner = created;
    return RK_OK;
}

static void destroy(struct rk_runner *runner)
{
    if (runner == NULL)
        return;
    rk_engine_destroy(runner->engine);
    free(runner);
}

static enum rk_status run(struct rk_runner *runner, const struct rk_slice *slices, uint32_t num_slices,
                          struct rk_run_cost *cost, struct rk_error *error)
{
    const enum rk_status status = rk_engine_run(runner->engine, slices, num_slices, cost);
    if (status == RK_OK)
        return RK_OK;
    return rk_error_set(error, status,
                        status == RK_CORRUPT ? "files of the model were damaged while it was in use"
                                             : "a batch holds more candidates than the runner was made for");
}

const struct rk_backend rk_backend_cpu = {
    RK_BACKEND_COMPILED, .name = "cpu",        .open = open_cpu,
    .close = close_cpu,  .describe = describe, .capabilities = capabilities,
    .load = load,        .unload = unload,     .create = create,
    .destroy = destroy,  .run = run,
};
