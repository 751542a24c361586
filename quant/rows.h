/* Row formats: how the elements of one embedding row lie in memory, and what that costs in accuracy.
 *
 * One traits table drives everything that depends on a format: sizes, the packer, the kernels, the tests, the man page.
 * A row is self-contained: its elements first, packed from the low bits of the first byte upward, then what its
 * decoding needs. dim is the number of elements.
 *
 *   fp32, fp16, bf16     dim numbers
 *   int8                 dim bytes q, then float32 scale, float32 bias: x = q * scale + bias
 *   int4, int2           ceil(dim * bits / 8) bytes, then float16 scale, float16 bias: x = q * scale + bias
 *                        (the bytes of PyTorch's quantized.embedding_bag_{byte,4bit,2bit}_prepack, which FBGEMM serves)
 *   fp8_*                dim bytes, then float32 scale: x = element * scale
 *   mx*                  ceil(dim * bits / 8) bytes, then ceil(dim / 32) E8M0 scales, one for each 32 elements
 *                        (OCP Microscaling Formats 1.0, section 5); six-bit elements lie bit after bit
 */
#ifndef RANKD_QUANT_ROWS_H
#define RANKD_QUANT_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rk_row_format {
    RK_ROWS_F32,
    RK_ROWS_F16,
    RK_ROWS_BF16,
    RK_ROWS_INT8,
    RK_ROWS_INT4,
    RK_ROWS_INT2,
    RK_ROWS_FP8_E4M3,
    RK_ROWS_FP8_E5M2,
    RK_ROWS_MXFP8_E4M3,
    RK_ROWS_MXFP8_E5M2,
    RK_ROWS_MXFP6_E2M3,
    RK_ROWS_MXFP6_E3M2,
    RK_ROWS_MXFP4_E2M1,
    RK_ROWS_MXINT8,
    RK_ROW_FORMAT_COUNT
};

struct rk_row_traits {
    const char *name, *summary;
    uint8_t bits;       /* of one element */
    uint8_t tail_bytes; /* behind the elements of a row */
    uint8_t block;      /* elements that share an E8M0 scale; 0: none do */
    /* row = rk_row_bytes() bytes, unaligned; values[dim] finite. What does not fit saturates. */
    void (*encode)(const float *values, size_t dim, void *row);
    /* values[dim], the very numbers that the kernels of this format add up. */
    void (*decode)(const void *row, size_t dim, float *values);
    /* The largest |decoded - value| that encoding these values can cause to any element. */
    double (*error_bound)(const float *values, size_t dim);
};

/* Never NULL for a format below RK_ROW_FORMAT_COUNT. */
const struct rk_row_traits *rk_row_traits(enum rk_row_format format);
const char *rk_row_format_name(enum rk_row_format format); /* "fp32"; "unknown" */
bool rk_row_format_parse(const char *name, enum rk_row_format *format);

/* Bytes of one row of `dim` elements. */
uint64_t rk_row_bytes(enum rk_row_format format, uint32_t dim);

#endif
