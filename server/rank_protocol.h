/* The ways to ask for scores. Each turns its request into a RankRequest and the RankResponse into its answer; all that
 * lies between is the same for all of them (server/rank_service.h). */
#ifndef RANKD_SERVER_RANK_PROTOCOL_H
#define RANKD_SERVER_RANK_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#include "proto/rank_peek.h"
#include "proto/rankd.pb-c.h"
#include "server/job.h"

struct rk_rank_protocol;
struct rk_rank_service;

/* A protocol, and on whose behalf it is spoken. */
struct rk_rank_entry {
    struct rk_rank_service *service;
    const struct rk_rank_protocol *protocol;
    void *context; /* the protocol's own */
};

struct rk_rank_protocol {
    /* On the loop: what must be known of a message to refuse it undecoded; NULL: it has to be decoded. */
    bool (*peek)(const uint8_t *bytes, size_t length, struct rk_rank_peek *peek);

    /* Its answer can say that only the first candidates were ranked. */
    bool can_degrade;

    /* On the loop: fills details->message in the job's arena, and details->extra with what the answer will need. The
     * job has its call and the call's deadline, which may be brought forward. Errors name the field and the value. */
    enum rk_status (*decode)(const struct rk_rank_entry *entry, struct rk_job *job, const uint8_t *bytes, size_t length,
                             struct rk_error *error);

    /* On the thread that settled the job: encodes into its arena. A response of costs alone may follow the first one:
     * both are sent as one message, so that the second must merge into it. */
    enum rk_status (*encode)(struct rk_job *job, const Rankd__V1__RankResponse *response, uint8_t **bytes,
                             size_t *length);

    /* On the loop, while the client is there: passes on details->answer, or why there is none; returns what became of
     * it. NULL: the call is unary, and ends. The job is released afterwards. */
    enum rk_status (*reply)(struct rk_job *job, enum rk_status status, const char *text);
};

#endif
