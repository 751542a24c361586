/* Rows of 8, 4 or 2-bit integers with a scale and a bias: x = fmaf(q, scale, bias).
 *
 * Encoding repeats the operations of PyTorch's quantized.embedding_bag_{byte,4bit,2bit}_prepack one by one, so that it
 * gives their bytes: int8 spreads 256 levels over the range with float32 scale and bias and divides by the range plus
 * 1e-8; int4 and int2 round bias and scale to float16 first and quantise against these. Only where PyTorch would store
 * an infinity (a range beyond float32, scale or bias beyond float16) the largest finite number takes its place.
 * Pure functions: any thread. */
#include "quant/minifloat.h"
#include "quant/rows_codecs.h"

#include <float.h>
#include <string.h>

/* What a row's elements are quantised against. */
struct affine {
    float scale, bias, inverse;
    unsigned levels; /* the largest q */
};

struct range {
    float low, high;
};

/* Of equal numbers (0 and -0) the first one counts. */
static struct range range_of(const float *values, size_t dim)
{
    struct range range = {dim > 0 ? values[0] : 0.0f, dim > 0 ? values[0] : 0.0f};
    for (size_t i = 1; i < dim; i++) {
        range.low = values[i] < range.low ? values[i] : range.low;
        range.high = values[i] > range.high ? values[i] : range.high;
    }
    return range;
}

static const float range_epsilon = 1e-8f; /* keeps the inverse of a range of 0 finite */

static struct affine affine_f32(struct range range)
{
    const float span = fminf(range.high - range.low, FLT_MAX);
    return (struct affine){span / 255.0f, range.low, 255.0f / (span + range_epsilon), 255};
}

static struct affine affine_f16(struct range range, unsigned levels)
{
    const float bias = rk_f16_to_f32(rk_f16_from_f32(range.low)), span = range.high - bias;
    const float exact = span == 0.0f ? 1.0f : span / (float)levels;
    /* A constant row whose bias was rounded upward has a negative scale; that is as good as any. */
    const float scale = rk_f16_to_f32(rk_f16_from_f32(exact));
    return scale == 0.0f ? (struct affine){1.0f, bias, 1.0f, levels}
                         : (struct affine){scale, bias, 1.0f / scale, levels};
}

static unsigned quantise(const struct affine *affine, float x)
{
    const float steps = (x - affine->bias) * affine->inverse, most = (float)affine->levels;
    const float above = steps > 0.0f ? steps : 0.0f, within = above < most ? above : most;
    /* In such a sum the last bit stands for 1: the adder rounds to nearest even. */
    return rk_f32_bits(within + 0x1p23f) & 0xff;
}

/* The farthest that a value can lie from what it decodes to: half a step, or less where the bias itself is nearer to
 * all values; or what lies outside the range that bias and scale, as rounded, can reach. And float32 arithmetic: a
 * handful of roundings relative to the distance from the bias, one relative to the result. */
static double bound(const struct affine *affine, struct range range, double shift)
{
    const double bias = affine->bias, end = bias + affine->levels * (double)affine->scale;
    const double outside = fmax(fmin(bias, end) - range.low, range.high - fmax(bias, end));
    const double from_bias = fmax(fabs(range.high - bias), fabs(range.low - bias));
    const double inside = fmin(fabs((double)affine->scale) / 2 + shift, from_bias);
    const double size = fmax(fabs(bias), fmax(fabsf(range.low), fabsf(range.high)));
    return fmax(outside, inside) + 0x1p-20 * from_bias + 0x1p-23 * size + 0x1p-140;
}

void rk_row_encode_int8(const float *values, size_t dim, void *row)
{
    const struct affine affine = affine_f32(range_of(values, dim));
    uint8_t *bytes = row;
    for (size_t i = 0; i < dim; i++)
        bytes[i] = (uint8_t)quantise(&affine, values[i]);
    memcpy(bytes + dim, &affine.scale, sizeof affine.scale);
    memcpy(bytes + dim + sizeof affine.scale, &affine.bias, sizeof affine.bias);
}

void rk_row_decode_int8(const void *row, size_t dim, float *values)
{
    const uint8_t *bytes = row;
    float scale, bias;
    memcpy(&scale, bytes + dim, sizeof scale);
    memcpy(&bias, bytes + dim + sizeof scale, sizeof bias);
    for (size_t i = 0; i < dim; i++)
        values[i] = fmaf((float)bytes[i], scale, bias);
}

double rk_row_bound_int8(const float *values, size_t dim)
{
    const struct range range = range_of(values, dim);
    const struct affine affine = affine_f32(range);
    return bound(&affine, range, range_epsilon);
}

static void encode_packed(const float *values, size_t dim, unsigned bits, void *row)
{
    const struct affine affine = affine_f16(range_of(values, dim), (1u << bits) - 1);
    const size_t each = 8 / bits, element_bytes = (dim + each - 1) / each;
    const uint16_t tail[2] = {rk_f16_from_f32(affine.scale), rk_f16_from_f32(affine.bias)};
    uint8_t *bytes = row;
    memset(bytes, 0, element_bytes);
    for (size_t i = 0; i < dim; i++)
        bytes[i / each] |= (uint8_t)(quantise(&affine, values[i]) << i % each * bits);
    memcpy(bytes + element_bytes, tail, sizeof tail);
}

static void decode_packed(const void *row, size_t dim, unsigned bits, float *values)
{
    const size_t each = 8 / bits, element_bytes = (dim + each - 1) / each;
    const uint8_t *bytes = row;
    uint16_t tail[2];
    memcpy(tail, bytes + element_bytes, sizeof tail);
    const float scale = rk_f16_to_f32(tail[0]), bias = rk_f16_to_f32(tail[1]);
    for (size_t i = 0; i < dim; i++)
        values[i] = fmaf((float)(bytes[i / each] >> i % each * bits & ((1u << bits) - 1)), scale, bias);
}

static double bound_packed(const float *values, size_t dim, unsigned bits)
{
    const struct range range = range_of(values, dim);
    const struct affine affine = affine_f16(range, (1u << bits) - 1);
    return bound(&affine, range, 0);
}

#define PACKED(name, bits)                                                                                             \
    void rk_row_encode_##name(const float *values, size_t dim, void *row)                                              \
    {                                                                                                                  \
        encode_packed(values, dim, bits, row);                                                                         \
    }                                                                                                                  \
    void rk_row_decode_##name(const void *row, size_t dim, float *values)                                              \
    {                                                                                                                  \
        decode_packed(row, dim, bits, values);                                                                         \
    }                                                                                                                  \
    double rk_row_bound_##name(const float *values, size_t dim)                                                        \
    {                                                                                                                  \
        return bound_packed(values, dim, bits);                                                                        \
    }

PACKED(int4, 4)
PACKED(int2, 2)
