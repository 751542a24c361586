/* One step of a bfloat16 dot product: what one lane of the x86 instruction VDPBF16PS computes, bit for bit, so that
 * kernels with and without it give the same sums.
 *
 * The odd element's product is added first, then the even one's, each by a fused multiply-add to nearest even.
 * Subnormal inputs count as zero and subnormal results become zero, keeping their signs. */
#ifndef RANKD_QUANT_BF16_DOT_H
#define RANKD_QUANT_BF16_DOT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float rk_bf16_dot_operand(uint32_t bits)
{
    float value;
    bits = (bits & 0x7f800000u) == 0 ? bits & 0x80000000u : bits;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* a * b + c of numbers that are not subnormal. */
static inline float rk_bf16_dot_fma(float a, float b, float c)
{
    const float sum = fmaf(a, b, c);
    if (!(fabsf(sum) <= 0x1p-126f))
        return sum;
    /* "Subnormal" is asked of the sum rounded to 24 bits as if exponents had no end: less than half a unit below
     * 2^-126 still rounds up to it. A double holds such a sum exactly enough: the product of two bfloat16 is exact. */
    return fabs((double)a * (double)b + (double)c) < 0x1p-126 - 0x1p-151 ? copysignf(0.0f, sum) : sum;
}

/* sum + a . b, where a and b are two bfloat16 each, the even one in the low half. sum is not subnormal. */
static inline float rk_bf16_dot(float sum, uint32_t a, uint32_t b)
{
    sum = rk_bf16_dot_fma(rk_bf16_dot_operand(a & 0xffff0000u), rk_bf16_dot_operand(b & 0xffff0000u), sum);
    return rk_bf16_dot_fma(rk_bf16_dot_operand(a << 16), rk_bf16_dot_operand(b << 16), sum);
}

#endif
