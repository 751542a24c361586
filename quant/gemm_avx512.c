/* Packed multiplications of float32 for AVX-512 (quant/gemm_avx512.h). */
#ifdef __AVX512F__

#include "quant/gemm_avx512.h"
#include "quant/kernels_list.h"

GEMM_INLINE __m512i gemm_step(__m512i sum, __m512i x, __m512i weights)
{
    return _mm512_castps_si512(
        _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(weights), _mm512_castsi512_ps(sum)));
}

GEMM_INLINE __m512 gemm_finish(const struct rk_gemm *gemm, __m512i sums, uint32_t row, uint32_t channel)
{
    (void)row;
    return _mm512_add_ps(_mm512_castsi512_ps(sums), _mm512_loadu_ps(gemm->bias + channel));
}

void rk_gemm_f32_avx512(const struct rk_gemm *gemm)
{
    gemm_run(gemm);
}

#else
typedef int rk_gemm_avx512_not_built; /* a translation unit may not be empty */
#endif
