/* Pairwise dot products in 16 lanes of 4 bytes, for AVX-512: what fp32 and bf16 share.
 *
 * Rows of the triangle are taken four at a time, aligned so that four columns at a time end where the block's rows do:
 * a block is some tiles of 4 x 4 and one triangle. A tile's 16 sums stay in registers (8 loads feed 16 multiply-adds)
 * and are then folded into one register, four rows of four results: each fold of two sums into one takes two shuffles
 * and an addition, on ports that the multiply-adds of the next tile leave free. Folds within 16 bytes come first, where
 * there is most to fold, because their shuffles are the cheapest.
 *
 * Four floats are stored per row, up to three more than the row has; they land where a later store belongs. */
#ifndef RANKD_QUANT_GRAM_AVX512_H
#define RANKD_QUANT_GRAM_AVX512_H
#ifdef __AVX512F__

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/gram.h"

#define GRAM_INLINE static inline __attribute__((always_inline))

enum { GRAM_LINE = 64, GRAM_TILE = 4 };

/* Zero without a register to copy from: gcc copies, and a copy of 64 bytes costs what an addition costs. */
GRAM_INLINE __m512 gram_zero(void)
{
    __m512 zero;
    __asm__ volatile("vpxord %x0, %x0, %x0" : "=v"(zero));
    return zero;
}

/* sum + the products of one line of a and b */
typedef __m512 gram_step_fn(__m512 sum, __m512 a, __m512 b);

/* In every four lanes: 0 + 2 of x and y, 1 + 3 of x and y. */
GRAM_INLINE __m512 gram_fold_2(__m512 x, __m512 y)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
}

/* In every four lanes: 0 + 2 and 1 + 3 of x, then of y. */
GRAM_INLINE __m512 gram_fold_1(__m512 x, __m512 y)
{
    const __m512d a = _mm512_castps_pd(x), b = _mm512_castps_pd(y);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
}

/* Fours of lanes: 0 + 1 and 2 + 3 of x, then of y. */
GRAM_INLINE __m512 gram_fold_fours(__m512 x, __m512 y)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
}

/* Multiplies `rows` vectors at a[] with four at b[] (with a triangle, row r with b[0..r]) and stores row r at
 * z[r]. Named sums: arrays of them would be kept in memory. */
