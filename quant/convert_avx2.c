/* Conversions for AVX2 with FMA, eight floats at a time. What is left at the end goes through the scalar variant, whose
 * bits these are. */
#ifdef __AVX2__

#include <immintrin.h>
#include <math.h>

#include "quant/kernels_list.h"
#include "quant/sigmoid.h"

enum { LANES = 8 };

void rk_to_bf16_avx2(const float *x, size_t count, uint16_t *y)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m256 value = _mm256_loadu_ps(x + i);
        const __m256i bits = _mm256_castps_si256(value), high = _mm256_srli_epi32(bits, 16);
        const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        const __m256i even =
            _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
        const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
        const __m256i result = _mm256_blendv_epi8(even, quiet, nan);
        _mm_storeu_si128((__m128i *)(y + i),
                         _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1)));
    }
    rk_to_bf16_scalar(x + i, count - i, y + i);
}

void rk_range_avx2(const float *x, size_t count, float *low, float *high)
{
    __m256 least = _mm256_setzero_ps(), most = _mm256_setzero_ps(), nan = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m256 value = _mm256_loadu_ps(x + i);
        least = _mm256_min_ps(value, least); /* of a NaN and a number: the second operand */
        most = _mm256_max_ps(value, most);
        nan = _mm256_or_ps(nan, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    }
    float lows[LANES], highs[LANES], rest_low, rest_high;
    _mm256_storeu_ps(lows, least);
    _mm256_storeu_ps(highs, most);
    rk_range_scalar(x + i, count - i, &rest_low, &rest_high);
    for (int l = 0; l < LANES; l++) {
        rest_low = lows[l] < rest_low ? lows[l] : rest_low;
        rest_high = highs[l] > rest_high ? highs[l] : rest_high; /* NaN stays */
    }
    *low = rest_low;
    *high = _mm256_movemask_ps(nan) != 0 ? NAN : rest_high;
}

/* round(x * inverse_scale) within -limit..limit, 0 for a NaN. */
static inline __m256i scaled(const float *x, __m256 inverse_scale, __m256 limit)
{
    __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x), inverse_scale);
    value = _mm256_and_ps(value, _mm256_cmp_ps(value, value, _CMP_ORD_Q));
    value = _mm256_max_ps(_mm256_min_ps(value, limit), _mm256_sub_ps(_mm256_setzero_ps(), limit));
    return _mm256_cvtps_epi32(value);
}

/* Eight 32-bit numbers within 16 bits. */
static inline __m128i narrow(__m256i value)
{
    return _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
}

void rk_to_u8_avx2(const float *x, size_t count, float inverse_scale, int32_t zero, uint8_t *y)
{
    const __m256 scale = _mm256_set1_ps(inverse_scale), limit = _mm256_set1_ps(255.0f);
    const __m256i zeros = _mm256_set1_epi32(zero);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m128i q = narrow(_mm256_add_epi32(scaled(x + i, scale, limit), zeros));
        _mm_storel_epi64((__m128i *)(y + i), _mm_packus_epi16(q, q));
    }
    rk_to_u8_scalar(x + i, count - i, inverse_scale, zero, y + i);
}

void rk_to_s8_avx2(const float *x, size_t count, float inverse_scale, int8_t *y)
{
    const __m256 scale = _mm256_set1_ps(inverse_scale), limit = _mm256_set1_ps(127.0f);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m128i q = narrow(scaled(x + i, scale, limit));
        _mm_storel_epi64((__m128i *)(y + i), _mm_packs_epi16(q, q));
    }
    rk_to_s8_scalar(x + i, count - i, inverse_scale, y + i);
}

void rk_sigmoid_avx2(const float *x, size_t count, float *y)
{
    static const float terms[] = {RK_EXP_TERMS};
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        const __m256 value = _mm256_loadu_ps(x + i), z = _mm256_or_ps(value, sign);
        const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(RK_EXP_LEAST), z); /* a NaN stays one */
        const __m256 n = _mm256_round_ps(_mm256_mul_ps(bounded, _mm256_set1_ps(RK_LOG2_E)),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-RK_LN2_HIGH), bounded);
        r = _mm256_fmadd_ps(n, _mm256_set1_ps(-RK_LN2_LOW), r);
        __m256 sum = _mm256_set1_ps(terms[0]);
        for (size_t t = 1; t < sizeof terms / sizeof *terms; t++)
            sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(terms[t]));
        const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
        __m256 e = _mm256_mul_ps(sum, _mm256_castsi256_ps(power));
        e = _mm256_andnot_ps(_mm256_cmp_ps(z, _mm256_set1_ps(RK_EXP_LEAST), _CMP_LT_OQ), e);
        const __m256 positive = _mm256_cmp_ps(value, _mm256_setzero_ps(), _CMP_GE_OQ);
        _mm256_storeu_ps(y + i, _mm256_div_ps(_mm256_blendv_ps(e, one, positive), _mm256_add_ps(one, e)));
    }
    rk_sigmoid_scalar(x + i, count - i, y + i);
}

#else
typedef int rk_convert_avx2_not_built; /* a translation unit may not be empty */
#endif
