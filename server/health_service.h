/* grpc.health.v1.Health: are the server, its services and each model being served, now and from now on? One per event
 * loop. */
#ifndef RANKD_SERVER_HEALTH_SERVICE_H
#define RANKD_SERVER_HEALTH_SERVICE_H

#include <stdint.h>

#include "server/grpc/session.h"
#include "server/serving.h"

struct rk_pool;
struct rk_watcher;

#define RK_HEALTH_METHODS 3

struct rk_health_service {
    struct rk_serving serving;
    const char *const *names; /* [num_names] of the services, for which the server's state stands */
    const size_t *num_names;
    struct rk_pool *pool;  /* the loop's: watchers lie in it */
    struct rk_arena arena; /* of one call */
    struct rk_watcher *watchers;
    uint64_t seen; /* what the states depend on, as it was when the watchers were last told */
};

/* Check, List and Watch, into methods[RK_HEALTH_METHODS]. */
void rk_health_service_methods(struct rk_health_service *service, struct rk_method *methods);

/* Tells watchers what has changed. At the end of each turn of the loop; costs next to nothing where nothing has. */
void rk_health_service_turn(struct rk_health_service *service);

#endif
