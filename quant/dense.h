/* Number formats of the dense layers: how a layer's weights are stored, and in what its inputs are multiplied.
 *
 *   fp32   weights, inputs and sums in float32
 *   bf16   weights and inputs rounded to bfloat16 (to nearest even), sums in float32
 *   int8   weights: per output channel o, scale[o] = max |w| / 127, q = round(w / scale[o]), so |q| <= 127
 *          inputs:  per row, or for a calibrated layer once and for all, a range low <= 0 <= high;
 *                   scale = (high - low) / 255, zero = round(-low / scale), q = round(x / scale) + zero within 0..255
 *                   (rk_dense_input_scale)
 *          sums:    exact 32-bit integers; y = scale * scale[o] * (sum q w - zero * sum w) + bias
 *
 * The exact operations of a layer: quant/gemm.h. */
#ifndef RANKD_QUANT_DENSE_H
#define RANKD_QUANT_DENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rk_dense_format { RK_DENSE_F32, RK_DENSE_BF16, RK_DENSE_INT8, RK_DENSE_FORMAT_COUNT };

/* The widest input of an int8 layer: beyond, the 32-bit sums could overflow. */
#define RK_DENSE_INT8_MAX_IN 65536u

const char *rk_dense_format_name(enum rk_dense_format format); /* "fp32", "bf16", "int8"; "unknown" */
bool rk_dense_format_parse(const char *name, enum rk_dense_format *format);
/* Bytes of one element: 4, 2, 1. */
size_t rk_dense_element_bytes(enum rk_dense_format format);

/* Stores a weight matrix [rows][columns] in a format: elements [rows][columns] without gaps. int8: scales[rows] too
 * (a row of zeros has scale 0). Values must be finite; bfloat16 saturates at its largest finite number. */
void rk_dense_encode(enum rk_dense_format format, const float *values, size_t rows, size_t columns, void *elements,
                     float *scales);
/* The way back. */
void rk_dense_decode(enum rk_dense_format format, const void *elements, const float *scales, size_t rows,
                     size_t columns, float *values);

/* How an int8 layer's inputs within [low, high] become bytes: scale = high / 255 - low / 255 (so that no range
 * overflows), inverse_scale = 1 / scale, zero = round(-low * inverse_scale) within 0..255; then rk_to_u8_fn. A range
 * too narrow to divide by, that of zeros above all, has scale, inverse_scale and zero 0. One that holds a NaN or an
 * infinity has a scale that is none: so are the layer's outputs. */
void rk_dense_input_scale(float low, float high, float *scale, float *inverse_scale, int32_t *zero);

/* To nearest, ties to even; a NaN stays one. */
uint16_t rk_bf16_from_f32(float value);
float rk_bf16_to_f32(uint16_t bits);

#endif
