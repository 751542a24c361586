/* inference.GRPCInferenceService but for ModelInfer (server/inference_protocol.h): what clients of the Open Inference
 * Protocol ask before and beside it. One per event loop. */
#ifndef RANKD_SERVER_INFERENCE_SERVICE_H
#define RANKD_SERVER_INFERENCE_SERVICE_H

#include "quant/base/arena.h"
#include "server/grpc/session.h"
#include "server/inference_protocol.h"
#include "server/serving.h"

struct rk_daemon;
struct rk_inference_row;
struct rk_inference_service;

#define RK_INFERENCE_METHODS 10

/* A method and whose it is. */
struct rk_inference_entry {
    struct rk_inference_service *service;
    const struct rk_inference_row *row;
};

struct rk_inference_service {
    const struct rk_daemon *daemon; /* whose loops' stats are summed up */
    struct rk_serving serving;
    struct rk_inference_stats *stats; /* [models] this loop's */
    struct rk_arena arena;            /* of one call */
    struct rk_inference_entry entries[RK_INFERENCE_METHODS];
};

/* All but ModelInfer, into methods[RK_INFERENCE_METHODS]. */
void rk_inference_service_methods(struct rk_inference_service *service, struct rk_method *methods);

#endif
