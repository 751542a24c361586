/* Small floating-point formats, described by three numbers: sign, exponent_bits, mantissa_bits, with an IEEE bias and
 * subnormals, and the largest finite code. One pair of functions serves all of them; with a constant description the
 * compiler makes straight code of it.
 *
 * Codes above max_code are infinity (the first one, where its mantissa is 0) and NaN. Encoding rounds to nearest even
 * and saturates at the largest finite number; NaN saturates too, since what is encoded is finite by contract. */
#ifndef RANKD_QUANT_MINIFLOAT_H
#define RANKD_QUANT_MINIFLOAT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

struct rk_minifloat {
    int exponent_bits, mantissa_bits;
    uint32_t max_code; /* without sign */
};

/* IEEE 754 binary16, bfloat16; OCP 8-bit Floating Point Specification; OCP Microscaling Formats 1.0, section 5.3. */
#define RK_MINIFLOAT_F16  ((struct rk_minifloat){5, 10, 0x7bff}) /* 65504 */
#define RK_MINIFLOAT_BF16 ((struct rk_minifloat){8, 7, 0x7f7f})  /* 3.39e38 */
#define RK_MINIFLOAT_E4M3 ((struct rk_minifloat){4, 3, 0x7e})    /* 448; 0x7f is NaN, there is no infinity */
#define RK_MINIFLOAT_E5M2 ((struct rk_minifloat){5, 2, 0x7b})    /* 57344 */
#define RK_MINIFLOAT_E2M3 ((struct rk_minifloat){2, 3, 0x1f})    /* 7.5 */
#define RK_MINIFLOAT_E3M2 ((struct rk_minifloat){3, 2, 0x1f})    /* 28 */
#define RK_MINIFLOAT_E2M1 ((struct rk_minifloat){2, 1, 0x7})     /* 6 */

static inline uint32_t rk_f32_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float rk_f32_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The exponent of the smallest normal number. */
static inline int rk_minifloat_min_exponent(struct rk_minifloat format)
{
    return 2 - (1 << (format.exponent_bits - 1));
}

static inline uint32_t rk_minifloat_from_f32(struct rk_minifloat format, float x)
{
    const int lost = 23 - format.mantissa_bits, min_exponent = rk_minifloat_min_exponent(format);
    const uint32_t sign = rk_f32_bits(x) >> 31 << (format.exponent_bits + format.mantissa_bits);
    const uint32_t size = rk_f32_bits(x) & 0x7fffffff;
    uint32_t code;
    if (size < (uint32_t)(min_exponent + 127) << 23) {
        /* Subnormal: the sum has the format's smallest step as its last bit, so that the adder rounds. */
        const float step = rk_f32_from_bits((uint32_t)(min_exponent + lost + 127) << 23);
        code = rk_f32_bits(rk_f32_from_bits(size) + step) - rk_f32_bits(step);
    } else {
        const uint32_t rebiased = size - ((uint32_t)(min_exponent + 126) << 23);
        code = (rebiased + ((1u << lost) >> 1) - 1 + (rebiased >> lost & 1)) >> lost;
    }
    return sign | (code < format.max_code ? code : format.max_code);
}

static inline float rk_minifloat_to_f32(struct rk_minifloat format, uint32_t code)
{
    const int width = format.exponent_bits + format.mantissa_bits, lost = 23 - format.mantissa_bits;
    const int min_exponent = rk_minifloat_min_exponent(format);
    const uint32_t sign = (code >> width & 1) << 31, size = code & ((1u << width) - 1);
    const uint32_t first = format.max_code + 1, mantissa = (1u << format.mantissa_bits) - 1;
    if (size > format.max_code)
        return rk_f32_from_bits(sign | (size == first && (first & mantissa) == 0 ? 0x7f800000u : 0x7fc00000u));
    if (size >> format.mantissa_bits > 0)
        return rk_f32_from_bits(sign | ((size << lost) + ((uint32_t)(min_exponent + 126) << 23)));
    const float subnormal = (float)size * ldexpf(1.0f, min_exponent - format.mantissa_bits);
    return rk_f32_from_bits(sign | rk_f32_bits(subnormal));
}

static inline uint16_t rk_f16_from_f32(float x)
{
    return (uint16_t)rk_minifloat_from_f32(RK_MINIFLOAT_F16, x);
}

static inline float rk_f16_to_f32(uint16_t code)
{
    return rk_minifloat_to_f32(RK_MINIFLOAT_F16, code);
}

#endif
