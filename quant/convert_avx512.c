/* Conversions for AVX-512, sixteen floats at a time, the last ones under a mask. */
#ifdef __AVX512F__

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "quant/kernels_list.h"
#include "quant/sigmoid.h"

enum { LANES = 16 };

/* The first n lanes; all of them from 16 upward. */
static inline __mmask16 first_lanes(size_t n)
{
    return (__mmask16)(n < LANES ? (1u << n) - 1 : 0xffffu);
}

/* Of 64 and more, the elements of four registers are rounded to 32 bits each and brought together by two narrowings,
 * which work within quarters of a register; a shuffle puts the quarters' pieces in order. Narrowing under a mask, and
 * narrowing stores, take many times as long: the rest, sixteen at a time, goes through a buffer. */
enum { BLOCK = 4 * LANES };

static inline __m512i gather_quarters(__m512i bytes)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
}

/* The bits of bfloat16 in the upper half of each. */
static inline __m512i rounded(__m512 value)
{
    const __m512i bits = _mm512_castps_si512(value), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
}

static inline __m512i rounded_or_nan(__m512 value)
{
    const __m512i quiet = _mm512_or_si512(_mm512_castps_si512(value), _mm512_set1_epi32(0x400000));
    return _mm512_mask_mov_epi32(rounded(value), _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), quiet);
}

void rk_to_bf16_avx512(const float *x, size_t count, uint16_t *y)
{
    const __m512i upper = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                                           25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    size_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        const __m512 first = _mm512_loadu_ps(x + i), second = _mm512_loadu_ps(x + i + LANES);
        __m512i low = rounded(first), high = rounded(second);
        if (__builtin_expect(_mm512_cmp_ps_mask(first, second, _CMP_UNORD_Q) != 0, 0)) {
            low = rounded_or_nan(first);
            high = rounded_or_nan(second);
        }
        _mm512_storeu_si512(y + i, _mm512_permutex2var_epi16(low, upper, high));
    }
    for (; i < count; i += LANES) {
        const __m512 value = _mm512_maskz_loadu_ps(first_lanes(count - i), x + i);
        const __m256i words = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_or_nan(value), 16));
        uint16_t rest[LANES];
        _mm256_storeu_si256((__m256i *)rest, words);
        memcpy(y + i, rest, (count - i < LANES ? count - i : LANES) * sizeof *y);
    }
}

/* The least and the most of all lanes: as the least of both halves of one register. No zero in it is of the wrong sign:
 * `least` has none but +0, and neither has `most`. */
static inline void reduce(__m512 least, __m512 most, float *low, float *high)
{
    const __m512 negated =
        _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(most), _mm512_set1_epi32((int)0x80000000)));
    __m512 both = _mm512_min_ps(_mm512_shuffle_f32x4(least, negated, _MM_SHUFFLE(1, 0, 1, 0)),
                                _mm512_shuffle_f32x4(least, negated, _MM_SHUFFLE(3, 2, 3, 2)));
    both = _mm512_min_ps(both, _mm512_shuffle_f32x4(both, both, _MM_SHUFFLE(2, 3, 0, 1)));
    both = _mm512_min_ps(both, _mm512_permute_ps(both, _MM_SHUFFLE(1, 0, 3, 2)));
    both = _mm512_min_ps(both, _mm512_permute_ps(both, _MM_SHUFFLE(2, 3, 0, 1)));
    *low = _mm512_cvtss_f32(both);
    *high = -_mm_cvtss_f32(_mm512_extractf32x4_ps(both, 2));
}

void rk_range_avx512(const float *x, size_t count, float *low, float *high)
{
    /* of a NaN and a number, or of two zeros, the second operand */
    __m512 least = _mm512_setzero_ps(), most = least, least1 = least, most1 = least;
    __mmask16 nan = 0;
    size_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        const __m512 first = _mm512_loadu_ps(x + i), second = _mm512_loadu_ps(x + i + LANES);
        least = _mm512_min_ps(first, least);
        most = _mm512_max_ps(first, most);
        least1 = _mm512_min_ps(second, least1);
        most1 = _mm512_max_ps(second, most1);
        nan |= _mm512_cmp_ps_mask(first, second, _CMP_UNORD_Q);
    }
    for (; i < count; i += LANES) {
        const __m512 value = _mm512_maskz_loadu_ps(first_lanes(count - i), x + i);
        least = _mm512_min_ps(value, least);
        most = _mm512_max_ps(value, most);
        nan |= _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    }
    reduce(_mm512_min_ps(least, least1), _mm512_max_ps(most, most1), low, high);
    if (nan != 0)
        *high = NAN;
}

