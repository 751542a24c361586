/* Packed multiplications of bytes for AVX-512 VNNI (quant/gemm_avx512.h): VPDPBUSD multiplies 16 times 4. */
#ifdef __AVX512VNNI__

#include "quant/gemm_avx512.h"
#include "quant/kernels_list.h"

GEMM_INLINE __m512i gemm_step(__m512i sum, __m512i x, __m512i weights)
{
    return _mm512_dpbusd_epi32(sum, x, weights);
}

GEMM_INLINE __m512 gemm_finish(const struct rk_gemm *gemm, __m512i sums, uint32_t row, uint32_t channel)
{
    const size_t at = row * gemm->x_step;
    const __m512i weights = _mm512_loadu_si512(gemm->sums + channel);
    const __m512i zeros = _mm512_mullo_epi32(_mm512_set1_epi32(gemm->x_zeros[at]), weights);
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(gemm->x_scales[at]), _mm512_loadu_ps(gemm->scales + channel));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sums, zeros)), scale,
                           _mm512_loadu_ps(gemm->bias + channel));
}

void rk_gemm_int8_avx512_vnni(const struct rk_gemm *gemm)
{
    gemm_run(gemm);
}

#else
typedef int rk_gemm_avx512_vnni_not_built; /* a translation unit may not be empty */
#endif
