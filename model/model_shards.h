/* The rows of a model on shards: what is planned from its spec, and the shards of an open model. */
#ifndef RANKD_MODEL_MODEL_SHARDS_H
#define RANKD_MODEL_MODEL_SHARDS_H

#include <stdbool.h>
#include <stdint.h>

#include "embeddings/placement.h"
#include "embeddings/shard.h"
#include "model/spec.h"

/* What a request reads, on average. */
struct rk_row_traffic {
    double candidates;         /* per request; 0: RK_USUAL_CANDIDATES */
    const double *ids_per_bag; /* [num_features]; NULL: one id per bag */
};
#define RK_USUAL_CANDIDATES 256

/* Plans a checked spec's rows. Item t of the placement is table t; the lists of kept rows, which cannot be cut, follow
 * as rk_model_kept_item says. Errors as rk_placement_plan. */
enum rk_status rk_model_plan_rows(const struct rk_model_spec *spec, const struct rk_row_traffic *traffic,
                                  const struct rk_placement_limits *limits, struct rk_placement *placement,
                                  struct rk_error *error);

/* The item of a pruned table's list of kept rows. */
uint32_t rk_model_kept_item(const struct rk_model_spec *spec, uint32_t table);

/* Which table an item belongs to. */
uint32_t rk_model_item_table(const struct rk_model_spec *spec, uint32_t item);

/* Shards with room for what a placement puts on them, over the NUMA nodes in turn where there are several. RK_EXHAUSTED
 * when they take more memory than there is. */
struct rk_model_shards {
    struct rk_placement placement;
    struct rk_shard **shards; /* [placement.num_shards]; NULL: none */
};
enum rk_status rk_model_shards_init(struct rk_model_shards *shards, const struct rk_model_spec *spec,
                                    const struct rk_placement_limits *limits, struct rk_error *error);
void rk_model_shards_deinit(struct rk_model_shards *shards); /* zeroed ones, too */

#endif
