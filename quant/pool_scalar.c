/* Pooled lookup, the specification: what every other variant has to equal, written to be read. One function decodes
 * one element of each format; pool() adds them up. */
#include <math.h>
#include <string.h>

#include "quant/kernels_list.h"

typedef float element_fn(const uint8_t *row, size_t dim, size_t d);

static inline __attribute__((always_inline)) void
pool(element_fn *element, const void *const *rows, const float *weights, size_t count, size_t dim, bool add, float *out)
{
    for (size_t d = 0; d < dim; d++) {
        float sum = add ? out[d] : 0.0f;
        for (size_t i = 0; i < count; i++) {
            const float x = element(rows[i], dim, d);
            sum = weights != NULL ? fmaf(weights[i], x, sum) : sum + x;
        }
        out[d] = sum;
    }
}

static uint16_t half_at(const uint8_t *bytes)
{
    uint16_t half;
    memcpy(&half, bytes, sizeof half);
    return half;
}

static float float_at(const uint8_t *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Sign, exponent, mantissa; subnormals; no infinities. */
static float small_float(unsigned bits, int exponent_bits, int mantissa_bits, int bias)
{
    const unsigned mantissa = bits & ((1u << mantissa_bits) - 1),
                   exponent = bits >> mantissa_bits & ((1u << exponent_bits) - 1);
    const float value = exponent == 0
                            ? ldexpf((float)mantissa, 1 - bias - mantissa_bits)
                            : ldexpf((float)(mantissa + (1u << mantissa_bits)), (int)exponent - bias - mantissa_bits);
    return bits >> (exponent_bits + mantissa_bits) & 1 ? -value : value;
}

static float float16(uint16_t bits)
{
    if ((bits & 0x7c00) == 0x7c00)
        return float_of_bits((uint32_t)(bits & 0x8000) << 16 | 0x7f800000 | (uint32_t)(bits & 0x3ff) << 13);
    return small_float(bits, 5, 10, 15);
}

static float e4m3(uint8_t bits)
{
    return (bits & 0x7f) == 0x7f ? NAN : small_float(bits, 4, 3, 7);
}

static float e5m2(uint8_t bits)
{
    return float16((uint16_t)(bits << 8));
}

/* A power of two; 255 is not a number. */
static float e8m0(uint8_t bits)
{
    return bits == 255 ? NAN : ldexpf(1.0f, bits - 127);
}

/* Elements narrower than a byte lie bit after bit. */
static unsigned packed(const uint8_t *row, size_t bits, size_t d)
{
    const size_t bit = d * bits, shift = bit % 8;
    unsigned value = row[bit / 8] >> shift;
    if (shift + bits > 8)
        value |= (unsigned)row[bit / 8 + 1] << (8 - shift);
    return value & ((1u << bits) - 1);
}

static float f32(const uint8_t *row, size_t dim, size_t d)
{
    (void)dim;
    return float_at(row + 4 * d);
}

static float f16(const uint8_t *row, size_t dim, size_t d)
{
    (void)dim;
    return float16(half_at(row + 2 * d));
}

static float bf16(const uint8_t *row, size_t dim, size_t d)
{
    (void)dim;
    return float_of_bits((uint32_t)half_at(row + 2 * d) << 16);
}

static float int8(const uint8_t *row, size_t dim, size_t d)
{
    return fmaf((float)row[d], float_at(row + dim), float_at(row + dim + 4));
}

static inline float narrow_int(const uint8_t *row, size_t bits, size_t dim, size_t d)
{
    const uint8_t *tail = row + (dim * bits + 7) / 8;
    return fmaf((float)packed(row, bits, d), float16(half_at(tail)), float16(half_at(tail + 2)));
}

static float int4(const uint8_t *row, size_t dim, size_t d)
{
    return narrow_int(row, 4, dim, d);
}

static float int2(const uint8_t *row, size_t dim, size_t d)
{
    return narrow_int(row, 2, dim, d);
}

static float fp8_e4m3(const uint8_t *row, size_t dim, size_t d)
{
    return e4m3(row[d]) * float_at(row + dim);
}

static float fp8_e5m2(const uint8_t *row, size_t dim, size_t d)
{
    return e5m2(row[d]) * float_at(row + dim);
}

/* The scale of element d in a row of MX blocks, which begin behind the elements. */
static inline float mx_scale(const uint8_t *row, size_t bits, size_t dim, size_t d)
{
    return e8m0(row[(dim * bits + 7) / 8 + d / 32]);
}

static float mxfp8_e4m3(const uint8_t *row, size_t dim, size_t d)
{
    return e4m3(row[d]) * mx_scale(row, 8, dim, d);
}

static float mxfp8_e5m2(const uint8_t *row, size_t dim, size_t d)
{
    return e5m2(row[d]) * mx_scale(row, 8, dim, d);
}

static float mxfp6_e2m3(const uint8_t *row, size_t dim, size_t d)
{
    return small_float(packed(row, 6, d), 2, 3, 1) * mx_scale(row, 6, dim, d);
}

static float mxfp6_e3m2(const uint8_t *row, size_t dim, size_t d)
{
    return small_float(packed(row, 6, d), 3, 2, 3) * mx_scale(row, 6, dim, d);
}

static float mxfp4_e2m1(const uint8_t *row, size_t dim, size_t d)
{
    return small_float(packed(row, 4, d), 2, 1, 1) * mx_scale(row, 4, dim, d);
}

static float mxint8(const uint8_t *row, size_t dim, size_t d)
{
    return (float)(int8_t)row[d] / 64.0f * mx_scale(row, 8, dim, d);
}

#define POOL(format)                                                                                                   \
    void rk_pool_##format##_scalar(const void *const *rows, const float *weights, size_t count, size_t dim, bool add,  \
                                   float *out)                                                                         \
    {                                                                                                                  \
        pool(format, rows, weights, count, dim, add, out);                                                             \
    }
POOL(f32)
POOL(f16)
POOL(bf16)
POOL(int8)
POOL(int4)
POOL(int2)
POOL(fp8_e4m3)
POOL(fp8_e5m2)
POOL(mxfp8_e4m3)
POOL(mxfp8_e5m2)
POOL(mxfp6_e2m3)
POOL(mxfp6_e3m2)
POOL(mxfp4_e2m1)
POOL(mxint8)
