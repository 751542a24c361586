/* From logits to the bytes of a RankResponse. */
#ifndef RANKD_SERVER_RANK_ANSWER_H
#define RANKD_SERVER_RANK_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "proto/rankd.pb-c.h"
#include "server/job.h"
#include "server/rank_order.h"

/* What the Rank service keeps with a job (job->details). */
struct rk_rank_details {
    Rankd__V1__RankRequest *message;
    struct rk_rank_order order;
    uint8_t *answer; /* the encoded response, once it is made */
    size_t answer_bytes;
    struct rk_error error; /* or why there is none */
};

/* Fills details->answer or details->error from the job's logits. Runs on the worker that settled the job, in the job's
 * arena. */
void rk_rank_answer(struct rk_job *job);

#endif
