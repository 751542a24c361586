/* Pairwise dot products for AVX2 with FMA: one row and four columns at a time, whose sums stay in registers.
 *
 * A sum's sixteen lanes are two registers, lanes 0 to 7 and 8 to 15. Four floats are stored at a time, up to three more
 * than the row has; they land where the next row's come. */
#ifdef __AVX2__

#include <immintrin.h>

#include "quant/kernels_list.h"

#define INLINE static inline __attribute__((always_inline))

enum { LINE = 64, COLUMNS = 4, FLUSH_SUBNORMALS = 0x8040 };

/* sum + the products of eight lanes of a and b */
typedef __m256 step_fn(__m256 sum, __m256 a, __m256 b);

INLINE __m256 step_f32(__m256 sum, __m256 a, __m256 b)
{
    return _mm256_fmadd_ps(a, b, sum);
}

/* As quant/bf16_dot.h says, while subnormal numbers are flushed. */
INLINE __m256 step_bf16(__m256 sum, __m256 a, __m256 b)
{
    const __m256 odd = _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u));
    sum = _mm256_fmadd_ps(_mm256_and_ps(a, odd), _mm256_and_ps(b, odd), sum);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16)),
                           _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(b), 16)), sum);
}

/* Per four lanes of four sums: (0 + 2) + (1 + 3) of each, in order. */
INLINE __m256 fold_fours(__m256 s0, __m256 s1, __m256 s2, __m256 s3)
{
    const __m256 x = _mm256_add_ps(_mm256_unpacklo_ps(s0, s1), _mm256_unpackhi_ps(s0, s1)),
                 y = _mm256_add_ps(_mm256_unpacklo_ps(s2, s3), _mm256_unpackhi_ps(s2, s3));
    const __m256d p = _mm256_castps_pd(x), q = _mm256_castps_pd(y);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(p, q)), _mm256_castpd_ps(_mm256_unpackhi_pd(p, q)));
}

INLINE __m128 fold_halves(__m256 x)
{
    return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
}

/* The control register, once these sums are what they are and before they change. */
#define SET_CONTROL(value)                                                                                             \
    __asm__ volatile("vldmxcsr %8"                                                                                     \
                     : "+x"(low0), "+x"(low1), "+x"(low2), "+x"(low3), "+x"(high0), "+x"(high1), "+x"(high2),          \
                       "+x"(high3)                                                                                     \
                     : "m"(value))

INLINE __m128 multiply_floats(step_fn *step, bool flush, const char *a, const char *const *b, size_t bytes)
{
    __m256 low0 = _mm256_setzero_ps(), low1 = low0, low2 = low0, low3 = low0, high0 = low0, high1 = low0, high2 = low0,
           high3 = low0;
    const uint32_t control = _mm_getcsr(), flushing = control | FLUSH_SUBNORMALS;
    if (flush)
        SET_CONTROL(flushing);
#define LOAD(from) _mm256_load_ps((const float *)(const void *)(from))
    for (size_t at = 0; at < bytes; at += LINE) {
        const __m256 low = LOAD(a + at), high = LOAD(a + at + LINE / 2);
        low0 = step(low0, low, LOAD(b[0] + at));
        low1 = step(low1, low, LOAD(b[1] + at));
        low2 = step(low2, low, LOAD(b[2] + at));
        low3 = step(low3, low, LOAD(b[3] + at));
        high0 = step(high0, high, LOAD(b[0] + at + LINE / 2));
        high1 = step(high1, high, LOAD(b[1] + at + LINE / 2));
        high2 = step(high2, high, LOAD(b[2] + at + LINE / 2));
        high3 = step(high3, high, LOAD(b[3] + at + LINE / 2));
    }
#undef LOAD
    if (flush)
        SET_CONTROL(control);
    return _mm_add_ps(fold_halves(fold_fours(low0, low1, low2, low3)),
                      fold_halves(fold_fours(high0, high1, high2, high3)));
}

/* The four columns from j on; past the row's end, any vector serves. */
INLINE void take_columns(const char *const *vectors, uint32_t count, uint32_t j, const char **b)
{
    for (uint32_t k = 0; k < COLUMNS; k++)
        b[k] = vectors[j + k < count ? j + k : j];
}

INLINE void gram_floats(step_fn *step, bool flush, const char *const *vectors, uint32_t first, uint32_t count,
                        size_t bytes, bool self, float *z)
{
    for (uint32_t i = first; i < count; i++) {
        for (uint32_t j = 0; j < i + self; j += COLUMNS) {
            const char *b[COLUMNS];
            take_columns(vectors, count, j, b);
            _mm_storeu_ps(z + j, multiply_floats(step, flush, vectors[i], b, bytes));
        }
        z += i + self;
    }
}

void rk_gram_f32_avx2(const float *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self, float *z)
{
    gram_floats(step_f32, false, (const char *const *)vectors, first, count, ((size_t)dim + 15) / 16 * LINE, self, z);
}

void rk_gram_bf16_avx2(const uint16_t *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self,
                       float *z)
{
    gram_floats(step_bf16, true, (const char *const *)vectors, first, count, ((size_t)dim + 31) / 32 * LINE, self, z);
}

INLINE __m128i multiply_bytes(const char *a, const char *const *b, size_t bytes)
{
    __m256i sum0 = _mm256_setzero_si256(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
#define LOAD(from) _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)(from)))
    for (size_t at = 0; at < bytes; at += 16) {
        const __m256i row = LOAD(a + at);
        sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(row, LOAD(b[0] + at)));
        sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(row, LOAD(b[1] + at)));
        sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(row, LOAD(b[2] + at)));
        sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(row, LOAD(b[3] + at)));
    }
#undef LOAD
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(sum0, sum1), _mm256_hadd_epi32(sum2, sum3));
    return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

void rk_gram_int8_avx2(const int8_t *const *vectors, const float *scales, uint32_t first, uint32_t count, uint32_t dim,
                       bool self, void *scratch, float *z)
{
    (void)scratch;
    const char *const *at = (const char *const *)vectors;
    const size_t bytes = ((size_t)dim + 15) / 16 * 16;
    for (uint32_t i = first; i < count; i++) {
        for (uint32_t j = 0; j < i + self; j += COLUMNS) {
            const char *b[COLUMNS];
            take_columns(at, count, j, b);
            const __m128i there = _mm_cmpgt_epi32(_mm_set1_epi32((int)(count - j)), _mm_setr_epi32(0, 1, 2, 3));
            const __m128 scale = _mm_mul_ps(_mm_set1_ps(scales[i]), _mm_maskload_ps(scales + j, there));
            _mm_storeu_ps(z + j, _mm_mul_ps(_mm_cvtepi32_ps(multiply_bytes(at[i], b, bytes)), scale));
        }
        z += i + self;
    }
}

#else
typedef int rk_gram_avx2_not_built; /* a translation unit may not be empty */
#endif
