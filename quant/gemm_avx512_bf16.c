/* Packed multiplications of bfloat16 for AVX-512 BF16 (quant/gemm_avx512.h): VDPBF16PS multiplies 16 pairs. */
#ifdef __AVX512BF16__

#define GEMM_FLOAT_SUMS
#include "quant/gemm_avx512.h"
#include "quant/kernels_list.h"

GEMM_INLINE __m512i gemm_step(__m512i sum, __m512i x, __m512i weights)
{
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)x, (__m512bh)weights));
}

void rk_gemm_bf16_avx512_bf16(const struct rk_gemm *gemm)
{
    gemm_run(gemm);
}

#else
typedef int rk_gemm_avx512_bf16_not_built; /* a translation unit may not be empty */
#endif
