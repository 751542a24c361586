/* All services of one event loop, and the methods that its connections have. */
#ifndef RANKD_SERVER_SERVICES_H
#define RANKD_SERVER_SERVICES_H

#include <stddef.h>

#include "server/access_log.h"
#include "server/admin_service.h"
#include "server/health_service.h"
#include "server/inference_service.h"
#include "server/rank_service.h"
#include "server/rank_stream.h"
#include "server/reflection_service.h"

#define RK_MAX_METHODS        32
#define RK_MAX_SERVICES       16
#define RK_SERVICE_NAME_BYTES 64

struct rk_daemon;

struct rk_services {
    struct rk_rank_service rank;
    struct rk_rank_entry rank_entry, infer_entry, predict_entry;
    struct rk_rank_stream_service stream;
    struct rk_inference_service inference;
    struct rk_health_service health;
    struct rk_reflection_service reflection;
    struct rk_admin_service admin;
    struct rk_access_log *access_log; /* NULL: there is none */
    struct rk_method methods[RK_MAX_METHODS];
    size_t num_methods;
    const char *names[RK_MAX_SERVICES]; /* "rankd.v1.Ranking": of the services, each once */
    size_t num_names;
    char name_texts[RK_MAX_SERVICES][RK_SERVICE_NAME_BYTES];
};

/* The daemon's registry, queue and options stand; models: the loop's counters. The services must not move, and outlive
 * the sessions. RK_NO_MEMORY; deinit is due in every case. */
enum rk_status rk_services_init(struct rk_services *services, struct rk_daemon *daemon, struct rk_loop *loop,
                                struct rk_express *express, struct rk_model_counters *models, struct rk_error *error);
void rk_services_deinit(struct rk_services *services);

/* At the end of each turn of the loop, before output is written. */
void rk_services_turn(struct rk_services *services);

#endif
