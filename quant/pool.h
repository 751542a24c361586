/* Pooled lookup: the weighted sum of some rows of a table, decoded in registers on the way.
 *
 * One kernel for each row format (quant/rows.h) and instruction set, all with the bits of the scalar one:
 *
 *     x = the element as rows.h decodes it (integers: fmaf(q, scale, bias), one rounding)
 *     sum = fmaf(weights[i], x, sum), or sum + x without weights, row after row
 *
 * Because each element is one chain in row order, a bag may be cut anywhere and go on with `add`: the sum is the same.
 */
#ifndef RANKD_QUANT_POOL_H
#define RANKD_QUANT_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out[dim] = (out if add, else 0) + sum over i < count of weights[i] * decoded rows[i]; weights NULL: the plain sum.
 * count may be 0, dim at least 1. Rows have rk_row_bytes() bytes and no alignment; nothing outside them is read. out
 * is none of the rows. */
typedef void rk_pool_fn(const void *const *rows, const float *weights, size_t count, size_t dim, bool add, float *out);
typedef rk_pool_fn rk_pool_f32_fn, rk_pool_f16_fn, rk_pool_bf16_fn, rk_pool_int8_fn, rk_pool_int4_fn, rk_pool_int2_fn,
    rk_pool_fp8_e4m3_fn, rk_pool_fp8_e5m2_fn, rk_pool_mxfp8_e4m3_fn, rk_pool_mxfp8_e5m2_fn, rk_pool_mxfp6_e2m3_fn,
    rk_pool_mxfp6_e3m2_fn, rk_pool_mxfp4_e2m1_fn, rk_pool_mxint8_fn;

/* The pool kernels of one instruction set, for the list of kernels. */
#define RK_POOL_KERNELS(X, isa, SUFFIX)                                                                                \
    X(pool_f32, isa, SUFFIX)                                                                                           \
    X(pool_f16, isa, SUFFIX)                                                                                           \
    X(pool_bf16, isa, SUFFIX)                                                                                          \
    X(pool_int8, isa, SUFFIX)                                                                                          \
    X(pool_int4, isa, SUFFIX)                                                                                          \
    X(pool_int2, isa, SUFFIX)                                                                                          \
    X(pool_fp8_e4m3, isa, SUFFIX)                                                                                      \
    X(pool_fp8_e5m2, isa, SUFFIX)                                                                                      \
    X(pool_mxfp8_e4m3, isa, SUFFIX)                                                                                    \
    X(pool_mxfp8_e5m2, isa, SUFFIX)                                                                                    \
    X(pool_mxfp6_e2m3, isa, SUFFIX)                                                                                    \
    X(pool_mxfp6_e3m2, isa, SUFFIX)                                                                                    \
    X(pool_mxfp4_e2m1, isa, SUFFIX)                                                                                    \
    X(pool_mxint8, isa, SUFFIX)

/* Where the rows of a pruned table lie. A block is eight words for 448 ids: how many rows are kept before the block,
 * then a bit for each id, from the lowest of the first word upward. rows[i] becomes the number of kept ids before
 * ids[i] where that one is kept itself, else num_kept; never more than num_kept, whatever the blocks say.
 * ids are below 448 times the number of blocks. */
typedef void rk_kept_rows_fn(const uint64_t (*blocks)[8], uint64_t num_kept, const int64_t *ids, size_t count,
                             uint64_t *rows);

#endif
