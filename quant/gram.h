/* Pairwise dot products of one candidate's vectors: the `dot` interaction's arithmetic.
 *
 * Vectors lie anywhere, 64-byte aligned, zero-padded to a multiple of 64 bytes. The result is the lower triangle row by
 * row: for i in [first, count): the dots of v[i] with v[0] .. v[i - 1], and with v[i] itself when `self`. Rows before
 * `first` are left out; z points at row `first`. So vectors that candidates of one request share come first, and their
 * rows of the triangle, a prefix, are computed once.
 *
 * Each element of z is one chain in the order that the scalar variant spells out (quant/gram_scalar.c), the same in
 * every variant and for every `first`. */
#ifndef RANKD_QUANT_GRAM_H
#define RANKD_QUANT_GRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Elements of rows [0, count). */
static inline size_t rk_gram_elements(size_t count, bool self)
{
    return self ? count * (count + 1) / 2 : count * (count - (count > 0)) / 2;
}

/* Floats past the last one that the kernels may overwrite. */
#define RK_GRAM_SLACK 16

/* Bytes of scratch that rk_gram_int8_fn needs: the vectors again in the order in which it multiplies them, and two
 * numbers for each. */
static inline size_t rk_gram_scratch_bytes(size_t count, size_t dim)
{
    const size_t whole = (count + 15) / 16 * 16;
    return whole * ((dim + 63) / 64 * 64 + 8);
}

/* dim: elements of a vector, not counting padding. */
typedef void rk_gram_f32_fn(const float *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self,
                            float *z);
/* bfloat16 vectors, sums in float32. */
typedef void rk_gram_bf16_fn(const uint16_t *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self,
                             float *z);
/* v[i] = scales[i] * bytes; exact 32-bit sums, z = (float)sum * (scales[i] * scales[j]). dim <= RK_DENSE_INT8_MAX_IN.
 * scratch: rk_gram_scratch_bytes(), 64-byte aligned; nothing in it outlives the call. */
typedef void rk_gram_int8_fn(const int8_t *const *vectors, const float *scales, uint32_t first, uint32_t count,
                             uint32_t dim, bool self, void *scratch, float *z);

#endif
