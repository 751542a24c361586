/* Made-up requests for a model, the same for the same seed: golden requests where a trainer gave none, and load for
 * tests. */
#ifndef RANKD_MODEL_TRAFFIC_H
#define RANKD_MODEL_TRAFFIC_H

#include <stdint.h>

#include "model/request.h"

/* A stream of reproducible numbers (splitmix64). Any seed will do. */
struct rk_random {
    uint64_t state;
};
uint64_t rk_random_next(struct rk_random *random);
uint64_t rk_random_below(struct rk_random *random, uint64_t bound); /* bound > 0 */
float rk_random_uniform(struct rk_random *random, float low, float high);

struct rk_traffic_options {
    uint32_t num_candidates;
    const uint32_t *ids_per_bag; /* [num_features]; NULL: 0 to 3 ids, so that empty bags occur */
};

/* One request with uniformly distributed ids that are rows of their tables, everything in the arena. RK_NO_MEMORY. */
enum rk_status rk_traffic_request(const struct rk_model_spec *spec, const struct rk_traffic_options *options,
                                  struct rk_random *random, uint64_t number, struct rk_arena *arena,
                                  struct rk_named_request *request, struct rk_error *error);

#endif
