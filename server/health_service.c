/* "" and the services serve unless the server drains or its device is lost; a model serves unless it is damaged too.
 *
 * Nobody says when one of these changes. They are looked at after every turn of the loop, of which there is one at
 * least every second, one when the drain begins, and one when the request that found the damage is answered; watchers
 * are gone through only where the sum of them is another than before. */
#include "server/health_service.h"

#include <string.h>

#include "proto/health.pb-c.h"
#include "proto/rank_codec.h"
#include "server/connection.h"
#include "server/grpc/pool.h"

#define ARENA_KEEP_BYTES  65536
#define MOST_LISTED       100 /* as the protocol says */
#define MAX_MESSAGE_BYTES 8   /* of a HealthCheckResponse */

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;
#define SERVING         GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

/* What a name stands for. */
struct subject {
    bool known;
    const struct rk_served_model *model; /* NULL: the server */
};

/* A Watch call. */
struct rk_watcher {
    struct rk_watcher *next, *previous;
    struct rk_call *call;
    struct subject subject;
    serving_status told;
};

static struct subject find(const struct rk_health_service *service, const char *name)
{
    bool is_service = name[0] == '\0';
    for (size_t i = 0; i < *service->num_names && !is_service; i++)
        is_service = strcmp(service->names[i], name) == 0;
    if (is_service)
        return (struct subject){.known = true};
    const struct rk_served_model *model = rk_registry_find(service->serving.registry, name);
    return (struct subject){.known = model != NULL, .model = model};
}

static serving_status state_of(const struct rk_health_service *service, const struct subject *subject)
{
    if (!subject->known)
        return SERVICE_UNKNOWN;
    return rk_serving_is(&service->serving, subject->model) ? SERVING : NOT_SERVING;
}

static enum rk_status decode_name(struct rk_health_service *service, const uint8_t *bytes, size_t length,
                                  const char **name, struct rk_error *error)
{
    ProtobufCMessage *decoded;
    enum rk_status status = rk_message_decode(&grpc__health__v1__health_check_request__descriptor, bytes, length,
                                              &service->arena, &decoded, error);
    if (status == RK_OK)
        *name = ((Grpc__Health__V1__HealthCheckRequest *)decoded)->service;
    return status;
}

static enum rk_status send_message(struct rk_health_service *service, struct rk_call *call,
                                   const ProtobufCMessage *message)
{
    uint8_t *encoded;
    size_t encoded_bytes;
    enum rk_status status = rk_message_encode(message, &service->arena, &encoded, &encoded_bytes);
    return status == RK_OK ? rk_call_send(call, encoded, encoded_bytes) : status;
}

static enum rk_status send_state(struct rk_call *call, serving_status state)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    uint8_t encoded[MAX_MESSAGE_BYTES];
    response.status = state;
    return rk_call_send(call, encoded, protobuf_c_message_pack(&response.base, encoded));
}

static void finish(struct rk_health_service *service, struct rk_call *call, enum rk_status status,
                   const struct rk_error *error)
{
    rk_call_finish(call, rk_grpc_status_of(status), error->text[0] != '\0' ? error->text : NULL);
    rk_arena_reset(&service->arena, ARENA_KEEP_BYTES);
}

/* ---- Check ---- */

static enum rk_status check(struct rk_health_service *service, struct rk_call *call, const uint8_t *bytes,
                            size_t length, struct rk_error *error)
{
    const char *name;
    enum rk_status status = decode_name(service, bytes, length, &name, error);
    if (status != RK_OK)
        return status;
    const struct subject subject = find(service, name);
    if (!subject.known)
        return rk_error_set(error, RK_NOT_FOUND,
                            "'%.128s' is neither a model nor a service here; ask for '', 'rankd.v1.Ranking' or a model",
                            name);
    return send_state(call, state_of(service, &subject));
}

static void check_message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_health_service *service = argument;
    struct rk_error error = {0};
    finish(service, call, check(service, call, bytes, length, &error), &error);
}

/* ---- List ---- */

struct listed {
    Grpc__Health__V1__HealthListResponse__StatusesEntry entry;
    Grpc__Health__V1__HealthCheckResponse state;
};

static void list_one(const struct rk_health_service *service, Grpc__Health__V1__HealthListResponse *response,
                     struct listed *items, const char *name, const struct rk_served_model *model)
{
    struct listed *item = &items[response->n_statuses];
    grpc__health__v1__health_list_response__statuses_entry__init(&item->entry);
    grpc__health__v1__health_check_response__init(&item->state);
    item->state.status = state_of(service, &(struct subject){.known = true, .model = model});
    item->entry.key = (char *)name; /* the encoder only reads */
    item->entry.value = &item->state;
    response->statuses[response->n_statuses++] = &item->entry;
}

