/* Pairwise dot products of bfloat16 for AVX-512 BF16: VDPBF16PS multiplies 32 pairs (quant/gram_avx512.h). */
#ifdef __AVX512BF16__

#include "quant/gram_avx512.h"
#include "quant/kernels_list.h"

GRAM_INLINE __m512 step_bf16(__m512 sum, __m512 a, __m512 b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

void rk_gram_bf16_avx512_bf16(const uint16_t *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self,
                              float *z)
{
    gram_run(step_bf16, (const void *const *)vectors, first, count, (dim + 31) / 32, self, z);
}

#else
typedef int rk_gram_avx512_bf16_not_built; /* a translation unit may not be empty */
#endif
