/* Answers on the spot. "" and "rankd.v1.Ranking" serve unless the server drains or its device is lost; a model serves
 * unless it is damaged too. */
#include "server/health_service.h"

#include <string.h>

#include "proto/health.pb-c.h"
#include "proto/rank_codec.h"

#define ARENA_KEEP_BYTES 65536

static enum rk_status answer(struct rk_health_service *service, struct rk_call *call, const uint8_t *bytes,
                             size_t length, struct rk_error *error)
{
    ProtobufCMessage *decoded;
    enum rk_status status = rk_message_decode(&grpc__health__v1__health_check_request__descriptor, bytes, length,
                                              &service->arena, &decoded, error);
    if (status != RK_OK)
        return status;
    const char *name = ((Grpc__Health__V1__HealthCheckRequest *)decoded)->service;
    bool serving = !atomic_load_explicit(service->draining, memory_order_relaxed) &&
                   !atomic_load_explicit(&service->registry->compute->lost, memory_order_relaxed);
    if (name[0] != '\0' && strcmp(name, "rankd.v1.Ranking") != 0) {
        const struct rk_served_model *model = rk_registry_find(service->registry, name);
        if (model == NULL)
            return rk_error_set(
                error, RK_NOT_FOUND,
                "'%.128s' is neither a model nor a service here; ask for '', 'rankd.v1.Ranking' or a model", name);
        serving = serving && !rk_model_damaged(model->model);
    }
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                              : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
    uint8_t *encoded;
    size_t encoded_bytes;
    status = rk_message_encode(&response.base, &service->arena, &encoded, &encoded_bytes);
    return status == RK_OK ? rk_call_send(call, encoded, encoded_bytes) : status;
}

static void message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_health_service *service = argument;
    struct rk_error error = {0};
    enum rk_status status = answer(service, call, bytes, length, &error);
    rk_call_finish(call, rk_grpc_status_of(status), error.text[0] != '\0' ? error.text : NULL);
    rk_arena_reset(&service->arena, ARENA_KEEP_BYTES);
}

struct rk_method rk_health_service_method(struct rk_health_service *service)
{
    return (struct rk_method){.path = "/grpc.health.v1.Health/Check",
                              .kind = RK_METHOD_UNARY,
                              .message = message,
                              .service = service};
}
