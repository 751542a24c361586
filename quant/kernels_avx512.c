/* Kernels for AVX-512: sixteen floats to a register, tails by masked loads, which never touch what lies past the
 * end. */
#ifdef __AVX512F__

#include <immintrin.h>

#include "quant/kernels_list.h"

enum { LANES = 16 };

/* The first n lanes on; all of them from 16 upward. */
static inline __mmask16 tail_mask(size_t n)
{
    return (__mmask16)(n < LANES ? (1u << n) - 1 : 0xffffu);
}

float rk_dot_f32_avx512(const float *a, const float *b, size_t dim)
{
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    size_t d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) {
        even = _mm512_fmadd_ps(_mm512_loadu_ps(a + d), _mm512_loadu_ps(b + d), even);
        odd = _mm512_fmadd_ps(_mm512_loadu_ps(a + d + LANES), _mm512_loadu_ps(b + d + LANES), odd);
    }
    for (; d < dim; d += LANES) {
        __mmask16 mask = tail_mask(dim - d);
        even = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + d), _mm512_maskz_loadu_ps(mask, b + d), even);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

#else
typedef int rk_kernels_avx512_not_built; /* a translation unit may not be empty */
#endif
