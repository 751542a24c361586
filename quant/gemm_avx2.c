/* Packed multiplications for AVX2 with FMA: one panel at a time, for blocks of rows whose sums stay in registers, with
 * the bits of the scalar variant.
 *
 * int8: products of bytes do not fit the 16 bits that vpmaddubsw adds them up in, so bytes are widened first. A line's
 * four quarters, four channels each, then give two 32-bit sums for each channel, which are added at the end.
 *
 * bf16: two fused multiply-adds a step, the odd element's first. Subnormal inputs and results count as zeros, as
 * VDPBF16PS has it: the flags of the floating-point unit see to that while products are added up, and no longer. */
#ifdef __AVX2__

#include <immintrin.h>
#include <string.h>

#include "quant/kernels_list.h"

enum { LINE = RK_GEMM_LINE_BYTES, CHANNELS = RK_GEMM_CHANNELS };

#define INLINE static inline __attribute__((always_inline))

struct block {
    const char *x, *panel;
    size_t x_bytes;
    uint32_t groups;
    float *sums; /* [rows][CHANNELS], or int32_t */
};

INLINE int32_t group_at(const char *x)
{
    int32_t group;
    memcpy(&group, x, sizeof group);
    return group;
}

/* Two registers of 8 sums for each row. */
INLINE void multiply_f32(const struct block *b, const int rows)
{
    __m256 low[6], high[6];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm256_setzero_ps();
    const char *x = b->x, *panel = b->panel;
    for (uint32_t k = 0; k < b->groups; k++, x += RK_GEMM_GROUP_BYTES, panel += LINE) {
        const __m256 w_low = _mm256_load_ps((const float *)panel), w_high = _mm256_load_ps((const float *)panel + 8);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            const __m256 value = _mm256_castsi256_ps(_mm256_set1_epi32(group_at(x + r * b->x_bytes)));
            low[r] = _mm256_fmadd_ps(value, w_low, low[r]);
            high[r] = _mm256_fmadd_ps(value, w_high, high[r]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm256_store_ps(b->sums + r * CHANNELS, low[r]);
        _mm256_store_ps(b->sums + r * CHANNELS + 8, high[r]);
    }
}

/* The two bfloat16 of each 32 bits as float32. */
INLINE __m256 odd_of(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

INLINE __m256 even_of(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

INLINE void multiply_bf16(const struct block *b, const int rows)
{
    __m256 low[4], high[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm256_setzero_ps();
    const char *x = b->x, *panel = b->panel;
    for (uint32_t k = 0; k < b->groups; k++, x += RK_GEMM_GROUP_BYTES, panel += LINE) {
        const __m256i w_low = _mm256_load_si256((const __m256i *)panel),
                      w_high = _mm256_load_si256((const __m256i *)panel + 1);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const __m256i pair = _mm256_set1_epi32(group_at(x + r * b->x_bytes));
            low[r] = _mm256_fmadd_ps(odd_of(pair), odd_of(w_low), low[r]);
            high[r] = _mm256_fmadd_ps(odd_of(pair), odd_of(w_high), high[r]);
            low[r] = _mm256_fmadd_ps(even_of(pair), even_of(w_low), low[r]);
            high[r] = _mm256_fmadd_ps(even_of(pair), even_of(w_high), high[r]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        _mm256_store_ps(b->sums + r * CHANNELS, low[r]);
        _mm256_store_ps(b->sums + r * CHANNELS + 8, high[r]);
    }
}

/* The two sums of each of 4 + 4 channels, added. */
INLINE __m256i add_pairs(__m256i first, __m256i second)
{
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(first, second), _MM_SHUFFLE(3, 1, 2, 0));
}

INLINE void multiply_int8(const struct block *b, const int rows)
{
    __m256i quarter[2][4];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++)
            quarter[r][q] = _mm256_setzero_si256();
    const char *x = b->x, *panel = b->panel;
    for (uint32_t k = 0; k < b->groups; k++, x += RK_GEMM_GROUP_BYTES, panel += LINE) {
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            const __m256i weights = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)panel + q));
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++) {
                const __m256i value = _mm256_cvtepu8_epi16(_mm_set1_epi32(group_at(x + r * b->x_bytes)));
                quarter[r][q] = _mm256_add_epi32(quarter[r][q], _mm256_madd_epi16(value, weights));
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        __m256i *to = (__m256i *)(b->sums + r * CHANNELS);
        _mm256_store_si256(to, add_pairs(quarter[r][0], quarter[r][1]));
        _mm256_store_si256(to + 1, add_pairs(quarter[r][2], quarter[r][3]));
    }
}

/* ---- what becomes of the sums ---- */

