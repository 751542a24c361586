/* Conversions of rows of floats, and the sigmoid. x and y need no alignment beyond their elements' and must not
 * overlap, or be equal for sigmoid. Every variant gives the very bits of the scalar one. */
#ifndef RANKD_QUANT_CONVERT_H
#define RANKD_QUANT_CONVERT_H

#include <stddef.h>
#include <stdint.h>

/* bfloat16, to nearest even; NaN stays NaN. */
typedef void rk_to_bf16_fn(const float *x, size_t count, uint16_t *y);
/* *low = min(0, x...), *high = max(0, x...); a NaN among x makes *high NaN. */
typedef void rk_range_fn(const float *x, size_t count, float *low, float *high);
/* y = round(x * inverse_scale) + zero, to nearest even, within 0..255; a NaN becomes zero. */
typedef void rk_to_u8_fn(const float *x, size_t count, float inverse_scale, int32_t zero, uint8_t *y);
/* y = round(x * inverse_scale) within -127..127; a NaN becomes 0. */
typedef void rk_to_s8_fn(const float *x, size_t count, float inverse_scale, int8_t *y);
/* y = 1 / (1 + exp(-x)), within 3 units in the last place; 0 below -87, where it is less than 2^-125. NaN stays NaN. */
typedef void rk_sigmoid_fn(const float *x, size_t count, float *y);

#endif
