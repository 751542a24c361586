/* Pooled lookup for AVX2 with FMA and F16C: eight elements to a register. The sums of up to 64 columns stay in
 * registers while the rows go by. What is special to a format is two small functions: `head` prepares what one row's
 * elements share, `decode` turns the bytes of eight elements into numbers. */
#ifdef __AVX2__

#include <immintrin.h>
#include <string.h>

#include "quant/kernels_list.h"
#include "quant/pool_tables.h"

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8, COLUMNS = 8 }; /* registers of sums at most */

/* What the elements of one row share. */
struct head {
    __m256 scale, bias;
    const uint8_t *mx_scales;
};

typedef struct head head_fn(const uint8_t *row, size_t dim);
/* `bytes` holds the elements of register k from column d on, a multiple of 32 where k > 0; mx_scales begins at d. */
typedef __m256 decode_fn(const uint8_t *bytes, const struct head *head, int k);

struct format {
    head_fn *head;
    decode_fn *decode;
    int bits; /* and so the bytes of LANES elements */
};

/* Fewer than 32 bytes, none more. */
INLINE void copy_tail(uint8_t *to, const uint8_t *from, size_t bytes)
{
    for (size_t step = 16; step > 0; step /= 2)
        if (bytes & step) {
            memcpy(to, from, step);
            to += step;
            from += step;
        }
}

/* Columns [d, d + n * LANES), or the `tail` columns from d on with n = 1. Row i has weights[i * step]. */
INLINE void pool_columns(const struct format format, int n, size_t tail, const void *const *rows, const float *weights,
                         size_t step, size_t count, size_t dim, size_t d, bool add, float *out)
{
    float edge[LANES] = {0};
    float *to = tail > 0 ? edge : out + d;
    if (tail > 0 && add)
        memcpy(edge, out + d, tail * sizeof *edge);
    __m256 sum[COLUMNS];
    for (int k = 0; k < n; k++)
        sum[k] = add ? _mm256_loadu_ps(to + k * LANES) : _mm256_setzero_ps();
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = rows[i], *bytes = row + d / 8 * (size_t)format.bits;
        struct head head = format.head(row, dim);
        head.mx_scales = row + (dim * (size_t)format.bits + 7) / 8 + d / 32;
        const __m256 weight = _mm256_set1_ps(weights[i * step]);
        uint8_t copy[32] = {0};
        if (tail > 0) { /* what lies past the row's elements is not touched */
            copy_tail(copy, bytes, (tail * (size_t)format.bits + 7) / 8);
            bytes = copy;
        }
        for (int k = 0; k < n; k++)
            sum[k] = _mm256_fmadd_ps(weight, format.decode(bytes + k * format.bits, &head, k), sum[k]);
    }
    for (int k = 0; k < n; k++)
        _mm256_storeu_ps(to + k * LANES, sum[k]);
    if (tail > 0)
        memcpy(out + d, edge, tail * sizeof *edge);
}

INLINE void pool(const struct format format, const void *const *rows, const float *weights, size_t count, size_t dim,
                 bool add, float *out)
{
    const float one = 1.0f;
    const size_t step = weights != NULL;
    weights = weights != NULL ? weights : &one;
    size_t d = 0;
    for (; d + 8 * LANES <= dim; d += 8 * LANES)
        pool_columns(format, 8, 0, rows, weights, step, count, dim, d, add, out);
    if (d + 4 * LANES <= dim) {
        pool_columns(format, 4, 0, rows, weights, step, count, dim, d, add, out);
        d += 4 * LANES;
    }
    for (; d + LANES <= dim; d += LANES)
        pool_columns(format, 1, 0, rows, weights, step, count, dim, d, add, out);
    if (d < dim)
        pool_columns(format, 1, dim - d, rows, weights, step, count, dim, d, add, out);
}

/* ---- heads ---- */

INLINE struct head no_head(const uint8_t *row, size_t dim)
{
    (void)row;
    (void)dim;
    return (struct head){0};
}

INLINE __m256 broadcast(const uint8_t *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return _mm256_set1_ps(value);
}

INLINE struct head int8_head(const uint8_t *row, size_t dim)
{
    return (struct head){.scale = broadcast(row + dim), .bias = broadcast(row + dim + 4)};
}

