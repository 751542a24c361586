/* Pooled lookup for AVX-512: sixteen elements to a register. The sums of up to 128 columns stay in registers while the
 * rows go by, so each row is read once and nothing but the result is written. A plain sum is one with weights of
 * 1, to the same bits. What is special to a format is two small functions: `head` prepares what one row's elements
 * share, `decode` turns the bytes of sixteen elements into numbers.
 */
#ifdef __AVX512F__

#include <immintrin.h>
#include <string.h>

#include "quant/kernels_list.h"
#include "quant/pool_tables.h"

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, COLUMNS = 8 }; /* registers of sums at most */

/* What the elements of one row share: scale and bias, or the numbers that a narrow element stands for. */
struct head {
    __m512 scale, bias, table;
    const uint8_t *mx_scales;
};

typedef struct head head_fn(const uint8_t *row, size_t dim);
/* The elements of register k from column d on, a multiple of 32 where k > 0; mx_scales begins at d. `bytes` holds them,
 * or where the format has registers in pairs, those of both: the even elements are for even k, the odd ones for odd k.
 */
typedef __m512 decode_fn(const uint8_t *bytes, const struct head *head, int k, bool paired);

/* Where the elements lie in the registers of sums: what spares shuffles while rows are added is put right once. */
enum order {
    IN_ORDER,
    HALVES,  /* of a register: 0, 8, 1, 9, ... 7, 15 */
    EVEN_ODD /* of a pair of registers */
};

struct format {
    head_fn *head;
    decode_fn *decode;
    int bits;
    enum order order;
};

/* Two registers become the elements at `places` of both, and those `more` further on. */
INLINE void regroup(__m512 *pair, __m512i places, int more)
{
    const __m512 first = _mm512_permutex2var_ps(pair[0], places, pair[1]);
    pair[1] = _mm512_permutex2var_ps(pair[0], _mm512_add_epi32(places, _mm512_set1_epi32(more)), pair[1]);
    pair[0] = first;
}

/* Brings n registers of elements in order to a format's order, or back. */
INLINE void rearrange(enum order order, int n, bool back, __m512 *sum)
{
    const __m512i halves = back ? _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)
                                : _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    const __m512i pairs = back ? _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
                               : _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    if (order == HALVES)
        for (int k = 0; k < n; k++)
            sum[k] = _mm512_permutexvar_ps(halves, sum[k]);
    if (order == EVEN_ODD)
        for (int k = 0; k < n; k += 2)
            regroup(&sum[k], pairs, back ? 8 : 1);
}

/* Columns [d, d + n * LANES), or the `tail` columns from d on with n = 1. Row i has weights[i * step]. */
INLINE void pool_columns(const struct format format, int n, size_t tail, const void *const *rows, const float *weights,
                         size_t step, size_t count, size_t dim, size_t d, bool add, float *out)
{
    const __mmask16 columns = (__mmask16)(tail > 0 ? (1u << tail) - 1 : 0xffffu);
    const __mmask64 tail_bytes = tail > 0 ? ~UINT64_C(0) >> (64 - (tail * (size_t)format.bits + 7) / 8) : 0;
    const enum order order = n == 1 && format.order == EVEN_ODD ? IN_ORDER : format.order;
    const bool paired = order == EVEN_ODD;
    __m512 sum[COLUMNS];
    for (int k = 0; k < n; k++)
        sum[k] = add ? _mm512_maskz_loadu_ps(columns, out + d + k * LANES) : _mm512_setzero_ps();
    rearrange(order, n, false, sum);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = rows[i], *bytes = row + d * (size_t)format.bits / 8;
        struct head head = format.head(row, dim);
        head.mx_scales = row + (dim * (size_t)format.bits + 7) / 8 + d / 32;
        const __m512 weight = _mm512_set1_ps(weights[i * step]);
        uint8_t copy[64] __attribute__((aligned(64)));
        if (tail > 0) { /* what lies past the row's elements is not touched */
            _mm512_store_si512(copy, _mm512_maskz_loadu_epi8(tail_bytes, bytes));
            bytes = copy;
        }
        for (int k = 0; k < n; k++) {
            const uint8_t *from = bytes + (paired ? k / 2 * 2 : k) * 2 * format.bits;
            sum[k] = _mm512_fmadd_ps(weight, format.decode(from, &head, k, paired), sum[k]);
        }
    }
    rearrange(order, n, true, sum);
    for (int k = 0; k < n; k++)
        _mm512_mask_storeu_ps(out + d + k * LANES, columns, sum[k]);
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
    if (d + 2 * LANES <= dim) {
        pool_columns(format, 2, 0, rows, weights, step, count, dim, d, add, out);
        d += 2 * LANES;
    }
    if (d + LANES <= dim) {
        pool_columns(format, 1, 0, rows, weights, step, count, dim, d, add, out);
        d += LANES;
    }
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

