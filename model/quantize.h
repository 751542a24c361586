/* Quantising: a package in, the same model in other number formats out, by a plan. */
#ifndef RANKD_MODEL_QUANTIZE_H
#define RANKD_MODEL_QUANTIZE_H

#include "model/model.h"
#include "model/pack.h"
#include "model/plan.h"

/* What became of a table. Errors are |decoded - value| over all elements of the rows that stay. */
struct rk_quantized_table {
    uint64_t rows, kept; /* kept = rows where nothing was pruned */
    enum rk_row_format from, to;
    uint64_t bytes_before, bytes_after;
    double largest_error, mean_error;
};

struct rk_quantize_result {
    struct rk_quantized_table *tables; /* [num_tables of the model], in the arena */
    uint64_t bytes_before, bytes_after;
    uint64_t calibrated_rows;    /* candidates that the int8 layers' ranges come from; 0: ranges are dynamic */
    double largest_golden_error; /* |logit - the source's| over the golden requests */
    uint32_t num_golden;
};

struct rk_quantize_options {
    const char *model_dir, *output;
    const struct rk_plan *plan;
    const char *calibrate;                    /* JSON lines, or NULL */
    const struct rk_calibration *calibration; /* [num_heads] in place of the model's, or NULL */
    const struct rk_shard_limits *cut;        /* NULL: the source's shards, where rows are not pruned */
    rk_pack_progress_fn *progress;            /* may be NULL */
    void *progress_context;
};

/* Reads `model` (opened from model_dir), writes the package at `output`: complete or not at all. Rows are streamed, so
 * that memory stays bounded however large the model is. *result is filled in when RK_OK comes back. */
enum rk_status rk_quantize(const struct rk_model *model, const struct rk_quantize_options *options,
                           struct rk_arena *arena, struct rk_quantize_result *result, struct rk_error *error);

#endif