/* 16 channels of one row in float32, not activated yet: y[16]. */
INLINE void scale_int8(const struct rk_gemm *gemm, uint32_t row, uint32_t channel, const float *bias,
                       float y[static CHANNELS])
{
    const size_t at = row * gemm->x_step;
    const __m256i zero = _mm256_set1_epi32(gemm->x_zeros[at]);
    const __m256 x_scale = _mm256_set1_ps(gemm->x_scales[at]);
    for (uint32_t c = 0; c < CHANNELS; c += 8) {
        const __m256i weights = _mm256_loadu_si256((const __m256i *)(gemm->sums + channel + c));
        const __m256i sum =
            _mm256_sub_epi32(_mm256_load_si256((const __m256i *)(y + c)), _mm256_mullo_epi32(zero, weights));
        const __m256 scale = _mm256_mul_ps(x_scale, _mm256_loadu_ps(gemm->scales + channel + c));
        _mm256_store_ps(y + c, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(bias + c)));
    }
}

INLINE void finish(const struct rk_gemm *gemm, uint32_t row, uint32_t channel, bool integers, float y[static CHANNELS])
{
    const size_t count = gemm->out - channel < CHANNELS ? gemm->out - channel : CHANNELS;
    const float *bias = (gemm->biases != NULL ? gemm->biases[row] : gemm->bias) + channel;
    char *to = (char *)gemm->y + row * gemm->y_bytes;
    if (integers)
        scale_int8(gemm, row, channel, bias, y);
    for (uint32_t c = 0; c < CHANNELS; c += 8) {
        __m256 value = _mm256_load_ps(y + c);
        if (!integers)
            value = _mm256_add_ps(value, _mm256_loadu_ps(bias + c));
        if (gemm->relu)
            value = _mm256_max_ps(_mm256_setzero_ps(), value); /* the second operand if either is NaN, or both are 0 */
        _mm256_store_ps(y + c, value);
    }
    if (gemm->to == RK_DENSE_BF16)
        rk_to_bf16_avx2(y, count, (uint16_t *)to + channel);
    else if (gemm->to == RK_DENSE_INT8)
        rk_to_u8_avx2(y, count, gemm->inverse_scale, gemm->zero, (uint8_t *)to + channel);
    else
        memcpy((float *)to + channel, y, count * sizeof *y);
}

#define FLUSH 0x8040u /* results to zero, and inputs */

#define DEFINE(format, most, integers, flush, ...)                                                                     \
    void rk_gemm_##format##_avx2(const struct rk_gemm *gemm)                                                           \
    {                                                                                                                  \
        _Alignas(32) float sums[(most)*CHANNELS];                                                                      \
        const uint32_t flags = _mm_getcsr();                                                                           \
        struct block block = {.x_bytes = gemm->x_bytes, .groups = gemm->groups, .sums = sums};                         \
        for (uint32_t channel = 0; channel < gemm->out; channel += CHANNELS)                                           \
            for (uint32_t row = 0, rows; row < gemm->rows; row += rows) {                                              \
                rows = gemm->rows - row < (most) ? gemm->rows - row : (most);                                          \
                block.x = (const char *)gemm->x + row * gemm->x_bytes;                                                 \
                block.panel = (const char *)gemm->panels + channel / CHANNELS * gemm->panel_bytes;                     \
                if (flush)                                                                                             \
                    _mm_setcsr(flags | FLUSH);                                                                         \
                switch (rows) {                                                                                        \
                    __VA_ARGS__                                                                                        \
                }                                                                                                      \
                if (flush)                                                                                             \
                    _mm_setcsr(flags);                                                                                 \
                for (uint32_t r = 0; r < rows; r++)                                                                    \
                    finish(gemm, row + r, channel, integers, sums + r * CHANNELS);                                     \
            }                                                                                                          \
    }
#define ROWS(format, n)                                                                                                \
    case n:                                                                                                            \
        format##_##n(&block);                                                                                          \
        break;
/* Functions of their own, so that no operation can leave the stretch where the flags are set. */
#define FUNCTION(format, n)                                                                                            \
    static __attribute__((noinline)) void format##_##n(const struct block *block)                                      \
    {                                                                                                                  \
        multiply_##format(block, n);                                                                                   \
    }

FUNCTION(f32, 1)
FUNCTION(f32, 2)
FUNCTION(f32, 3)
FUNCTION(f32, 4)
FUNCTION(f32, 5)
FUNCTION(f32, 6)
DEFINE(f32, 6, false, false, ROWS(f32, 1) ROWS(f32, 2) ROWS(f32, 3) ROWS(f32, 4) ROWS(f32, 5) ROWS(f32, 6))

FUNCTION(bf16, 1)
FUNCTION(bf16, 2)
FUNCTION(bf16, 3)
FUNCTION(bf16, 4)
DEFINE(bf16, 4, false, true, ROWS(bf16, 1) ROWS(bf16, 2) ROWS(bf16, 3) ROWS(bf16, 4))

FUNCTION(int8, 1)
FUNCTION(int8, 2)
DEFINE(int8, 2, true, false, ROWS(int8, 1) ROWS(int8, 2))

#else
typedef int rk_gemm_avx2_not_built; /* a translation unit may not be empty */
#endif
