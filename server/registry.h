/* The models that this process serves: what was found in the repository at start. Immutable once opened. */
#ifndef RANKD_SERVER_REGISTRY_H
#define RANKD_SERVER_REGISTRY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "model/model.h"
#include "quant/base/status.h"
#include "server/compute.h"
#include "server/cost_curve.h"

struct rk_served_model {
    char name[RK_MAX_NAME_BYTES + 1]; /* of its directory */
    int64_t version;
    uint32_t index; /* its place in the registry: also of its queue, engines and counters */
    struct rk_model *model;
    struct rk_loaded *loaded; /* in the backend's device */
    const struct rk_model_spec *spec;
    struct rk_cost_curve cost; /* what its batches take; all zero until rk_cost_measure() */
};

struct rk_registry {
    struct rk_compute *compute;
    struct rk_row_options rows;     /* as every model is opened with */
    struct rk_shard_use *shards;    /* [rows.limits.num_shards] what all models together put there */
    struct rk_served_model *models; /* by name */
    uint32_t num_models;
    char **problems; /* everything that was found wrong, one line each */
    size_t num_problems;
};

/* Scans path/<model>/<version>/, opens the highest version of each model that loads and loads it into the backend,
 * which must outlive the registry; `rows` says where rows lie, its `used` is the registry's to fill in. A version that
 * does not load becomes a problem and the next lower one is tried. Versions are decimal numbers from 1 without leading
 * zeros; names that start with '.' are skipped; symbolic links are refused, so that what is served is what stands
 * there. Long loads and problems are logged. Fails when the directory cannot be read, or with RK_NOT_FOUND when nothing
 * in it can be served; the registry then still holds the problems. Close it in every case. */
enum rk_status rk_registry_open(const char *path, struct rk_compute *compute, const struct rk_row_options *rows,
                                struct rk_registry *registry, struct rk_error *error);
void rk_registry_close(struct rk_registry *registry);

/* NULL when it is not served. */
const struct rk_served_model *rk_registry_find(const struct rk_registry *registry, const char *name);

/* "steam version 1, dot version 3": what a caller who asked for something else is told. */
void rk_registry_list(const struct rk_registry *registry, char *text, size_t capacity);

/* What is served and what it was measured to cost, for --check. */
void rk_registry_print(const struct rk_registry *registry, FILE *stream);

#endif
