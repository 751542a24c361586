/* Rows of small floating-point numbers: fp16 and bf16 as they are, the two FP8 formats with a float32 scale per row,
 * x = element * scale, that brings the row's largest number to the format's largest. Pure functions: any thread. */
#include "quant/rows_floats.h"
#include "quant/minifloat.h"
#include "quant/rows_codecs.h"

#include <string.h>

static void encode_halves(struct rk_minifloat format, const float *values, size_t dim, void *row)
{
    unsigned char *bytes = row;
    for (size_t i = 0; i < dim; i++) {
        const uint16_t code = (uint16_t)rk_minifloat_from_f32(format, values[i]);
        memcpy(bytes + i * sizeof code, &code, sizeof code);
    }
}

static void decode_halves(struct rk_minifloat format, const void *row, size_t dim, float *values)
{
    const unsigned char *bytes = row;
    for (size_t i = 0; i < dim; i++) {
        uint16_t code;
        memcpy(&code, bytes + i * sizeof code, sizeof code);
        values[i] = rk_minifloat_to_f32(format, code);
    }
}

#define HALVES(name, format)                                                                                           \
    void rk_row_encode_##name(const float *values, size_t dim, void *row)                                              \
    {                                                                                                                  \
        encode_halves(format, values, dim, row);                                                                       \
    }                                                                                                                  \
    void rk_row_decode_##name(const void *row, size_t dim, float *values)                                              \
    {                                                                                                                  \
        decode_halves(format, row, dim, values);                                                                       \
    }                                                                                                                  \
    double rk_row_bound_##name(const float *values, size_t dim)                                                        \
    {                                                                                                                  \
        return rk_minifloat_bound(format, rk_largest(values, dim));                                                    \
    }

HALVES(f16, RK_MINIFLOAT_F16)
HALVES(bf16, RK_MINIFLOAT_BF16)

/* 1 for a row of zeros, or of numbers so small that no float32 scale could bring them up. */
static float scale_of(struct rk_minifloat format, const float *values, size_t dim)
{
    const float scale = rk_largest(values, dim) / rk_minifloat_to_f32(format, format.max_code);
    return scale > 0.0f ? scale : 1.0f;
}

static void encode_fp8(struct rk_minifloat format, const float *values, size_t dim, void *row)
{
    const float scale = scale_of(format, values, dim);
    unsigned char *bytes = row;
    for (size_t i = 0; i < dim; i++)
        bytes[i] = (unsigned char)rk_minifloat_from_f32(format, values[i] / scale);
    memcpy(bytes + dim, &scale, sizeof scale);
}

static void decode_fp8(struct rk_minifloat format, const void *row, size_t dim, float *values)
{
    const unsigned char *bytes = row;
    float scale;
    memcpy(&scale, bytes + dim, sizeof scale);
    for (size_t i = 0; i < dim; i++)
        values[i] = rk_minifloat_to_f32(format, bytes[i]) * scale;
}

/* The element's rounding, that of the division before it and of the product after it. */
static double bound_fp8(struct rk_minifloat format, const float *values, size_t dim)
{
    const double scale = scale_of(format, values, dim), largest = rk_largest(values, dim);
    return rk_minifloat_bound(format, largest / scale) * scale + 0x1p-22 * largest + 0x1p-149;
}

#define FP8(name, format)                                                                                              \
    void rk_row_encode_##name(const float *values, size_t dim, void *row)                                              \
    {                                                                                                                  \
        encode_fp8(format, values, dim, row);                                                                          \
    }                                                                                                                  \
    void rk_row_decode_##name(const void *row, size_t dim, float *values)                                              \
    {                                                                                                                  \
        decode_fp8(format, row, dim, values);                                                                          \
    }                                                                                                                  \
    double rk_row_bound_##name(const float *values, size_t dim)                                                        \
    {                                                                                                                  \
        return bound_fp8(format, values, dim);                                                                         \
    }

FP8(fp8_e4m3, RK_MINIFLOAT_E4M3)
FP8(fp8_e5m2, RK_MINIFLOAT_E5M2)
