/* Server reflection, grpc.reflection.v1 and v1alpha: tells grpcurl and its kind which services there are and what their
 * messages look like. One per event loop. */
#ifndef RANKD_SERVER_REFLECTION_SERVICE_H
#define RANKD_SERVER_REFLECTION_SERVICE_H

#include <stddef.h>

#include "quant/base/arena.h"
#include "server/grpc/session.h"

#define RK_REFLECTION_METHODS 2

struct rk_reflection_service {
    const char *const *names; /* [*num_names] of the services that are served */
    const size_t *num_names;
    struct rk_arena arena; /* of one message */
};

/* ServerReflectionInfo under both names, into methods[RK_REFLECTION_METHODS]. */
void rk_reflection_service_methods(struct rk_reflection_service *service, struct rk_method *methods);

#endif
