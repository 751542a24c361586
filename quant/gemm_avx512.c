/* Packed multiplications of float32 for AVX-512 (quant/gemm_avx512.h). */
#ifdef __AVX512F__

#define GEMM_FLOAT_SUMS
#include "quant/gemm_avx512.h"
#include "quant/kernels_list.h"

GEMM_INLINE __m512i gemm_step(__m512i sum, __m512i x, __m512i weights)
{
    return _mm512_castps_si512(
        _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(weights), _mm512_castsi512_ps(sum)));
}

void rk_gemm_f32_avx512(const struct rk_gemm *gemm)
{
    gemm_run(gemm);
}

#else
typedef int rk_gemm_avx512_not_built; /* a translation unit may not be empty */
#endif
