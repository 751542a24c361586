/* Conversions for AVX-512, sixteen floats at a time, the last ones under a mask. */
#ifdef __AVX512F__

#include <immintrin.h>
#include <math.h>

#include "quant/kernels_list.h"
#include "quant/sigmoid.h"

enum { LANES = 16 };

/* The first n lanes; all of them from 16 upward. */
static inline __mmask16 first_lanes(size_t n)
{
    return (__mmask16)(n < LANES ? (1u << n) - 1 : 0xffffu);
}

void rk_to_bf16_avx512(const float *x, size_t count, uint16_t *y)
{
    for (size_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = first_lanes(count - i);
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + i);
        const __m512i bits = _mm512_castps_si512(value), high = _mm512_srli_epi32(bits, 16);
        const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
        const __m512i even =
            _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
        const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        const __m512i result = _mm512_mask_or_epi32(even, nan, high, _mm512_set1_epi32(0x40));
        _mm512_mask_cvtepi32_storeu_epi16(y + i, lanes, result);
    }
}

void rk_range_avx512(const float *x, size_t count, float *low, float *high)
{
    __m512 least = _mm512_setzero_ps(), most = _mm512_setzero_ps();
    __mmask16 nan = 0;
    for (size_t i = 0; i < count; i += LANES) {
        const __m512 value = _mm512_maskz_loadu_ps(first_lanes(count - i), x + i);
        least = _mm512_min_ps(value, least); /* of a NaN and a number: the second operand */
        most = _mm512_max_ps(value, most);
        nan |= _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    }
    *low = _mm512_reduce_min_ps(least);
    *high = nan != 0 ? NAN : _mm512_reduce_max_ps(most);
}

/* round(x * inverse_scale) within -limit..limit, 0 for a NaN. */
static inline __m512i scaled(__m512 x, __m512 inverse_scale, __m512 limit)
{
    __m512 value = _mm512_mul_ps(x, inverse_scale);
    value = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(value, value, _CMP_ORD_Q), value);
    value = _mm512_max_ps(_mm512_min_ps(value, limit), _mm512_sub_ps(_mm512_setzero_ps(), limit));
    return _mm512_cvtps_epi32(value);
}

void rk_to_u8_avx512(const float *x, size_t count, float inverse_scale, int32_t zero, uint8_t *y)
{
    const __m512 scale = _mm512_set1_ps(inverse_scale), limit = _mm512_set1_ps(255.0f);
    const __m512i zeros = _mm512_set1_epi32(zero);
    for (size_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = first_lanes(count - i);
        const __m512i q = _mm512_add_epi32(scaled(_mm512_maskz_loadu_ps(lanes, x + i), scale, limit), zeros);
        /* The saturating conversion takes its input for unsigned. */
        _mm512_mask_cvtusepi32_storeu_epi8(y + i, lanes, _mm512_max_epi32(q, _mm512_setzero_si512()));
    }
}

void rk_to_s8_avx512(const float *x, size_t count, float inverse_scale, int8_t *y)
{
    const __m512 scale = _mm512_set1_ps(inverse_scale), limit = _mm512_set1_ps(127.0f);
    for (size_t i = 0; i < count; i += LANES) {
        const __mmask16 lanes = first_lanes(count - i);
        _mm512_mask_cvtepi32_storeu_epi8(y + i, lanes, scaled(_mm512_maskz_loadu_ps(lanes, x + i), scale, limit));
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