INLINE struct head fp8_head(const uint8_t *row, size_t dim)
{
    return (struct head){.scale = broadcast(row + dim)};
}

INLINE struct head narrow_int_head(const uint8_t *tail)
{
    uint32_t halves; /* scale, bias */
    memcpy(&halves, tail, sizeof halves);
    const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128((int)halves));
    return (struct head){.scale = _mm256_broadcastss_ps(both), .bias = _mm256_broadcastss_ps(_mm_movehdup_ps(both))};
}

INLINE struct head int4_head(const uint8_t *row, size_t dim)
{
    return narrow_int_head(row + (dim + 1) / 2);
}

INLINE struct head int2_head(const uint8_t *row, size_t dim)
{
    return narrow_int_head(row + (dim + 3) / 4);
}

/* ---- elements ---- */

INLINE __m256 f32(const uint8_t *bytes, const struct head *head, int k)
{
    (void)head;
    (void)k;
    return _mm256_loadu_ps((const float *)bytes);
}

INLINE __m256 f16(const uint8_t *bytes, const struct head *head, int k)
{
    (void)head;
    (void)k;
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)bytes));
}

INLINE __m256 bf16(const uint8_t *bytes, const struct head *head, int k)
{
    (void)head;
    (void)k;
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i_u *)bytes));
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

INLINE __m256 int8(const uint8_t *bytes, const struct head *head, int k)
{
    (void)k;
    const __m256i q = _mm256_cvtepu8_epi32(_mm_loadu_si64(bytes));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), head->scale, head->bias);
}

INLINE __m256 shifted_int(uint32_t bits, __m256i shifts, int mask, const struct head *head)
{
    const __m256i q =
        _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)bits), shifts), _mm256_set1_epi32(mask));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), head->scale, head->bias);
}

INLINE __m256 int4(const uint8_t *bytes, const struct head *head, int k)
{
    (void)k;
    uint32_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return shifted_int(bits, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28), 15, head);
}

INLINE __m256 int2(const uint8_t *bytes, const struct head *head, int k)
{
    (void)k;
    uint16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    return shifted_int(bits, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14), 3, head);
}

/* Small floats become float16, which holds the values of them all, exactly but for an offset of the exponent. */

/* Offset 8: multiply by 2^8. The one pattern that is not a number stays none. */
INLINE __m256 e4m3(const uint8_t *bytes)
{
    const __m128i words = _mm_cvtepi8_epi16(_mm_loadu_si64(bytes));
    const __m128i size = _mm_and_si128(words, _mm_set1_epi16(0x7f)),
                  sign = _mm_and_si128(words, _mm_set1_epi16(INT16_MIN));
    const __m128i nan = _mm_cmpeq_epi16(size, _mm_set1_epi16(0x7f));
    const __m128i half = _mm_or_si128(_mm_or_si128(sign, _mm_slli_epi16(size, 7)), _mm_srli_epi16(nan, 1));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(0x1p8f));
}

INLINE __m256 e5m2(const uint8_t *bytes)
{
    return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadu_si64(bytes)));
}

/* Six bytes: every word gets the two bytes that its six bits lie in, and a multiplication moves them to its top. */
INLINE __m128i six_bits(const uint8_t *bytes)
{
    uint32_t low;
    uint16_t high;
    memcpy(&low, bytes, sizeof low);
    memcpy(&high, bytes + 4, sizeof high);
    const __m128i packed = _mm_cvtsi64_si128((int64_t)((uint64_t)high << 32 | low));
    const __m128i spread = _mm_setr_epi8(0, 1, 0, 1, 1, 2, 2, 3, 3, 4, 3, 4, 4, 5, 5, 6);
    const __m128i left = _mm_setr_epi16(1 << 10, 1 << 4, 1 << 6, 1 << 8, 1 << 10, 1 << 4, 1 << 6, 1 << 8);
    return _mm_mullo_epi16(_mm_shuffle_epi8(packed, spread), left);
}

