/* Rows of the OCP Microscaling Formats 1.0: 32 elements share one power of two, which lies as an E8M0 byte (its
 * exponent plus 127) in a list of scales behind the elements; x = element * 2^(byte - 127).
 *
 * Encoding is section 6.3 of the specification: the shared exponent is that of the block's largest number less that of
 * the element format's largest, at least -127 (so also for a block of zeros); elements are rounded to nearest even and
 * saturate. A scale of 255 decodes to NaN. Pure functions: any thread. */
#include "quant/minifloat.h"
#include "quant/rows_codecs.h"
#include "quant/rows_floats.h"

#include <string.h>

enum { BLOCK = 32, SCALE_BIAS = 127 };

/* What differs between the formats. Integer elements are two's complement in steps of 2^-6. */
struct element {
    unsigned bits;
    int max_exponent; /* of the largest element */
    struct rk_minifloat format;
    int is_integer;
};

static const float integer_step = 0x1p-6f, integer_limit = 127.0f;

#define ELEMENT_E4M3 ((struct element){8, 8, RK_MINIFLOAT_E4M3, 0})
#define ELEMENT_E5M2 ((struct element){8, 15, RK_MINIFLOAT_E5M2, 0})
#define ELEMENT_E2M3 ((struct element){6, 2, RK_MINIFLOAT_E2M3, 0})
#define ELEMENT_E3M2 ((struct element){6, 4, RK_MINIFLOAT_E3M2, 0})
#define ELEMENT_E2M1 ((struct element){4, 2, RK_MINIFLOAT_E2M1, 0})
#define ELEMENT_INT8 ((struct element){8, 0, {0}, 1})

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static unsigned encode_element(struct element element, float x)
{
    if (!element.is_integer)
        return rk_minifloat_from_f32(element.format, x);
    const float steps = x / integer_step, above = steps > -integer_limit ? steps : -integer_limit;
    /* In such a sum the last bit stands for 1: the adder rounds to nearest even. */
    return rk_f32_bits((above < integer_limit ? above : integer_limit) + 0x1.8p23f) & 0xff;
}

static float decode_element(struct element element, unsigned code)
{
    return element.is_integer ? (float)(int8_t)code * integer_step : rk_minifloat_to_f32(element.format, code);
}

/* The E8M0 byte of a block whose largest number is this. */
static int scale_byte(struct element element, float largest)
{
    const int exponent = largest > 0.0f ? ilogbf(largest) - element.max_exponent : -SCALE_BIAS;
    return exponent > -SCALE_BIAS ? exponent + SCALE_BIAS : 0;
}

static float scale_value(unsigned byte)
{
    return byte == 255 ? NAN : ldexpf(1.0f, (int)byte - SCALE_BIAS);
}

/* Element i of a row lies in bits [i * bits, (i + 1) * bits), counted from the lowest bit of the first byte: within at
 * most two bytes. */
static void put_bits(uint8_t *bytes, size_t i, unsigned bits, unsigned code)
{
    const size_t at = i * bits / 8;
    const unsigned shifted = code << i * bits % 8;
    bytes[at] |= (uint8_t)shifted;
    if (shifted > 255)
        bytes[at + 1] |= (uint8_t)(shifted >> 8);
}

static unsigned take_bits(const uint8_t *bytes, size_t i, unsigned bits)
{
    const size_t at = i * bits / 8;
    const unsigned low = i * bits % 8, both = bytes[at] | (low + bits > 8 ? bytes[at + 1] * 256u : 0u);
    return both >> low & ((1u << bits) - 1);
}

static void encode_mx(struct element element, const float *values, size_t dim, void *row)
{
    uint8_t *bytes = row, *scales = bytes + (dim * element.bits + 7) / 8;
    memset(bytes, 0, (size_t)(scales - bytes));
    for (size_t first = 0; first < dim; first += BLOCK) {
        const size_t end = least(first + BLOCK, dim);
        const int byte = scale_byte(element, rk_largest(values + first, end - first));
        const float inverse = ldexpf(1.0f, SCALE_BIAS - byte);
        scales[first / BLOCK] = (uint8_t)byte;
        for (size_t i = first; i < end; i++)
            put_bits(bytes, i, element.bits, encode_element(element, values[i] * inverse));
    }
}

static void decode_mx(struct element element, const void *row, size_t dim, float *values)
{
    const uint8_t *bytes = row, *scales = bytes + (dim * element.bits + 7) / 8;
    for (size_t first = 0; first < dim; first += BLOCK) {
        const float scale = scale_value(scales[first / BLOCK]);
        for (size_t i = first; i < least(first + BLOCK, dim); i++)
            values[i] = decode_element(element, take_bits(bytes, i, element.bits)) * scale;
    }
}

/* Scales are powers of two: nothing is lost but in the elements. */
static double bound_mx(struct element element, const float *values, size_t dim)
{
    double bound = 0;
    for (size_t first = 0; first < dim; first += BLOCK) {
        const double largest = rk_largest(values + first, least(BLOCK, dim - first));
        const double scale = scale_value((unsigned)scale_byte(element, (float)largest)), scaled = largest / scale;
        const double of_elements = element.is_integer
                                       ? fmax(fmin(integer_step / 2, scaled), scaled - integer_limit * integer_step)
                                       : rk_minifloat_bound(element.format, scaled);
        bound = fmax(bound, of_elements * scale);
    }
    return bound;
}

#define MX(name, element)                                                                                              \
    void rk_row_encode_##name(const float *values, size_t dim, void *row)                                              \
    {                                                                                                                  \
        encode_mx(element, values, dim, row);                                                                          \
    }                                                                                                                  \
    void rk_row_decode_##name(const void *row, size_t dim, float *values)                                              \
    {                                                                                                                  \
        decode_mx(element, row, dim, values);                                                                          \
    }                                                                                                                  \
    double rk_row_bound_##name(const float *values, size_t dim)                                                        \
    {                                                                                                                  \
        return bound_mx(element, values, dim);                                                                         \
    }

MX(mxfp8_e4m3, ELEMENT_E4M3)
MX(mxfp8_e5m2, ELEMENT_E5M2)
MX(mxfp6_e2m3, ELEMENT_E2M3)
MX(mxfp6_e3m2, ELEMENT_E3M2)
MX(mxfp4_e2m1, ELEMENT_E2M1)
MX(mxint8, ELEMENT_INT8)
