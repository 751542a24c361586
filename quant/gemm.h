/* The arithmetic of packed linear layers (quant/linear.h): rows of activations times panels of weights, and what
 * happens to each sum before it is stored.
 *
 * A group is what 4 bytes of input hold. Panels of RK_GEMM_CHANNELS output channels lie panel_bytes apart, each
 * [groups][channels][4 bytes], 64-byte aligned; channels past `out` and inputs past the last one are zeros.
 *
 * One chain of operations per output element, in every variant:
 *
 *   fp32  sum = +0; for groups k ascending: sum = fmaf(x[k], w[k], sum); y = sum + bias
 *   bf16  sum = +0; for groups k ascending: sum = rk_bf16_dot(sum, x[k], w[k]); y = sum + bias
 *   int8  sum of q * w, exact; y = fmaf((float)(sum - zero * weight_sum), x_scale * scale, bias)
 *         |sum - zero * weight_sum| = |sum of (q - zero) * w| <= RK_DENSE_INT8_MAX_IN * 255 * 128 < 2^31, so the
 *         difference is exact although its terms may wrap around
 *
 * then, with relu, y = y < 0 ? 0 : y (a NaN stays one), then y is stored as float32, as bfloat16 (rk_to_bf16_fn) or as
 * a byte of a calibrated layer's input (rk_to_u8_fn). The bias is the channel's, or of each row its own. A row's result
 * depends on nothing but that row. */
#ifndef RANKD_QUANT_GEMM_H
#define RANKD_QUANT_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/dense.h"

#define RK_GEMM_CHANNELS    16u
#define RK_GEMM_GROUP_BYTES 4u
#define RK_GEMM_LINE_BYTES  (RK_GEMM_CHANNELS * RK_GEMM_GROUP_BYTES) /* one group of a panel */

struct rk_gemm {
    const void *x; /* [rows], x_bytes apart, groups * 4 bytes of each are read; 4-byte aligned */
    size_t x_bytes;
    const void *panels;
    size_t panel_bytes; /* from one panel to the next, a multiple of 64 */
    uint32_t groups, rows, out;
    const float *bias;          /* [channels of all panels] */
    const float *const *biases; /* [rows] -> [channels of all panels]: of each row its own; NULL: `bias` for all */
    /* int8 only */
    const float *scales;    /* [channels of all panels] */
    const int32_t *sums;    /* [channels of all panels] of a channel's weights */
    const float *x_scales;  /* of row r: x_scales[r * x_step] */
    const int32_t *x_zeros; /* 0..255 */
    size_t x_step;          /* 1, or 0 when all rows share them */
    /* what becomes of the sums */
    bool relu;
    enum rk_dense_format to; /* RK_DENSE_INT8: bytes */
    float inverse_scale;     /* of these bytes */
    int32_t zero;
    void *y; /* [rows], y_bytes apart, out elements each and nothing behind them; aligned to an element */
    size_t y_bytes;
    const void *ahead; /* what will be read after the panels: prefetched near the end. May point anywhere */
};

/* rows, out and groups are at least 1. */
typedef void rk_gemm_fn(const struct rk_gemm *gemm);
typedef rk_gemm_fn rk_gemm_f32_fn, rk_gemm_bf16_fn, rk_gemm_int8_fn;

#endif
