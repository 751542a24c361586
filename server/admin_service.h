/* rankd.v1.Admin: what an operator asks. One per event loop. */
#ifndef RANKD_SERVER_ADMIN_SERVICE_H
#define RANKD_SERVER_ADMIN_SERVICE_H

#include "quant/base/arena.h"
#include "server/grpc/session.h"

struct rk_daemon;

struct rk_admin_service {
    const struct rk_daemon *daemon;
    struct rk_arena arena; /* of one call */
};

struct rk_method rk_admin_service_method(struct rk_admin_service *service);

#endif