static enum rk_status list(struct rk_health_service *service, struct rk_call *call, const uint8_t *bytes, size_t length,
                           struct rk_error *error)
{
    const struct rk_registry *registry = service->serving.registry;
    const size_t count = 1 + *service->num_names + registry->num_models;
    ProtobufCMessage *request;
    enum rk_status status = rk_message_decode(&grpc__health__v1__health_list_request__descriptor, bytes, length,
                                              &service->arena, &request, error);
    if (status != RK_OK)
        return status;
    if (count > MOST_LISTED)
        return rk_error_set(error, RK_EXHAUSTED,
                            "there are %zu services and models, more than the %d that List may return; "
                            "use Check",
                            count, MOST_LISTED);
    Grpc__Health__V1__HealthListResponse response = GRPC__HEALTH__V1__HEALTH_LIST_RESPONSE__INIT;
    struct listed *items = rk_arena_array(&service->arena, count, sizeof *items);
    response.statuses = rk_arena_array(&service->arena, count, sizeof *response.statuses);
    if (items == NULL || response.statuses == NULL)
        return RK_NO_MEMORY;
    list_one(service, &response, items, "", NULL);
    for (size_t i = 0; i < *service->num_names; i++)
        list_one(service, &response, items, service->names[i], NULL);
    for (uint32_t i = 0; i < registry->num_models; i++)
        list_one(service, &response, items, registry->models[i].name, &registry->models[i]);
    return send_message(service, call, &response.base);
}

static void list_message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_health_service *service = argument;
    struct rk_error error = {0};
    finish(service, call, list(service, call, bytes, length, &error), &error);
}

/* ---- Watch ---- */

static void forget(struct rk_health_service *service, struct rk_watcher *watcher)
{
    if (watcher->previous != NULL)
        watcher->previous->next = watcher->next;
    else
        service->watchers = watcher->next;
    if (watcher->next != NULL)
        watcher->next->previous = watcher->previous;
    rk_pool_free(service->pool, watcher);
}

/* Sends the state where it is another than what was told before; false: the call has ended, and the watcher is gone. */
static bool tell(struct rk_health_service *service, struct rk_watcher *watcher)
{
    const serving_status state = state_of(service, &watcher->subject);
    if (state == watcher->told)
        return true;
    watcher->told = state;
    enum rk_status status = send_state(watcher->call, state);
    if (status == RK_OK)
        return true;
    struct rk_call *call = watcher->call;
    forget(service, watcher);
    rk_call_finish(call, rk_grpc_status_of(status), NULL);
    return false;
}

/* A watch has no end of its own: it ends with its connection, after the last word about what it watches. */
static void watch_leaving(void *argument, struct rk_call *call)
{
    struct rk_watcher *watcher = rk_call_data(call); /* NULL: it has not said yet what it watches */
    if (watcher != NULL && !tell(argument, watcher))
        return;
    if (watcher != NULL)
        forget(argument, watcher);
    rk_call_finish(call, RK_GRPC_UNAVAILABLE, "this connection is going away: watch on another");
}

static uint64_t look(const struct rk_health_service *service)
{
    const struct rk_registry *registry = service->serving.registry;
    uint64_t seen = rk_serving_is(&service->serving, NULL);
    for (uint32_t i = 0; i < registry->num_models; i++)
        seen += 2 * (uint64_t)rk_model_damaged(registry->models[i].model); /* damage stays */
    return seen;
}

static enum rk_status watch(struct rk_health_service *service, struct rk_call *call, const uint8_t *bytes,
                            size_t length, struct rk_error *error)
{
    const char *name;
    enum rk_status status = decode_name(service, bytes, length, &name, error);
    if (status != RK_OK)
        return status;
    struct rk_watcher *watcher = rk_pool_alloc(service->pool, sizeof *watcher);
    if (watcher == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the call");
    if (service->watchers == NULL)
        service->seen = look(service);
    *watcher = (struct rk_watcher){.next = service->watchers, .call = call, .subject = find(service, name)};
    if (watcher->next != NULL)
        watcher->next->previous = watcher;
    service->watchers = watcher;
    rk_call_set_data(call, watcher);
    /* Nothing was told yet: UNKNOWN is no state of ours. */
    if (tell(service, watcher) && atomic_load_explicit(service->serving.draining, memory_order_relaxed))
        watch_leaving(service, call);
    return RK_OK;
}

static void watch_message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_health_service *service = argument;
    struct rk_error error = {0};
    enum rk_status status = watch(service, call, bytes, length, &error);
    if (status != RK_OK)
        finish(service, call, status, &error);
    else
        rk_arena_reset(&service->arena, ARENA_KEEP_BYTES);
}

static void watch_cancelled(void *argument, struct rk_call *call)
{
    struct rk_watcher *watcher = rk_call_data(call);
    if (watcher != NULL)
        forget(argument, watcher);
}

void rk_health_service_turn(struct rk_health_service *service)
{
    if (service->watchers == NULL)
        return;
    const uint64_t seen = look(service);
    if (seen == service->seen)
        return;
    service->seen = seen;
    for (struct rk_watcher *watcher = service->watchers, *next; watcher != NULL; watcher = next) {
        next = watcher->next;
        rk_connection_touch(rk_grpc_session_owner(rk_call_session(watcher->call)));
        tell(service, watcher);
    }
}

void rk_health_service_methods(struct rk_health_service *service, struct rk_method *methods)
{
    methods[0] = (struct rk_method){.path = "/grpc.health.v1.Health/Check",
                                    .kind = RK_METHOD_UNARY,
                                    .message = check_message,
                                    .service = service};
    methods[1] = (struct rk_method){.path = "/grpc.health.v1.Health/List",
                                    .kind = RK_METHOD_UNARY,
                                    .message = list_message,
                                    .service = service};
    methods[2] = (struct rk_method){.path = "/grpc.health.v1.Health/Watch",
                                    .kind = RK_METHOD_SERVER_STREAM,
                                    .message = watch_message,
                                    .leaving = watch_leaving,
                                    .cancelled = watch_cancelled,
                                    .service = service};
}