INLINE __m512 broadcast(const uint8_t *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return _mm512_set1_ps(value);
}

INLINE struct head int8_head(const uint8_t *row, size_t dim)
{
    return (struct head){.scale = broadcast(row + dim), .bias = broadcast(row + dim + 4)};
}

INLINE struct head fp8_head(const uint8_t *row, size_t dim)
{
    return (struct head){.scale = broadcast(row + dim)};
}

/* One entry for each value of the low four bits, of which int2 elements fill two. */
INLINE struct head narrow_int_head(const uint8_t *tail, __m512 values)
{
    uint32_t halves; /* scale, bias */
    memcpy(&halves, tail, sizeof halves);
    const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128((int)halves));
    const __m512 scale = _mm512_broadcastss_ps(both), bias = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
    return (struct head){.table = _mm512_fmadd_ps(values, scale, bias)};
}

INLINE struct head int4_head(const uint8_t *row, size_t dim)
{
    return narrow_int_head(row + (dim + 1) / 2, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

INLINE struct head int2_head(const uint8_t *row, size_t dim)
{
    return narrow_int_head(row + (dim + 3) / 4, _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
}

/* ---- elements ---- */

INLINE __m512 f32(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    (void)head;
    (void)k;
    return _mm512_loadu_ps(bytes);
}

INLINE __m512 f16(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    (void)head;
    (void)k;
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)bytes));
}

INLINE __m512 bf16(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)head;
    const __m512i words =
        paired ? _mm512_loadu_si512(bytes) : _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)bytes));
    if (k % 2 == 0)
        return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    return _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000)));
}

INLINE __m512 int8(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    (void)k;
    const __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)bytes));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), head->scale, head->bias);
}

/* Each pair of lanes holds all eight bytes; shifting brings one nibble of each half to the bottom, and the permutation
 * reads no more than the four bits there. */
INLINE __m512 by_nibble(const uint8_t *bytes, __m512 table)
{
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    int64_t nibbles;
    memcpy(&nibbles, bytes, sizeof nibbles);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi64(nibbles), shifts), table);
}

INLINE __m512 int4(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)k;
    (void)paired;
    return by_nibble(bytes, head->table);
}

INLINE __m512 int2(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    (void)k;
    const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    int32_t pairs;
    memcpy(&pairs, bytes, sizeof pairs);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi32(pairs), shifts), head->table);
}

/* Small floats become float16, which holds the values of them all, exactly but for an offset of the exponent. */

/* Offset 8: multiply by 2^8. The one pattern that is not a number stays none. */
INLINE __m512 e4m3(const uint8_t *bytes)
{
    const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i_u *)bytes));
    const __m256i size = _mm256_and_si256(words, _mm256_set1_epi16(0x7f));
    const __m256i sign = _mm256_and_si256(words, _mm256_set1_epi16(INT16_MIN));
    const __m256i half = _mm256_or_si256(sign, _mm256_slli_epi16(size, 7));
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(size, _mm256_set1_epi16(0x7f));
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7fff))),
                         _mm512_set1_ps(0x1p8f));
}

INLINE __m512 e5m2(const uint8_t *bytes)
{
    const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i_u *)bytes));
    return _mm512_cvtph_ps(_mm256_slli_epi16(words, 8));
}