/* round(x * inverse_scale), 0 for a NaN, at most `limit`. What is far below turns into INT32_MIN, which the narrowings
 * take for what it is: very low. */
static inline __m512i scaled(__m512 x, __m512 inverse_scale, __m512 limit)
{
    const __m512 value = _mm512_mul_ps(x, inverse_scale);
    return _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(value, value, _CMP_ORD_Q), _mm512_min_ps(limit, value));
}

/* The two halves of 64 scaled elements as 16 bits each, quarter by quarter. */
static inline void scale_block(const float *x, __m512 inverse_scale, __m512 limit, __m512i halves[2])
{
    for (int h = 0; h < 2; h++) {
        const __m512i first = scaled(_mm512_loadu_ps(x + 2 * h * LANES), inverse_scale, limit);
        const __m512i second = scaled(_mm512_loadu_ps(x + (2 * h + 1) * LANES), inverse_scale, limit);
        halves[h] = _mm512_packs_epi32(first, second);
    }
}

/* The elements that do not fill a block, in one. */
static inline void fill_block(const float *x, size_t count, float block[BLOCK])
{
    for (size_t i = 0; i < BLOCK; i += LANES)
        _mm512_storeu_ps(block + i,
                         i < count ? _mm512_maskz_loadu_ps(first_lanes(count - i), x + i) : _mm512_setzero_ps());
}

static inline __m512i block_to_u8(const float *x, __m512 inverse_scale, __m512i zeros)
{
    __m512i halves[2];
    scale_block(x, inverse_scale, _mm512_set1_ps(255.0f), halves);
    return gather_quarters(
        _mm512_packus_epi16(_mm512_adds_epi16(halves[0], zeros), _mm512_adds_epi16(halves[1], zeros)));
}

static inline __m512i block_to_s8(const float *x, __m512 inverse_scale)
{
    __m512i halves[2];
    scale_block(x, inverse_scale, _mm512_set1_ps(127.0f), halves);
    const __m512i bytes = _mm512_packs_epi16(halves[0], halves[1]); /* down to -128 */
    return gather_quarters(_mm512_max_epi8(bytes, _mm512_set1_epi8(-127)));
}

void rk_to_u8_avx512(const float *x, size_t count, float inverse_scale, int32_t zero, uint8_t *y)
{
    const __m512 scale = _mm512_set1_ps(inverse_scale);
    const __m512i zeros = _mm512_set1_epi16((int16_t)zero);
    size_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK)
        _mm512_storeu_si512(y + i, block_to_u8(x + i, scale, zeros));
    if (i < count) {
        float rest[BLOCK];
        fill_block(x + i, count - i, rest);
        _mm512_mask_storeu_epi8(y + i, ~UINT64_C(0) >> (BLOCK - (count - i)), block_to_u8(rest, scale, zeros));
    }
}

void rk_to_s8_avx512(const float *x, size_t count, float inverse_scale, int8_t *y)
{
    const __m512 scale = _mm512_set1_ps(inverse_scale);
    size_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK)
        _mm512_storeu_si512(y + i, block_to_s8(x + i, scale));
    if (i < count) {
        float rest[BLOCK];
        fill_block(x + i, count - i, rest);
        _mm512_mask_storeu_epi8(y + i, ~UINT64_C(0) >> (BLOCK - (count - i)), block_to_s8(rest, scale));
    }
}

void rk_sigmoid_avx512(const float *x, size_t count, float *y)
{
    static const float terms[] = {RK_EXP_TERMS};
    const __m512 one = _mm512_set1_ps(1.0f);
    for (size_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = first_lanes(count - i);
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i), z = _mm512_or_ps(value, _mm512_set1_ps(-0.0f));
        const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(RK_EXP_LEAST), z); /* a NaN stays one */
        const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(bounded, _mm512_set1_ps(RK_LOG2_E)),
                                              _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-RK_LN2_HIGH), bounded);
        r = _mm512_fmadd_ps(n, _mm512_set1_ps(-RK_LN2_LOW), r);
        __m512 sum = _mm512_set1_ps(terms[0]);
        for (size_t t = 1; t < sizeof terms / sizeof *terms; t++)
            sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(terms[t]));
        const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
        __m512 e = _mm512_mul_ps(sum, _mm512_castsi512_ps(power));
        e = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, _mm512_set1_ps(RK_EXP_LEAST), _CMP_NLT_UQ), e);
        const __mmask16 positive = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_GE_OQ);
        _mm512_mask_storeu_ps(y + i, lanes, _mm512_div_ps(_mm512_mask_mov_ps(e, positive, one), _mm512_add_ps(one, e)));
    }
}

#else
typedef int rk_convert_avx512_not_built; /* a translation unit may not be empty */
#endif
