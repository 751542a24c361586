/* Row formats: how the elements of one embedding row lie in memory, and what that costs in accuracy.
 *
 * One traits table drives everything that depends on a format: sizes, the packer, the kernels, the tests, the man page.
 * A row is self-contained: its elements first, packed from the low bits of the first byte upward, then what its
 * decoding needs. dim is the number of elements. All numbers are little-endian; nothing is aligned.
 *
 *   fp32, fp16, bf16     dim numbers
 *   int8                 dim bytes q, then float32 scale, float32 bias: x = q * scale + bias
 *   int4, int2           ceil(dim * bits / 8) bytes, then float16 scale, float16 bias: x = q * scale + bias
 *                        (the bytes of PyTorch's quantized.embedding_bag_{byte,4bit,2bit}_prepack, which FBGEMM serves)
 *   fp8_*                dim bytes, then float32 scale: x = element * scale
 *   mx*                  ceil(dim * bits / 8) bytes, then ceil(dim / 32) E8M0 scales, one for each 32 elements:
 *                        x = element * 2^(byte - 127) (OCP Microscaling Formats 1.0, section 5); six-bit elements lie
 *                        bit after bit, element i in bits [6i, 6i + 6)
 *
 * Decoding is one float32 operation an element, which every kernel repeats bit for bit: the fused q * scale + bias with
 * one rounding (fmaf), with float16 scale and bias widened first; one product for fp8 and mx (exact for mx).
 *
 * Encoding rounds to nearest even and never gives an infinity:
 *
 *   fp16, bf16   saturate where IEEE 754 gives infinity
 *   int8         PyTorch's bytes, but where the range is beyond float32 (it stores scale = inf)
 *   int4, int2   PyTorch's bytes, but where scale or bias are beyond float16 (it stores inf)
 *                (with FBGEMM inside, PyTorch may also give the other sign to a bias that is 0 where a row has 0 and
 * -0) fp8_*        scale = largest |x| of the row / the format's largest number (448, 57344); 1 where that would be 0
 *   mx*          2^(floor(log2(largest |x| of the block)) - exponent of the format's largest number), at least 2^-127
 *                also for a block of zeros; elements beyond the format's largest number saturate (section 6.3)
 *
 * The largest error of any element, which error_bound computes, M being the largest |x| of the row or block:
 *
 *   fp16, bf16   half a step of the format at M, or M less the format's largest number
 *   int*         scale / 2 (int8: + 1e-8), or how far values lie outside of bias .. bias + levels * scale as they were
 *                rounded to float16; and 2^-20 of the range and 2^-23 of M for float32 arithmetic
 *   fp8_*        half a step of the format at its largest number (16 or 4096) * scale, and 2^-22 of M
 *   mx*          half a step of the format at M / 2^shared exponent, or M / 2^shared exponent less the format's largest
 *                number, whichever is larger, * 2^shared exponent
 *
 * but no more than M, or the largest distance from the bias, where the steps are coarser than that.
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