GRAM_INLINE void gram_tile(gram_step_fn *step, const char *const *a, const char *const *b, uint32_t lines, int rows,
                           bool triangle, float *const *z)
{
    __m512 s00 = gram_zero(), s01 = gram_zero(), s02 = gram_zero(), s03 = gram_zero(), s10 = gram_zero(),
           s11 = gram_zero(), s12 = gram_zero(), s13 = gram_zero(), s20 = gram_zero(), s21 = gram_zero(),
           s22 = gram_zero(), s23 = gram_zero(), s30 = gram_zero(), s31 = gram_zero(), s32 = gram_zero(),
           s33 = gram_zero();
    const char *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3], *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
    for (size_t at = 0; at < (size_t)lines * GRAM_LINE; at += GRAM_LINE) {
        const __m512 column0 = _mm512_load_ps(b0 + at), column1 = _mm512_load_ps(b1 + at),
                     column2 = _mm512_load_ps(b2 + at), column3 = _mm512_load_ps(b3 + at);
        __m512 row = _mm512_load_ps(a0 + at);
        s00 = step(s00, row, column0);
        if (!triangle) {
            s01 = step(s01, row, column1);
            s02 = step(s02, row, column2);
            s03 = step(s03, row, column3);
        }
        if (rows > 1) {
            row = _mm512_load_ps(a1 + at);
            s10 = step(s10, row, column0);
            s11 = step(s11, row, column1);
            if (!triangle) {
                s12 = step(s12, row, column2);
                s13 = step(s13, row, column3);
            }
        }
        if (rows > 2) {
            row = _mm512_load_ps(a2 + at);
            s20 = step(s20, row, column0);
            s21 = step(s21, row, column1);
            s22 = step(s22, row, column2);
            if (!triangle)
                s23 = step(s23, row, column3);
        }
        if (rows > 3) {
            row = _mm512_load_ps(a3 + at);
            s30 = step(s30, row, column0);
            s31 = step(s31, row, column1);
            s32 = step(s32, row, column2);
            s33 = step(s33, row, column3);
        }
    }
    /* Breadth first, so that there is always something to do beside what waits. */
    const __m512 t00 = gram_fold_2(s00, s01), t01 = gram_fold_2(s02, s03), t10 = gram_fold_2(s10, s11),
                 t11 = gram_fold_2(s12, s13), t20 = gram_fold_2(s20, s21), t21 = gram_fold_2(s22, s23),
                 t30 = gram_fold_2(s30, s31), t31 = gram_fold_2(s32, s33);
    const __m512 u0 = gram_fold_1(t00, t01), u1 = gram_fold_1(t10, t11), u2 = gram_fold_1(t20, t21),
                 u3 = gram_fold_1(t30, t31);
    const __m512 all = gram_fold_fours(gram_fold_fours(u0, u1), gram_fold_fours(u2, u3));
    _mm_storeu_ps(z[0], _mm512_castps512_ps128(all));
    if (rows > 1)
        _mm_storeu_ps(z[1], _mm512_extractf32x4_ps(all, 1));
    if (rows > 2)
        _mm_storeu_ps(z[2], _mm512_extractf32x4_ps(all, 2));
    if (rows > 3)
        _mm_storeu_ps(z[3], _mm512_extractf32x4_ps(all, 3));
}

/* Rows i .. i + rows - 1, whose last columns are within the tile that begins at column `end`. */
GRAM_INLINE void gram_block(gram_step_fn *step, const char *const *vectors, uint32_t count, uint32_t lines, uint32_t i,
                            int rows, bool triangle, uint32_t end, bool self, float *z)
{
    const char *a[GRAM_TILE], *b[GRAM_TILE];
    float *to[GRAM_TILE];
    for (uint32_t r = 0; r < GRAM_TILE; r++) {
        const uint32_t column = end + r;
        a[r] = vectors[r < (uint32_t)rows ? i + r : i];
        b[r] = vectors[column < count ? column : i];
        to[r] = z + rk_gram_elements(i + r, self) - rk_gram_elements(i, self) + end;
    }
    gram_tile(step, a, b, lines, rows, triangle, to);
    for (uint32_t r = 0; r < GRAM_TILE; r++)
        to[r] -= end;
    for (uint32_t column = 0; column < end; column += GRAM_TILE) {
        gram_tile(step, a, vectors + column, lines, rows, false, to);
        for (uint32_t r = 0; r < GRAM_TILE; r++)
            to[r] += GRAM_TILE;
    }
}

/* vectors: of `lines` lines each */
GRAM_INLINE void gram_run(gram_step_fn *step, const void *const *vectors, uint32_t first, uint32_t count,
                          uint32_t lines, bool self, float *z)
{
    const char *const *at = (const char *const *)vectors;
    for (uint32_t i = first + self > 0 ? first : 1; i < count;) {
        const uint32_t end = (i + self - 1) / GRAM_TILE * GRAM_TILE, into = i + self - 1 - end,
                       left = count - i < GRAM_TILE - into ? count - i : GRAM_TILE - into;
        if (left == 4)
            gram_block(step, at, count, lines, i, 4, true, end, self, z);
        else if (left == 3)
            gram_block(step, at, count, lines, i, 3, false, end, self, z);
        else if (left == 2)
            gram_block(step, at, count, lines, i, 2, false, end, self, z);
        else
            gram_block(step, at, count, lines, i, 1, false, end, self, z);
        z += rk_gram_elements(i + left, self) - rk_gram_elements(i, self);
        i += left;
    }
}

#endif
#endif
