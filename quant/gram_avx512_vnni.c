/* Pairwise dot products of bytes for AVX-512 VNNI: VPDPBUSD adds up four products per lane.
 *
 * With 128 elements a dot product is two instructions, so adding up sixteen lanes would take longer than multiplying.
 * Vectors are therefore gathered by fours into the scratch memory, 16 bytes of each in turn:
 *
 *   quad: [chunks of 16 bytes][4 vectors][16 bytes]
 *
 * A row's chunk, broadcast, is multiplied with a quad's line: each of the four sums then has only four lanes to add up,
 * and sums of four quads are folded together into sixteen columns of the row.
 *
 * VPDPBUSD wants one side unsigned: quads hold v + 128, and 128 times the sum of the row's vector is taken off. A quad
 * is gathered just before its first use, so that the shuffles run beside the multiplications of the rows before.
 *
 * Rows are taken four at a time, sixteen columns at a time, the last columns first: a store of sixteen floats runs over
 * the row's end into places that are written later. */
#ifdef __AVX512VNNI__

#include <immintrin.h>

#include "quant/gram_avx512.h"
#include "quant/kernels_list.h"

enum { LINE = 64, CHUNK = 16, QUAD = 4, COLUMNS = 16, ROWS = 4 };

GRAM_INLINE __m512i zero(void)
{
    return _mm512_castps_si512(gram_zero());
}

struct job {
    const int8_t *const *vectors;
    const float *scales;
    uint32_t count;
    size_t bytes;   /* of a vector, a multiple of LINE */
    uint8_t *quads; /* [quads][bytes / CHUNK][QUAD][CHUNK] */
    int32_t *sums;  /* [quads][QUAD]: 128 times the sum of each vector */
};

/* Four lanes of each of four vectors, to the sum of all four in the first. */
GRAM_INLINE __m512i sum_fours(__m512i x)
{
    x = _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC));
    return _mm512_add_epi32(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB));
}

static void gather_quad(const struct job *job, uint32_t quad)
{
    const int8_t *v[QUAD];
    for (uint32_t k = 0; k < QUAD; k++)
        v[k] = job->vectors[quad * QUAD + k < job->count ? quad * QUAD + k : job->count - 1];
    const __m512i offset = _mm512_set1_epi8((char)128);
    __m512i *to = (__m512i *)(job->quads + quad * QUAD * job->bytes);
    __m512i sum0 = _mm512_setzero_si512(), sum1 = sum0;
    for (size_t at = 0; at < job->bytes; at += LINE, to += QUAD) {
        const __m512i v0 = _mm512_load_si512(v[0] + at), v1 = _mm512_load_si512(v[1] + at),
                      v2 = _mm512_load_si512(v[2] + at), v3 = _mm512_load_si512(v[3] + at);
        const __m512i low01 = _mm512_shuffle_i32x4(v0, v1, 0x44), high01 = _mm512_shuffle_i32x4(v0, v1, 0xee),
                      low23 = _mm512_shuffle_i32x4(v2, v3, 0x44), high23 = _mm512_shuffle_i32x4(v2, v3, 0xee);
        const __m512i chunk0 = _mm512_shuffle_i32x4(low01, low23, 0x88),
                      chunk1 = _mm512_shuffle_i32x4(low01, low23, 0xdd),
                      chunk2 = _mm512_shuffle_i32x4(high01, high23, 0x88),
                      chunk3 = _mm512_shuffle_i32x4(high01, high23, 0xdd);
        sum0 = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum0, offset, chunk0), offset, chunk2);
        sum1 = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum1, offset, chunk1), offset, chunk3);
        _mm512_store_si512(to + 0, _mm512_xor_si512(chunk0, offset));
        _mm512_store_si512(to + 1, _mm512_xor_si512(chunk1, offset));
        _mm512_store_si512(to + 2, _mm512_xor_si512(chunk2, offset));
        _mm512_store_si512(to + 3, _mm512_xor_si512(chunk3, offset));
    }
    const __m512i sums = _mm512_maskz_compress_epi32(0x1111, sum_fours(_mm512_add_epi32(sum0, sum1)));
    _mm_store_si128((__m128i *)(job->sums + quad * QUAD), _mm512_castsi512_si128(sums));
}

/* sum += a . b, in place: gcc would move sums from register to register. */
#define ADD_PRODUCTS(sum, a, b) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))

/* In every four lanes: 0 + 2 of x and y, 1 + 3 of x and y. */
GRAM_INLINE __m512i fold_halves(__m512i x, __m512i y)
{
    return _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
}

/* The sums of a row with up to four quads, to one column per lane. */
GRAM_INLINE __m512i fold_row(__m512i s0, __m512i s1, __m512i s2, __m512i s3, int quads)
{
    const __m512i x = fold_halves(s0, s1), y = quads > 2 ? fold_halves(s2, s3) : x,
                  in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(in_order,
                                    _mm512_add_epi32(_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y)));
}

/* Eight columns, or sixteen: half the register is half the work. */
GRAM_INLINE void store_row(const struct job *job, uint32_t i, __m512i sums, __m512 scales, int quads, float *z)
{
    if (quads > 2) {
        sums = _mm512_sub_epi32(sums, _mm512_set1_epi32(job->sums[i]));
        _mm512_storeu_ps(z, _mm512_mul_ps(_mm512_cvtepi32_ps(sums),
                                          _mm512_mul_ps(_mm512_set1_ps(job->scales[i]), scales)));
    } else {
        const __m256i half = _mm256_sub_epi32(_mm512_castsi512_si256(sums), _mm256_set1_epi32(job->sums[i]));
        const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(job->scales[i]), _mm512_castps512_ps256(scales));
        _mm256_storeu_ps(z, _mm256_mul_ps(_mm256_cvtepi32_ps(half), scale));
    }
}

