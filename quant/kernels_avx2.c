/* Kernels for AVX2 with FMA: eight floats to a register. Tails use masked loads, which never touch what lies past the
 * end. */
#ifdef __AVX2__

#include <immintrin.h>

#include "quant/kernels_list.h"

enum { LANES = 8 };

/* The first n < 8 lanes on. */
static inline __m256i tail_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline float sum_of_lanes(__m256 v)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

float rk_dot_f32_avx2(const float *a, const float *b, size_t dim)
{
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    size_t d = 0;
    for (; d + 2 * LANES <= dim; d += 2 * LANES) {
        even = _mm256_fmadd_ps(_mm256_loadu_ps(a + d), _mm256_loadu_ps(b + d), even);
        odd = _mm256_fmadd_ps(_mm256_loadu_ps(a + d + LANES), _mm256_loadu_ps(b + d + LANES), odd);
    }
    for (; d < dim; d += LANES) {
        __m256i mask = tail_mask(dim - d < LANES ? dim - d : LANES);
        even = _mm256_fmadd_ps(_mm256_maskload_ps(a + d, mask), _mm256_maskload_ps(b + d, mask), even);
    }
    return sum_of_lanes(_mm256_add_ps(even, odd));
}

#else
typedef int rk_kernels_avx2_not_built; /* a translation unit may not be empty */
#endif
