/* Made-up models of any shape, for load tests and benchmarks: deterministic, and with scores of ordinary size. */
#ifndef RANKD_MODEL_SYNTH_H
#define RANKD_MODEL_SYNTH_H

#include "model/pack.h"
#include "model/traffic.h"

struct rk_synth_table {
    const char *name;
    uint64_t rows;
    uint32_t dim;
    uint32_t ids_per_bag; /* of the feature that reads it, in requests */
};

struct rk_synth_options {
    const char *name;                    /* the model's */
    const struct rk_synth_table *tables; /* one feature each */
    uint32_t num_tables;
    uint32_t num_context_features;         /* the first so many features are the context's */
    uint32_t num_context_dense, num_dense; /* of num_dense inputs, the first so many are the context's */
    const uint32_t *bottom;                /* output widths, [num_bottom] */
    uint32_t num_bottom;
    const uint32_t *top; /* output widths without the last layer, whose width is num_heads */
    uint32_t num_top, num_heads;
    struct rk_interaction_spec interaction; /* without cross layers' tensors */
    bool weighted;                          /* the context's features carry weights */
    enum rk_row_format row_format;          /* fp32, fp16, bf16, int8, int4 or int2 */
    uint64_t seed;
    struct rk_shard_limits shards;
    const char *output;
    rk_pack_progress_fn *progress; /* may be NULL */
    void *progress_context;
};

/* Writes the package. RK_INVALID when the shapes do not fit together. */
enum rk_status rk_synth(const struct rk_synth_options *options, struct rk_error *error);

/* Prints `count` requests of num_candidates each for it. */
enum rk_status rk_synth_requests(const struct rk_synth_options *options, uint64_t count, uint32_t num_candidates,
                                 FILE *stream, struct rk_error *error);

/* A shape by name, filled into the options: "dlrm-26x128", "mlperf-dlrm-dcnv2". Static storage. */
bool rk_synth_shape(const char *name, struct rk_synth_options *options);
const char *const *rk_synth_shape_names(void); /* NULL ends the list */

/* What the top MLP reads. */
uint64_t rk_synth_top_in(const struct rk_synth_options *options);

#endif
