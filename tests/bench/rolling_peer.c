/* The peer's loops. The arithmetic of a row is what the format needs and no more; eight named registers hold the sums.
 */
#include "tests/bench/rolling_peer.h"

#include <immintrin.h>
#include <string.h>

#include "quant/kernels.h"

#define EIGHT(X)   X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ZERO(k)    s##k = _mm512_setzero_ps();
#define DECLARE(k) __m512 s##k;
#define STORE(k)   _mm512_storeu_ps(to + 16 * k, s##k);

#define PEER(name, row_bytes, head, add)                                                                               \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))) static void name(                           \
        const unsigned char *table, const int64_t *ids, size_t count, size_t bag, float *out)                          \
    {                                                                                                                  \
        for (size_t first = 0; first < count; first += bag) {                                                          \
            float *to = out + first / bag % 2 * 128;                                                                   \
            EIGHT(DECLARE)                                                                                             \
            EIGHT(ZERO)                                                                                                \
            for (size_t i = first; i < first + bag; i++) {                                                             \
                const unsigned char *ahead = table + (uint64_t)ids[i + 16 < count ? i + 16 : i] * (row_bytes);         \
                for (uintptr_t line = (uintptr_t)ahead / 64 * 64; line < (uintptr_t)ahead + (row_bytes); line += 64)   \
                    _mm_prefetch((const char *)line, _MM_HINT_NTA);                                                    \
                const unsigned char *row = table + (uint64_t)ids[i] * (row_bytes);                                     \
                head EIGHT(add)                                                                                        \
            }                                                                                                          \
            EIGHT(STORE)                                                                                               \
        }                                                                                                              \
    }

#define NO_HEAD
#define ADD_F32(k) s##k = _mm512_add_ps(s##k, _mm512_loadu_ps(row + 64 * k));

#define INT8_HEAD                                                                                                      \
    float tail[2];                                                                                                     \
    memcpy(tail, row + 128, sizeof tail);                                                                              \
    const __m512 scale = _mm512_set1_ps(tail[0]), bias = _mm512_set1_ps(tail[1]);
#define ADD_INT8(k)                                                                                                    \
    s##k =                                                                                                             \
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)(row + 16 * k)))),  \
                        scale, _mm512_add_ps(s##k, bias));

#define INT4_HEAD                                                                                                      \
    int32_t tail;                                                                                                      \
    memcpy(&tail, row + 64, sizeof tail);                                                                              \
    const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(tail));                                                         \
    const __m512 values = _mm512_fmadd_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),        \
                                          _mm512_broadcastss_ps(both), _mm512_broadcastss_ps(_mm_movehdup_ps(both)));  \
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
/* The sums stay in the order in which nibbles come: a peer need not put them right to show its speed. */
#define ADD_INT4(k)                                                                                                    \
    {                                                                                                                  \
        int64_t nibbles;                                                                                               \
        memcpy(&nibbles, row + 8 * k, sizeof nibbles);                                                                 \
        s##k =                                                                                                         \
            _mm512_add_ps(s##k, _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi64(nibbles), shifts), values)); \
    }

PEER(peer_f32, 512, NO_HEAD, ADD_F32)
PEER(peer_int8, 136, INT8_HEAD, ADD_INT8)
PEER(peer_int4, 68, INT4_HEAD, ADD_INT4)

rolling_peer_fn *rolling_peer(enum rk_row_format format, uint32_t dim)
{
    static rolling_peer_fn *const peers[RK_ROW_FORMAT_COUNT] = {
        [RK_ROWS_F32] = peer_f32, [RK_ROWS_INT8] = peer_int8, [RK_ROWS_INT4] = peer_int4};
    return dim == 128 && rk_isa_usable(RK_ISA_AVX512) ? peers[format] : NULL;
}
