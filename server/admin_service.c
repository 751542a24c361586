/* GetStatus: sums the counters of all threads as they are at this moment. */
#include "server/admin_service.h"

#include "proto/rank_codec.h"
#include "server/clock.h"
#include "server/daemon.h"

#define ARENA_KEEP_BYTES 65536

static bool name_values(const struct rk_model_spec *spec, struct rk_arena *arena, Rankd__V1__ModelStatus *status)
{
    status->value_models = rk_arena_array(arena, spec->num_value_models, sizeof *status->value_models);
    if (status->value_models == NULL)
        return false;
    for (uint32_t v = 0; v < spec->num_value_models; v++)
        status->value_models[status->n_value_models++] = (char *)spec->value_models[v].name;
    if (spec->default_value != NULL)
        status->default_value_model = (char *)spec->default_value->name;
    return true;
}

static enum rk_status add_models(const struct rk_daemon *daemon, struct rk_arena *arena,
                                 Rankd__V1__StatusResponse *response)
{
    uint32_t count = daemon->registry.num_models;
    Rankd__V1__ModelStatus *models = rk_arena_array(arena, count, sizeof *models);
    response->models = rk_arena_array(arena, count, sizeof *response->models);
    if (models == NULL || response->models == NULL)
        return RK_NO_MEMORY;
    response->n_models = count;
    for (uint32_t i = 0; i < count; i++) {
        const struct rk_served_model *served = &daemon->registry.models[i];
        const bool damaged = rk_model_damaged(served->model), lost = atomic_load(&daemon->registry.compute->lost);
        rankd__v1__model_status__init(&models[i]);
        models[i].name = (char *)served->name; /* the encoder only reads */
        models[i].version = served->version;
        models[i].state = damaged ? "damaged" : lost ? "unavailable" : "serving";
        models[i].detail = damaged ? "its files changed while they were served; publish it anew and restart"
                           : lost  ? "the backend's device is lost; restart rankd"
                                   : "";
        models[i].bytes = rk_model_bytes(served->model);
        models[i].heads = (char **)served->spec->heads;
        models[i].n_heads = served->spec->num_heads;
        if (!name_values(served->spec, arena, &models[i]))
            return RK_NO_MEMORY;
        models[i].cost = rk_arena_alloc(arena, RK_COST_TEXT_BYTES);
        if (models[i].cost == NULL)
            return RK_NO_MEMORY;
        rk_cost_curve_format(&served->cost, models[i].cost, RK_COST_TEXT_BYTES);
        for (uint32_t l = 0; l < daemon->num_loops; l++) {
            models[i].requests += rk_counter_read(&daemon->loops[l].models[i].requests);
            models[i].candidates += rk_counter_read(&daemon->loops[l].models[i].candidates);
            models[i].out_of_range_ids += rk_counter_read(&daemon->loops[l].models[i].out_of_range_ids);
        }
        response->models[i] = &models[i];
    }
    return RK_OK;
}

static void add_batches(const struct rk_scorer_counters *counters, Rankd__V1__StatusResponse *response)
{
    response->batches += rk_counter_read(&counters->batches);
    response->batched_candidates += rk_counter_read(&counters->candidates);
    response->batched_requests += rk_counter_read(&counters->slices);
}

static void add_counters(const struct rk_daemon *daemon, Rankd__V1__StatusResponse *response)
{
    response->connections = rk_daemon_num_connections(daemon);
    for (uint32_t i = 0; i < daemon->num_loops; i++) {
        const struct rk_loop_counters *counters = &daemon->loops[i].loop->counters;
        response->requests += rk_counter_read(&counters->requests);
        response->request_errors += rk_counter_read(&counters->request_errors);
        response->computed_late += rk_counter_read(&counters->computed_late);
        response->degraded += rk_counter_read(&counters->degraded);
        add_batches(rk_express_counters_of(daemon->loops[i].express), response);
        if (daemon->loops[i].services.access_log != NULL)
            response->access_log_lost += rk_counter_read(&daemon->loops[i].services.access_log->lost);
    }
    for (uint32_t i = 0; i < daemon->num_workers; i++)
        add_batches(rk_worker_counters_of(daemon->workers[i]), response);
}

