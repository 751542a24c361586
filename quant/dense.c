/* Dense formats, element by element: for the packer, for tests, and as the kernels' specification. */
#include "quant/dense.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t element_bytes;
} formats[RK_DENSE_FORMAT_COUNT] = {
    [RK_DENSE_F32] = {"fp32", 4},
    [RK_DENSE_BF16] = {"bf16", 2},
    [RK_DENSE_INT8] = {"int8", 1},
};

const char *rk_dense_format_name(enum rk_dense_format format)
{
    return (unsigned)format < RK_DENSE_FORMAT_COUNT ? formats[format].name : "unknown";
}

bool rk_dense_format_parse(const char *name, enum rk_dense_format *format)
{
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        if (strcmp(name, formats[f].name) == 0) {
            *format = (enum rk_dense_format)f;
            return true;
        }
    return false;
}

size_t rk_dense_element_bytes(enum rk_dense_format format)
{
    return formats[format].element_bytes;
}

uint16_t rk_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value))
        return (uint16_t)(bits >> 16 | 0x40); /* quiet, whatever the bits that fall off held */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float rk_bf16_to_f32(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static void encode_bf16(const float *values, size_t count, uint16_t *elements)
{
    for (size_t i = 0; i < count; i++) {
        elements[i] = rk_bf16_from_f32(values[i]);
        if ((elements[i] & 0x7fff) == 0x7f80) /* rounded up to infinity */
            elements[i]--;
    }
}

static void encode_int8(const float *values, size_t rows, size_t columns, int8_t *elements, float *scales)
{
    for (size_t r = 0; r < rows; r++, values += columns, elements += columns) {
        float most = 0.0f;
        for (size_t c = 0; c < columns; c++)
            most = fmaxf(most, fabsf(values[c]));
        scales[r] = most / 127.0f;
        if (scales[r] < FLT_MIN) { /* nothing to divide by: a row of zeros, or so near that it makes no difference */
            scales[r] = 0.0f;
            memset(elements, 0, columns);
            continue;
        }
        for (size_t c = 0; c < columns; c++)
            elements[c] = (int8_t)fmaxf(-127.0f, fminf(127.0f, rintf(values[c] / scales[r])));
    }
}

void rk_dense_encode(enum rk_dense_format format, const float *values, size_t rows, size_t columns, void *elements,
                     float *scales)
{
    switch (format) {
    case RK_DENSE_BF16:
        encode_bf16(values, rows * columns, elements);
        break;
    case RK_DENSE_INT8:
        encode_int8(values, rows, columns, elements, scales);
        break;
    default:
        memcpy(elements, values, rows * columns * sizeof *values);
    }
}

void rk_dense_decode(enum rk_dense_format format, const void *elements, const float *scales, size_t rows,
                     size_t columns, float *values)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            const size_t at = r * columns + c;
            values[at] = format == RK_DENSE_BF16   ? rk_bf16_to_f32(((const uint16_t *)elements)[at])
                         : format == RK_DENSE_INT8 ? (float)((const int8_t *)elements)[at] * scales[r]
                                                   : ((const float *)elements)[at];
        }
}

void rk_dense_input_scale(float low, float high, float *scale, float *inverse_scale, int32_t *zero)
{
    *scale = low == 0.0f ? high / 255.0f : high / 255.0f - low / 255.0f; /* the same bits, sooner */
    if (*scale < FLT_MIN) {
        *scale = *inverse_scale = 0.0f;
        *zero = 0;
        return;
    }
    *inverse_scale = 1.0f / *scale;
    const float exact = rintf(-low * *inverse_scale);
    *zero = exact >= 255.0f ? 255 : exact > 0.0f ? (int32_t)exact : 0; /* 0 for a NaN */
}
