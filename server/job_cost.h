/* Where the time of a job went, for a caller who asked (RankRequest.include_costs). */
#ifndef RANKD_SERVER_JOB_COST_H
#define RANKD_SERVER_JOB_COST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/batch.h"

/* Lies in the job's arena; all zero but for what the loop sets before the job is queued. Workers add to the rest before
 * they settle their slices. */
struct rk_job_cost {
    uint64_t start_ns, queued_ns; /* when the call's headers were read; when the job was ready to be queued */
    _Atomic uint64_t begun_ns;    /* when the first batch with a slice of it went to an engine; 0: none did */
    _Atomic uint64_t lookup_ns, interaction_ns, towers_ns, rest_ns; /* of all these batches, whole */
    _Atomic uint64_t batches, batch_candidates;                     /* how many, with how many candidates */
};

/* Does any job of the batch ask? */
bool rk_batch_wants_cost(const struct rk_batch *batch);

/* Adds a run of the batch, begun at begun_ns, to every job that asks, to each once: several slices of a job stand
 * together in a batch. Before the batch is settled. */
void rk_batch_add_cost(const struct rk_batch *batch, uint64_t begun_ns, const struct rk_run_cost *cost);

#endif