static uint64_t num_refused(const struct rk_daemon *daemon, enum rk_refusal_reason reason)
{
    uint64_t count = rk_queue_num_refused(daemon->queue, reason);
    for (uint32_t l = 0; reason == RK_REFUSED_MEMORY && l < daemon->num_loops; l++)
        count += rk_counter_read(&daemon->loops[l].loop->counters.refused_for_memory);
    return count;
}

/* Every reason, also those that none was refused for; the classes that are overloaded. */
static enum rk_status add_overload(const struct rk_daemon *daemon, struct rk_arena *arena,
                                   Rankd__V1__StatusResponse *response)
{
    Rankd__V1__RefusalCount *counts = rk_arena_array(arena, RK_NUM_REFUSAL_REASONS, sizeof *counts);
    response->refusals = rk_arena_array(arena, RK_NUM_REFUSAL_REASONS, sizeof *response->refusals);
    response->overloaded = rk_arena_array(arena, RK_MAX_PRIORITIES, sizeof *response->overloaded);
    if (counts == NULL || response->refusals == NULL || response->overloaded == NULL)
        return RK_NO_MEMORY;
    for (uint32_t reason = RK_NOT_REFUSED + 1; reason < RK_NUM_REFUSAL_REASONS; reason++) {
        Rankd__V1__RefusalCount *count = &counts[response->n_refusals];
        rankd__v1__refusal_count__init(count);
        count->reason = (char *)rk_refusal_name(reason); /* the encoder only reads */
        count->count = num_refused(daemon, reason);
        response->refusals[response->n_refusals++] = count;
    }
    for (uint32_t c = 0; c < daemon->priorities.count; c++)
        if (rk_queue_overloaded(daemon->queue, c))
            response->overloaded[response->n_overloaded++] = (char *)daemon->priorities.classes[c].name;
    return RK_OK;
}

static enum rk_status answer(struct rk_admin_service *service, struct rk_call *call, const uint8_t *bytes,
                             size_t length, struct rk_error *error)
{
    const struct rk_daemon *daemon = service->daemon;
    ProtobufCMessage *request;
    enum rk_status status =
        rk_message_decode(&rankd__v1__status_request__descriptor, bytes, length, &service->arena, &request, error);
    if (status != RK_OK)
        return status;
    Rankd__V1__StatusResponse response = RANKD__V1__STATUS_RESPONSE__INIT;
    response.build = RANKD_VERSION;
    response.uptime_s = (rk_clock_us() - daemon->started_us) / 1000000u;
    response.backend = (char *)daemon->registry.compute->description;
    response.workers = daemon->num_workers;
    response.event_loops = daemon->num_loops;
    response.queued = rk_queue_num_jobs(daemon->queue);
    response.late = rk_queue_num_late(daemon->queue);
    add_counters(daemon, &response);
    status = add_models(daemon, &service->arena, &response);
    if (status == RK_OK)
        status = add_overload(daemon, &service->arena, &response);
    if (status != RK_OK)
        return status;
    uint8_t *encoded;
    size_t encoded_bytes;
    status = rk_message_encode(&response.base, &service->arena, &encoded, &encoded_bytes);
    return status == RK_OK ? rk_call_send(call, encoded, encoded_bytes) : status;
}

static void message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_admin_service *service = argument;
    struct rk_error error = {0};
    enum rk_status status = answer(service, call, bytes, length, &error);
    rk_call_finish(call, rk_grpc_status_of(status), error.text[0] != '\0' ? error.text : NULL);
    rk_arena_reset(&service->arena, ARENA_KEEP_BYTES);
}

struct rk_method rk_admin_service_method(struct rk_admin_service *service)
{
    return (struct rk_method){.path = "/rankd.v1.Admin/GetStatus",
                              .kind = RK_METHOD_UNARY,
                              .message = message,
                              .service = service};
}
