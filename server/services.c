/* Who is there. A service adds its methods to the list; what it is called is read off their paths. Before the loop's
 * thread starts, but for rk_services_turn. */
#include "server/services.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/daemon.h"
#include "server/predictor_protocol.h"

#define ARENA_CHUNK_BYTES 4096

static void init_rank(struct rk_services *services, struct rk_daemon *daemon, struct rk_loop *loop,
                      struct rk_express *express, struct rk_model_counters *models)
{
    const struct rk_options *options = &daemon->options;
    services->rank = (struct rk_rank_service){
        .loop = loop,
        .express = express,
        .registry = &daemon->registry,
        .queue = daemon->queue,
        .priorities = &daemon->priorities,
        .models = models,
        .limits = {.max_candidates = (uint32_t)options->max_candidates, .max_ids = options->max_ids},
        .memory = &daemon->memory,
        .degraded_candidates = (uint32_t)options->degraded_candidates,
    };
    services->rank_entry = (struct rk_rank_entry){.service = &services->rank, .protocol = &rk_rank_protocol};
}

/* "/package.Service/Method" -> "package.Service" */
static void name_services(struct rk_services *services)
{
    for (size_t i = 0; i < services->num_methods; i++) {
        const char *name = services->methods[i].path + 1;
        const int length = (int)(strchr(name, '/') - name);
        char *text = services->name_texts[services->num_names];
        assert(services->num_names < RK_MAX_SERVICES && length < RK_SERVICE_NAME_BYTES);
        snprintf(text, RK_SERVICE_NAME_BYTES, "%.*s", length, name);
        size_t known = 0;
        while (known < services->num_names && strcmp(services->names[known], text) != 0)
            known++;
        if (known == services->num_names)
            services->names[services->num_names++] = text;
    }
}

static size_t add_health(struct rk_services *services, const struct rk_serving *serving, struct rk_pool *pool,
                         struct rk_method *methods)
{
    services->health = (struct rk_health_service){.serving = *serving,
                                                  .names = services->names,
                                                  .num_names = &services->num_names,
                                                  .pool = pool};
    rk_arena_init(&services->health.arena, ARENA_CHUNK_BYTES);
    rk_health_service_methods(&services->health, methods);
    return RK_HEALTH_METHODS;
}

static size_t add_reflection(struct rk_services *services, struct rk_method *methods)
{
    services->reflection = (struct rk_reflection_service){.names = services->names, .num_names = &services->num_names};
    rk_arena_init(&services->reflection.arena, ARENA_CHUNK_BYTES);
    rk_reflection_service_methods(&services->reflection, methods);
    return RK_REFLECTION_METHODS;
}

static size_t add_admin(struct rk_services *services, const struct rk_daemon *daemon, struct rk_method *methods)
{
    services->admin = (struct rk_admin_service){.daemon = daemon};
    rk_arena_init(&services->admin.arena, ARENA_CHUNK_BYTES);
    methods[0] = rk_admin_service_method(&services->admin);
    return 1;
}

static size_t add_inference(struct rk_services *services, const struct rk_daemon *daemon,
                            const struct rk_serving *serving, struct rk_inference_stats *stats,
                            struct rk_method *methods)
{
    services->inference = (struct rk_inference_service){.daemon = daemon, .serving = *serving, .stats = stats};
    rk_arena_init(&services->inference.arena, ARENA_CHUNK_BYTES);
    rk_inference_service_methods(&services->inference, methods);
    services->infer_entry =
        (struct rk_rank_entry){.service = &services->rank, .protocol = &rk_inference_protocol, .context = stats};
    methods[RK_INFERENCE_METHODS] =
        rk_rank_entry_method(&services->infer_entry, "/inference.GRPCInferenceService/ModelInfer");
    return RK_INFERENCE_METHODS + 1;
}

static size_t add_rank(struct rk_services *services, const struct rk_options *options, struct rk_method *methods)
{
    services->stream = (struct rk_rank_stream_service){.entry.service = &services->rank,
                                                       .max_in_work = (uint32_t)options->max_stream_requests};
    services->predict_entry = (struct rk_rank_entry){.service = &services->rank,
                                                     .protocol = &rk_predictor_protocol,
                                                     .context = (void *)options->predictor_model}; /* only read */
    methods[0] = rk_rank_entry_method(&services->rank_entry, "/rankd.v1.Ranking/Rank");
    methods[1] = rk_rank_stream_method(&services->stream);
    methods[2] = rk_rank_entry_method(&services->predict_entry, "/predictor.Predictor/Predict");
    return 3;
}

/* Tells the loop's sessions to write down each call. */
static enum rk_status add_access_log(struct rk_services *services, const struct rk_access_log_config *config,
                                     struct rk_loop *loop, struct rk_error *error)
{
    if (config->sink.fd < 0)
        return RK_OK;
    services->access_log = calloc(1, sizeof *services->access_log);
    if (services->access_log == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make an event loop: out of memory");
    services->access_log->config = config;
    loop->grpc.finished = rk_access_log_finished;
    loop->grpc.access_log = services->access_log;
    return RK_OK;
}

enum rk_status rk_services_init(struct rk_services *services, struct rk_daemon *daemon, struct rk_loop *loop,
                                struct rk_express *express, struct rk_model_counters *models, struct rk_error *error)
{
    struct rk_method *methods = services->methods;
    const struct rk_serving serving = {.registry = &daemon->registry, .draining = &daemon->draining};
    struct rk_inference_stats *stats = calloc(daemon->registry.num_models, sizeof *stats);
    if (stats == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make an event loop: out of memory");

    init_rank(services, daemon, loop, express, models);
    size_t count = 0;
    count += add_rank(services, &daemon->options, methods + count);
    count += add_health(services, &serving, loop->pool, methods + count);
    count += add_inference(services, daemon, &serving, stats, methods + count);
    count += add_reflection(services, methods + count);
    count += add_admin(services, daemon, methods + count);
    assert(count <= RK_MAX_METHODS);
    services->num_methods = count;
    name_services(services);
    return add_access_log(services, &daemon->access_log, loop, error);
}

void rk_services_deinit(struct rk_services *services)
{
    rk_arena_deinit(&services->health.arena);
    rk_arena_deinit(&services->admin.arena);
    rk_arena_deinit(&services->reflection.arena);
    rk_arena_deinit(&services->inference.arena);
    if (services->access_log != NULL)
        rk_access_log_flush(services->access_log);
    free(services->access_log);
    free(services->inference.stats);
}

void rk_services_turn(struct rk_services *services)
{
    rk_health_service_turn(&services->health);
    if (services->access_log != NULL)
        rk_access_log_flush(services->access_log);
}
