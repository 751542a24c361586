/* grpc.health.v1.Health/Check: is the server, the Ranking service, or one model being served? One per event loop. */
#ifndef RANKD_SERVER_HEALTH_SERVICE_H
#define RANKD_SERVER_HEALTH_SERVICE_H

#include <stdatomic.h>

#include "server/grpc/session.h"
#include "server/registry.h"

struct rk_health_service {
    const struct rk_registry *registry;
    const atomic_bool *draining;
    struct rk_arena arena; /* of one call */
};

struct rk_method rk_health_service_method(struct rk_health_service *service);

#endif
