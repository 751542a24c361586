/* Scoring calls: from a request's bytes to a queued job, and from a settled job to the answer; rankd.v1.Ranking/Rank,
 * and whatever else asks for scores (server/rank_protocol.h). One per event loop. */
#ifndef RANKD_SERVER_RANK_SERVICE_H
#define RANKD_SERVER_RANK_SERVICE_H

#include <stdint.h>

#include "server/counters.h"
#include "server/express.h"
#include "server/grpc/session.h"
#include "server/loop.h"
#include "server/memory_limit.h"
#include "server/priorities.h"
#include "server/queue.h"
#include "server/rank_protocol.h"
#include "server/registry.h"

struct rk_rank_service {
    struct rk_loop *loop;
    const struct rk_registry *registry;
    struct rk_express *express;
    struct rk_queue *queue;
    const struct rk_priorities *priorities;
    struct rk_model_counters *models; /* [registry->num_models] */
    struct rk_request_limits limits;
    struct rk_memory_limit *memory;
    uint32_t degraded_candidates; /* of a request that are ranked in an overload; 0: all */
};

extern const struct rk_rank_protocol rk_rank_protocol; /* a RankRequest and a RankResponse as they are */

/* A unary method. The entry must outlive the sessions that have it. */
struct rk_method rk_rank_entry_method(struct rk_rank_entry *entry, const char *path);

/* ---- for methods of their own kind (server/rank_stream.c) ---- */

struct rk_rank_refusal {
    struct rk_error error;     /* status and text for the caller */
    const char *pushback_ms;   /* NULL, or when it may try again */
    char pushback_ms_text[16]; /* what it points to */
};

/* Decodes, checks and queues. The job comes back by the protocol's `reply`, on this thread, in a later turn, unless it
 * is abandoned. NULL: refused. */
struct rk_job *rk_rank_begin(const struct rk_rank_entry *entry, struct rk_call *call, const uint8_t *bytes,
                             size_t length, struct rk_rank_refusal *refusal);

/* The client of a job that has begun has gone: there will be no reply. */
void rk_rank_abandon(struct rk_rank_service *service, struct rk_job *job);

#endif