/* Twelve bytes: every word gets the two bytes that its six bits lie in, and a multiplication moves them to its top. */
INLINE __m256i six_bits(const uint8_t *bytes)
{
    const __m128i packed = _mm_maskz_loadu_epi8(0xfff, bytes);
    const __m256i spread = _mm256_setr_epi8(0, 1, 0, 1, 1, 2, 2, 3, 3, 4, 3, 4, 4, 5, 5, 6, /* */
                                            6, 7, 6, 7, 7, 8, 8, 9, 9, 10, 9, 10, 10, 11, 11, 12);
    const __m256i left = _mm256_setr_epi16(1 << 10, 1 << 4, 1 << 6, 1 << 8, 1 << 10, 1 << 4, 1 << 6, 1 << 8, /* */
                                           1 << 10, 1 << 4, 1 << 6, 1 << 8, 1 << 10, 1 << 4, 1 << 6, 1 << 8);
    return _mm256_mullo_epi16(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(packed), spread), left);
}

/* The five bits below the sign go down to where the exponent's offset is `offset`. */
INLINE __m512 six_bit_float(const uint8_t *bytes, int shift, float offset)
{
    const __m256i words = six_bits(bytes);
    const __m256i sign = _mm256_and_si256(words, _mm256_set1_epi16(INT16_MIN));
    const __m256i size = _mm256_and_si256(words, _mm256_set1_epi16(0x7c00));
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(sign, _mm256_srli_epi16(size, shift))),
                         _mm512_set1_ps(offset));
}

INLINE __m512 fp8_e4m3(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    (void)k;
    return _mm512_mul_ps(e4m3(bytes), head->scale);
}

INLINE __m512 fp8_e5m2(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    (void)k;
    return _mm512_mul_ps(e5m2(bytes), head->scale);
}

INLINE __m512 mx_scale(const struct head *head, int k)
{
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)rk_pool_e8m0[head->mx_scales[k / 2]]));
}

INLINE __m512 mxfp8_e4m3(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    return _mm512_mul_ps(e4m3(bytes), mx_scale(head, k));
}

INLINE __m512 mxfp8_e5m2(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    return _mm512_mul_ps(e5m2(bytes), mx_scale(head, k));
}

INLINE __m512 mxfp6_e2m3(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    return _mm512_mul_ps(six_bit_float(bytes, 3, 0x1p14f), mx_scale(head, k));
}

INLINE __m512 mxfp6_e3m2(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    return _mm512_mul_ps(six_bit_float(bytes, 2, 0x1p12f), mx_scale(head, k));
}

INLINE __m512 mxfp4_e2m1(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    const __m512 values = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, /* */
                                         -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    return by_nibble(bytes, _mm512_mul_ps(values, mx_scale(head, k)));
}

INLINE __m512 mxint8(const uint8_t *bytes, const struct head *head, int k, bool paired)
{
    (void)paired;
    const __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)bytes));
    return _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(q), _mm512_set1_ps(0x1p-6f)), mx_scale(head, k));
}

#define POOL(name, its_head, its_bits, order)                                                                          \
    void rk_pool_##name##_avx512(const void *const *rows, const float *weights, size_t count, size_t dim, bool add,    \
                                 float *out)                                                                           \
    {                                                                                                                  \
        pool((struct format){its_head, name, its_bits, order}, rows, weights, count, dim, add, out);                   \
    }
POOL(f32, no_head, 32, IN_ORDER)
POOL(f16, no_head, 16, IN_ORDER)
POOL(bf16, no_head, 16, EVEN_ODD)
POOL(int8, int8_head, 8, IN_ORDER)
POOL(int4, int4_head, 4, HALVES)
POOL(int2, int2_head, 2, IN_ORDER)
POOL(fp8_e4m3, fp8_head, 8, IN_ORDER)
POOL(fp8_e5m2, fp8_head, 8, IN_ORDER)
POOL(mxfp8_e4m3, no_head, 8, IN_ORDER)
POOL(mxfp8_e5m2, no_head, 8, IN_ORDER)
POOL(mxfp6_e2m3, no_head, 6, IN_ORDER)
POOL(mxfp6_e3m2, no_head, 6, IN_ORDER)
POOL(mxfp4_e2m1, no_head, 4, HALVES)
POOL(mxint8, no_head, 8, IN_ORDER)

#else
typedef int rk_pool_avx512_not_built; /* a translation unit may not be empty */
#endif
