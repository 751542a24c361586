/* Importing: config.json and safetensors in, a package out. */
#ifndef RANKD_MODEL_IMPORT_H
#define RANKD_MODEL_IMPORT_H

#include "model/pack.h"

#define RK_IMPORT_GOLDEN 8u

struct rk_import_options {
    const char *config, *weights, *output; /* weights: a .safetensors file or a .safetensors.index.json */
    struct rk_shard_limits shards;
    const char *golden_requests; /* JSON lines whose first num_golden are used; NULL: made up from the config */
    const char *golden_scores;   /* the trainer's scores of these requests, which must be met; or NULL */
    uint32_t num_golden;
    rk_pack_progress_fn *progress;                 /* may be NULL */
    void (*warn)(void *context, const char *text); /* may be NULL */
    void *context;                                 /* of both */
};

/* What a zeroed struct should hold before the caller sets the rest. */
#define RK_IMPORT_OPTIONS_DEFAULT                                                                                      \
    ((struct rk_import_options){.shards = {.max_rows = UINT64_MAX, .max_bytes = RK_SHARD_BYTES},                       \
                                .num_golden = RK_IMPORT_GOLDEN})

enum rk_status rk_import(const struct rk_import_options *options, struct rk_error *error);

/* `count` made-up golden requests for a spec, in the arena. */
enum rk_status rk_import_make_golden(const struct rk_model_spec *spec, uint32_t count, struct rk_arena *arena,
                                     struct rk_named_request **requests, struct rk_error *error);

#endif
