/* rankd.v1.Ranking: from a request's bytes to a queued job, and from a settled job to the answer. One per event loop.
 */
#ifndef RANKD_SERVER_RANK_SERVICE_H
#define RANKD_SERVER_RANK_SERVICE_H

#include <stdint.h>

#include "server/counters.h"
#include "server/express.h"
#include "server/grpc/session.h"
#include "server/loop.h"
#include "server/priorities.h"
#include "server/queue.h"
#include "server/registry.h"

struct rk_rank_service {
    struct rk_loop *loop;
    const struct rk_registry *registry;
    struct rk_express *express;
    struct rk_queue *queue;
    const struct rk_priorities *priorities;
    struct rk_model_counters *models; /* [registry->num_models] */
    struct rk_request_limits limits;
    char pushback_ms[16]; /* the retry hint, as it is sent */
};

/* The service must outlive the sessions that have the method. */
struct rk_method rk_rank_service_method(struct rk_rank_service *service);

#endif