/* The five bits below the sign go down to where the exponent's offset is `offset`. */
INLINE __m256 six_bit_float(const uint8_t *bytes, int shift, float offset)
{
    const __m128i words = six_bits(bytes);
    const __m128i sign = _mm_and_si128(words, _mm_set1_epi16(INT16_MIN));
    const __m128i size = _mm_and_si128(words, _mm_set1_epi16(0x7c00));
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(sign, _mm_srli_epi16(size, shift))), _mm256_set1_ps(offset));
}

INLINE __m256 fp8_e4m3(const uint8_t *bytes, const struct head *head, int k)
{
    (void)k;
    return _mm256_mul_ps(e4m3(bytes), head->scale);
}

INLINE __m256 fp8_e5m2(const uint8_t *bytes, const struct head *head, int k)
{
    (void)k;
    return _mm256_mul_ps(e5m2(bytes), head->scale);
}

INLINE __m256 mx_scale(const struct head *head, int k)
{
    return _mm256_castsi256_ps(_mm256_set1_epi32((int)rk_pool_e8m0[head->mx_scales[k / 4]]));
}

INLINE __m256 mxfp8_e4m3(const uint8_t *bytes, const struct head *head, int k)
{
    return _mm256_mul_ps(e4m3(bytes), mx_scale(head, k));
}

INLINE __m256 mxfp8_e5m2(const uint8_t *bytes, const struct head *head, int k)
{
    return _mm256_mul_ps(e5m2(bytes), mx_scale(head, k));
}

INLINE __m256 mxfp6_e2m3(const uint8_t *bytes, const struct head *head, int k)
{
    return _mm256_mul_ps(six_bit_float(bytes, 3, 0x1p14f), mx_scale(head, k));
}

INLINE __m256 mxfp6_e3m2(const uint8_t *bytes, const struct head *head, int k)
{
    return _mm256_mul_ps(six_bit_float(bytes, 2, 0x1p12f), mx_scale(head, k));
}

/* The values of four bits are float16 numbers whose low bytes are zero: the high ones come from a table. */
INLINE __m256 mxfp4_e2m1(const uint8_t *bytes, const struct head *head, int k)
{
    const __m128i high = _mm_setr_epi8(0x00, 0x38, 0x3c, 0x3e, 0x40, 0x42, 0x44, 0x46, /* */
                                       -0x80, -0x48, -0x44, -0x42, -0x40, -0x3e, -0x3c, -0x3a);
    uint32_t bits;
    memcpy(&bits, bytes, sizeof bits);
    const __m128i packed = _mm_cvtsi32_si128((int)bits), low_nibbles = _mm_set1_epi8(15);
    const __m128i nibbles =
        _mm_unpacklo_epi8(_mm_and_si128(packed, low_nibbles), _mm_and_si128(_mm_srli_epi16(packed, 4), low_nibbles));
    const __m128i half = _mm_unpacklo_epi8(_mm_setzero_si128(), _mm_shuffle_epi8(high, nibbles));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), mx_scale(head, k));
}

INLINE __m256 mxint8(const uint8_t *bytes, const struct head *head, int k)
{
    const __m256i q = _mm256_cvtepi8_epi32(_mm_loadu_si64(bytes));
    return _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(q), _mm256_set1_ps(0x1p-6f)), mx_scale(head, k));
}

#define POOL(name, its_head, its_bits)                                                                                 \
    void rk_pool_##name##_avx2(const void *const *rows, const float *weights, size_t count, size_t dim, bool add,      \
                               float *out)                                                                             \
    {                                                                                                                  \
        pool((struct format){its_head, name, its_bits}, rows, weights, count, dim, add, out);                          \
    }
POOL(f32, no_head, 32)
POOL(f16, no_head, 16)
POOL(bf16, no_head, 16)
POOL(int8, int8_head, 8)
POOL(int4, int4_head, 4)
POOL(int2, int2_head, 2)
POOL(fp8_e4m3, fp8_head, 8)
POOL(fp8_e5m2, fp8_head, 8)
POOL(mxfp8_e4m3, no_head, 8)
POOL(mxfp8_e5m2, no_head, 8)
POOL(mxfp6_e2m3, no_head, 6)
POOL(mxfp6_e3m2, no_head, 6)
POOL(mxfp4_e2m1, no_head, 4)
POOL(mxint8, no_head, 8)

#else
typedef int rk_pool_avx2_not_built; /* a translation unit may not be empty */
#endif
