/* Pairwise dot products for AVX-512: sixteen floats to a register (quant/gram_avx512.h). */
#ifdef __AVX512F__

#include "quant/gram_avx512.h"
#include "quant/kernels_list.h"

GRAM_INLINE __m512 step_f32(__m512 sum, __m512 a, __m512 b)
{
    return _mm512_fmadd_ps(a, b, sum);
}

void rk_gram_f32_avx512(const float *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self, float *z)
{
    gram_run(step_f32, (const void *const *)vectors, first, count, (dim + 15) / 16, self, z);
}

#else
typedef int rk_gram_avx512_not_built; /* a translation unit may not be empty */
#endif
