/* What the row families of small floating-point elements (rows_floats.c, rows_mx.c) share. */
#ifndef RANKD_QUANT_ROWS_FLOATS_H
#define RANKD_QUANT_ROWS_FLOATS_H

#include "quant/minifloat.h"

#include <stddef.h>

/* The largest |value|; 0 for none. */
static inline float rk_largest(const float *values, size_t dim)
{
    float largest = 0.0f;
    for (size_t i = 0; i < dim; i++) {
        const float size = fabsf(values[i]);
        largest = size > largest ? size : largest;
    }
    return largest;
}

/* The largest error of encoding numbers up to `largest`: half the step that the format has there, or less where 0 is
 * nearer; or what lies above the format's largest number. */
static inline double rk_minifloat_bound(struct rk_minifloat format, double largest)
{
    int exponent = rk_minifloat_min_exponent(format);
    if (largest > ldexp(1.0, exponent))
        exponent = ilogb(largest);
    const double half_step = ldexp(0.5, exponent - format.mantissa_bits);
    return fmax(fmin(half_step, largest), largest - rk_minifloat_to_f32(format, format.max_code));
}

#endif