/* Rows i[0..rows) with `quads` quads from `column` on; row r to z[r]. Named sums: arrays would be kept in memory. */
GRAM_INLINE void multiply(const struct job *job, const uint32_t *i, int rows, uint32_t column, int quads,
                          float *const *z)
{
    __m512i s00 = zero(), s01 = zero(), s02 = zero(), s03 = zero(), s10 = zero(), s11 = zero(), s12 = zero(),
            s13 = zero(), s20 = zero(), s21 = zero(), s22 = zero(), s23 = zero(), s30 = zero(), s31 = zero(),
            s32 = zero(), s33 = zero();
    const int8_t *a0 = job->vectors[i[0]], *a1 = job->vectors[i[1]], *a2 = job->vectors[i[2]], *a3 = job->vectors[i[3]];
    const size_t bytes = job->bytes, quad_bytes = QUAD * bytes;
    const uint8_t *b = job->quads + column * bytes;
    for (size_t at = 0; at < bytes; at += CHUNK, b += LINE) {
        const __m512i b0 = _mm512_load_si512(b);
        const __m512i b1 = quads > 1 ? _mm512_load_si512(b + quad_bytes) : b0;
        const __m512i b2 = quads > 2 ? _mm512_load_si512(b + 2 * quad_bytes) : b0;
        const __m512i b3 = quads > 3 ? _mm512_load_si512(b + 3 * quad_bytes) : b0;
#define ROW(a, x0, x1, x2, x3)                                                                                         \
    do {                                                                                                               \
        const __m512i chunk = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)((a) + at)));                     \
        ADD_PRODUCTS(x0, b0, chunk);                                                                                   \
        if (quads > 1)                                                                                                 \
            ADD_PRODUCTS(x1, b1, chunk);                                                                               \
        if (quads > 2)                                                                                                 \
            ADD_PRODUCTS(x2, b2, chunk);                                                                               \
        if (quads > 3)                                                                                                 \
            ADD_PRODUCTS(x3, b3, chunk);                                                                               \
    } while (0)
        ROW(a0, s00, s01, s02, s03);
        ROW(a1, s10, s11, s12, s13);
        if (rows > 2) {
            ROW(a2, s20, s21, s22, s23);
            ROW(a3, s30, s31, s32, s33);
        }
#undef ROW
    }
    const uint32_t left = job->count - column;
    const __m512 scales =
        _mm512_maskz_loadu_ps((__mmask16)(left < COLUMNS ? (1u << left) - 1 : 0xffffu), job->scales + column);
    store_row(job, i[0], fold_row(s00, s01, s02, s03, quads), scales, quads, z[0] + column);
    store_row(job, i[1], fold_row(s10, s11, s12, s13, quads), scales, quads, z[1] + column);
    if (rows > 2) {
        store_row(job, i[2], fold_row(s20, s21, s22, s23, quads), scales, quads, z[2] + column);
        store_row(job, i[3], fold_row(s30, s31, s32, s33, quads), scales, quads, z[3] + column);
    }
}

/* Rows that end within the same quad. */
GRAM_INLINE void multiply_rows(const struct job *job, const uint32_t *i, int rows, uint32_t quads, float *const *z)
{
    const uint32_t whole = quads * QUAD / COLUMNS * COLUMNS;
    switch (quads % (COLUMNS / QUAD)) {
    case 1:
        multiply(job, i, rows, whole, 1, z);
        break;
    case 2:
        multiply(job, i, rows, whole, 2, z);
        break;
    case 3:
        multiply(job, i, rows, whole, 3, z);
        break;
    default:
        break;
    }
    for (uint32_t column = whole; column > 0; column -= COLUMNS)
        multiply(job, i, rows, column - COLUMNS, 4, z);
}

void rk_gram_int8_avx512_vnni(const int8_t *const *vectors, const float *scales, uint32_t first, uint32_t count,
                              uint32_t dim, bool self, void *scratch, float *z)
{
    struct job job = {.vectors = vectors, .scales = scales, .count = count, .quads = scratch};
    job.bytes = ((size_t)dim + LINE - 1) / LINE * LINE;
    job.sums = (int32_t *)(job.quads + ((size_t)count + QUAD - 1) / QUAD * QUAD * job.bytes);
    uint32_t gathered = 0;
    for (uint32_t i = first + self > 0 ? first : 1; i < count;) {
        const uint32_t quads = (i + self + QUAD - 1) / QUAD, end = quads * QUAD + 1 - self,
                       last = (end < count ? end : count) - 1;
        for (; gathered <= last / QUAD; gathered++)
            gather_quad(&job, gathered);
        uint32_t rows[ROWS];
        float *to[ROWS];
        for (uint32_t r = 0; r < ROWS; r++) { /* where rows are missing the last one is done again */
            rows[r] = i + r < last ? i + r : last;
            to[r] = z + rk_gram_elements(rows[r], self) - rk_gram_elements(first, self);
        }
        if (last - i < 2)
            multiply_rows(&job, rows, 2, quads, to);
        else
            multiply_rows(&job, rows, 4, quads, to);
        i = last + 1;
    }
}

#else
typedef int rk_gram_avx512_vnni_not_built; /* a translation unit may not be empty */
#endif
