/* Kernels for AVX2 with FMA: eight floats to a register. A row is pooled in column blocks whose sums stay in registers,
 * so each row is read once and nothing but the result is written. Tails use masked loads, which never touch what lies
 * past the end. */
#ifdef __AVX2__

#include <immintrin.h>

#include "quant/kernels_list.h"

enum { LANES = 8, BLOCK = 4 };

/* The first n < 8 lanes on. */
static inline __m256i tail_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

void rk_pool_f32_avx2(const float *const *rows, const float *weights, size_t count, size_t dim, float *out)
{
    size_t d = 0;
    for (; d + BLOCK * LANES <= dim; d += BLOCK * LANES) {
        __m256 sum[BLOCK] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
        for (size_t i = 0; i < count; i++) {
            const float *row = rows[i] + d;
            __m256 weight = _mm256_set1_ps(weights != NULL ? weights[i] : 1.0f);
            for (int b = 0; b < BLOCK; b++)
                sum[b] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(row + b * LANES), sum[b]);
        }
        for (int b = 0; b < BLOCK; b++)
            _mm256_storeu_ps(out + d + b * LANES, sum[b]);
    }
    for (; d < dim; d += LANES) {
        __m256i mask = tail_mask(dim - d < LANES ? dim - d : LANES);
        __m256 sum = _mm256_setzero_ps();
        for (size_t i = 0; i < count; i++) {
            __m256 weight = _mm256_set1_ps(weights != NULL ? weights[i] : 1.0f);
            sum = _mm256_fmadd_ps(weight, _mm256_maskload_ps(rows[i] + d, mask), sum);
        }
        _mm256_maskstore_ps(out + d, mask, sum);
    }
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
