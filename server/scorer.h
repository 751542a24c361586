/* What a thread needs to score batches: a runner of the backend per model, one batch, counters. Each compute worker has
 * one, and each event loop has a small one (server/express.h). Nothing in it is shared, and nothing allocates once it
 * is made. */
#ifndef RANKD_SERVER_SCORER_H
#define RANKD_SERVER_SCORER_H

#include <stdint.h>

#include "server/batch.h"
#include "server/counters.h"
#include "server/registry.h"

struct rk_scorer;

/* The registry must outlive the scorer. max_batch: candidates. */
enum rk_status rk_scorer_create(const struct rk_registry *registry, uint32_t max_batch, struct rk_scorer **scorer,
                                struct rk_error *error);
void rk_scorer_destroy(struct rk_scorer *scorer); /* NULL is allowed */

/* To be filled with jobs of one model. */
struct rk_batch *rk_scorer_batch(struct rk_scorer *scorer);

/* Scores the batch and settles what is in it, the dropped jobs first. */
void rk_scorer_run(struct rk_scorer *scorer, uint32_t model);

/* Scores slices that belong to no job, at most max_batch candidates: to measure what the model costs. cost may be NULL.
 */
enum rk_status rk_scorer_try(struct rk_scorer *scorer, uint32_t model, const struct rk_slice *slices,
                             uint32_t num_slices, struct rk_run_cost *cost, struct rk_error *error);

/* May be read by any thread. */
const struct rk_scorer_counters *rk_scorer_counters_of(const struct rk_scorer *scorer);

#endif
