/* Linear layers with packed weights: y = act(x W^T + b), in one of the dense formats (quant/dense.h).
 *
 * A layer is packed once, when its model is loaded, into the order in which this machine's kernels read it, and is
 * immutable from then on: any number of threads may run it. Every output element is one chain of operations in a fixed
 * order, the same on every instruction set and for every number of rows: a candidate's score does not depend on what
 * shares its batch.
 *
 * Packed layout, for all formats: panels of 16 output channels, each [groups][16 channels][4 bytes], where a group is
 * what 4 bytes of input hold: 1 float32, 2 bfloat16 or 4 bytes (quant/gemm.h, which also spells out the arithmetic). */
#ifndef RANKD_QUANT_LINEAR_H
#define RANKD_QUANT_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"
#include "quant/dense.h"

struct rk_linear;

/* A layer as a package stores it; read only while the layer is being packed. */
struct rk_linear_source {
    enum rk_dense_format format;
    uint32_t in, out;      /* int8: in <= RK_DENSE_INT8_MAX_IN */
    const void *weight;    /* [out][in] elements of the format */
    const float *scale;    /* int8: [out] */
    const float *gain;     /* int8: [in], or NULL: ones. Each input is multiplied by its gain before it is rounded */
    const float *bias;     /* [out], or NULL: zeros */
    const uint32_t *order; /* [columns]: column c of the input is multiplied by column order[c] of weight;
                              RK_LINEAR_NO_COLUMN by zero. NULL: columns = in, in their own order */
    uint32_t columns;
    const uint32_t *out_order; /* [out]: channel o of the output is row out_order[o] of weight, scale and bias. NULL: in
                                  their own order */
    bool calibrated;           /* int8: the inputs' range is fixed */
    float low, high;           /* low <= 0 <= high, low < high */
};
#define RK_LINEAR_NO_COLUMN UINT32_MAX

enum rk_status rk_linear_create(const struct rk_linear_source *source, struct rk_linear **linear,
                                struct rk_error *error);
void rk_linear_destroy(struct rk_linear *linear);

uint32_t rk_linear_columns(const struct rk_linear *linear); /* of the input */
uint32_t rk_linear_out(const struct rk_linear *linear);
enum rk_dense_format rk_linear_format(const struct rk_linear *linear);
size_t rk_linear_bytes(const struct rk_linear *linear); /* of memory held */

/* Rows of activations in the format of the layer that reads them. */
struct rk_matrix {
    void *values;     /* row r begins at values + r * row_bytes; 64-byte aligned */
    size_t row_bytes; /* a multiple of 64 that holds the columns; rk_matrix_row_bytes() is the fastest. Up to the next
                         multiple of 4 bytes, zeros lie past the last column */
    float *scales;    /* int8: [rows]; x = scales[r] * (q - zeros[r]). Unused for a calibrated layer */
    int32_t *zeros;   /* int8: [rows] */
    /* [rows]: where the sums of each row begin, in place of the layer's bias: at rk_linear_start_floats() floats, which
     * another layer wrote (what inputs that many rows share contribute). NULL: at the bias */
    const float *const *starts;
};
/* An odd number of 64 bytes: a layer reads a dozen rows at a time, which must not compete for the same cache sets. */
size_t rk_matrix_row_bytes(enum rk_dense_format format, uint32_t columns);

/* Brings float rows x[rows][columns], x_stride floats apart, into the format that `linear` reads. Fills the padding. */
void rk_linear_input(const struct rk_linear *linear, const float *x, size_t x_stride, uint32_t rows,
                     struct rk_matrix *to);

/* y = x W^T + b (in place of b each row's start, if x has them), with ReLU if asked (NaN stays NaN). `next` is the
 * layer that will read y: y is written in its format, columns in order, padding filled. With next NULL y is float32
 * with any row_bytes that is a multiple of 4 and nothing is padded. scratch: rk_linear_scratch_floats() floats per row,
 * 64-byte aligned. x, y and scratch must not overlap. */
void rk_linear_run(const struct rk_linear *linear, const struct rk_matrix *x, uint32_t rows, bool relu,
                   const struct rk_linear *next, float *scratch, struct rk_matrix *y);
size_t rk_linear_scratch_floats(const struct rk_linear *linear, const struct rk_linear *next);
/* Floats of a start: the outputs, and behind them as many as may be read along with them. */
size_t rk_linear_start_floats(const struct rk_linear *linear);

/* Asks for the first bytes of the packed weights to be brought into cache, before a batch reaches the layer. */
void rk_linear_prefetch(const struct rk_linear *linear);

#endif
