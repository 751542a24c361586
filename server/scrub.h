/* The scrubber: a slow background thread that hashes the served files again and again, so that damage done to them in
 * place is found before many wrong scores have left. */
#ifndef RANKD_SERVER_SCRUB_H
#define RANKD_SERVER_SCRUB_H

#include <stdint.h>

#include "server/registry.h"

struct rk_scrub;

/* Starts a pass every interval_s seconds. The registry must outlive the thread. */
enum rk_status rk_scrub_start(const struct rk_registry *registry, uint32_t interval_s, uint32_t rate_mib_s,
                              struct rk_scrub **scrub, struct rk_error *error);

/* Ends the thread, in the middle of a pass if need be. NULL is allowed. */
void rk_scrub_stop(struct rk_scrub *scrub);

#endif
