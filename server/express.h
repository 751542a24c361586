/* The express lane: requests that cost less than a hand-over are scored on the event loop itself.
 *
 * Waking a worker and being woken by it takes tens of microseconds; a request of a few candidates on a small model
 * takes one or two. So an event loop gathers such requests while it goes through the sockets that are ready, and scores
 * all of them, in one batch per model, before it sleeps again. The sum is bounded (`budget_us` a turn), by what each
 * model was measured to cost at load; everything else goes to the workers. One per loop, its thread's
 * alone. */
#ifndef RANKD_SERVER_EXPRESS_H
#define RANKD_SERVER_EXPRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "server/job.h"
#include "server/registry.h"
#include "server/scorer.h"

struct rk_express;

/* budget_us 0: nothing is ever taken. The registry must outlive it. */
enum rk_status rk_express_create(const struct rk_registry *registry, uint64_t budget_us, struct rk_express **express,
                                 struct rk_error *error);
void rk_express_destroy(struct rk_express *express); /* NULL is allowed; it must be empty */

/* True: the filled job is taken, and settled by the next rk_express_run on this thread. */
bool rk_express_take(struct rk_express *express, struct rk_job *job);

/* May a request of so many candidates ever be taken? */
bool rk_express_may_take(const struct rk_express *express, const struct rk_served_model *model,
                         uint32_t num_candidates);

/* Scores what was taken. */
void rk_express_run(struct rk_express *express);

/* May be read by any thread. */
const struct rk_scorer_counters *rk_express_counters_of(const struct rk_express *express);

#endif
