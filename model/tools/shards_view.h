/* A model's rows on shards, as rankpack inspect --plan shows them: text with bars, JSON, a picture. */
#ifndef RANKD_MODEL_TOOLS_SHARDS_VIEW_H
#define RANKD_MODEL_TOOLS_SHARDS_VIEW_H

#include <jansson.h>

#include "model/model_shards.h"
#include "model/tools/cli.h"

struct shards_view {
    const struct rk_model_spec *spec;
    struct rk_placement placement;
    uint64_t capacity_bytes;   /* 0: none was given */
    double candidates;         /* per request */
    double *ids_per_bag;       /* [num_features] */
    uint64_t sampled_requests; /* that both were counted in; 0: assumed */
    double load;               /* of all shards */
};

/* Plans as --shards, --capacity, --candidates and --requests say, with ids_per_feature ids in every bag where there are
 * no requests. EXIT_FINE, or the code to end with after it has complained. */
int shards_view_init(struct shards_view *view, const struct cli_arguments *arguments, const struct rk_model_spec *spec,
                     double ids_per_feature);
void shards_view_deinit(struct shards_view *view);

void shards_view_print(const struct shards_view *view);
json_t *shards_view_json(const struct shards_view *view);
enum rk_status shards_view_plot(const struct shards_view *view, const char *path, struct rk_error *error);

#endif
