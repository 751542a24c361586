/* From logits to a RankResponse, and its bytes as the request's protocol has them. */
#ifndef RANKD_SERVER_RANK_ANSWER_H
#define RANKD_SERVER_RANK_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "proto/rankd.pb-c.h"
#include "server/job.h"
#include "server/rank_order.h"
#include "server/rank_protocol.h"

/* What the Rank service keeps with a job (job->details). */
struct rk_rank_details {
    const struct rk_rank_protocol *protocol;
    void *extra;       /* the protocol's own */
    uint64_t start_us; /* when the request came; monotonic */
    Rankd__V1__RankRequest *message;
    struct rk_rank_order order;
    bool degraded;   /* the job has the first candidates alone */
    uint8_t *answer; /* the encoded response, once it is made */
    size_t answer_bytes;
    struct rk_error error; /* or why there is none */
};

/* Fills details->answer or details->error from the job's logits. Runs on the worker that settled the job, in the job's
 * arena. */
void rk_rank_answer(struct rk_job *job);

#endif
