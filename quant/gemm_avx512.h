/* Packed multiplications for AVX-512: what fp32, bf16 and int8 share. They differ in one instruction, which multiplies
 * the 16 groups of a panel's line by a group of x in all lanes and adds to 16 sums.
 *
 * A tile is R rows times P panels, whose R * P <= 24 sums stay in registers: 12 x 2, 6 x 4, 3 x 8. More rows to a tile
 * read panels less often, more panels keep the multiplier busy when there are few rows. Rows are split evenly, 64 into
 * four blocks of 11 and two of 10: a tile of 11 rows runs at the same rate as one of 12.
 *
 *     for 96 rows at a time, whose groups stay in cache
 *       for P panels
 *         for 512 groups, so that P panels' lines and a block's groups come from the nearest caches
 *           for each block of R rows
 *             a tile, which brings a share of the lines that are needed after all these blocks into the second cache
 *
 * With few rows all time goes into reading panels, which the hardware's own prefetching does best.
 *
 * Includers define gemm_step() and how sums begin and end (GEMM_FLOAT_SUMS: as those of floats do), and call
 * gemm_run(). Between tile and finish the sums are in memory, so that one finish serves all tiles. */
#ifndef RANKD_QUANT_GEMM_AVX512_H
#define RANKD_QUANT_GEMM_AVX512_H
#ifdef __AVX512F__

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "quant/gemm.h"

#define GEMM_INLINE static inline __attribute__((always_inline))

enum {
    GEMM_BLOCK_ROWS = 12,
    GEMM_TILE_ROWS = 96,
    GEMM_FEW_ROWS = 3,
    GEMM_MAX_PANELS = 8,
    GEMM_MAX_GROUPS = 512,
    GEMM_LINE = RK_GEMM_LINE_BYTES
};

struct gemm_tile {
    const char *x, *panel;
    size_t x_bytes, panel_bytes; /* from one row, panel to the next */
    uint32_t groups;
    const __m512i *init; /* [P] where the sums of every row begin; NULL: at what `sums` holds */
    __m512i *sums;       /* [R][P] */
    const char *ahead;   /* lines to prefetch: of P panels, too, `ahead_step` bytes further with each group */
    size_t ahead_step;
};

typedef void gemm_tile_fn(const struct gemm_tile *tile);

/* sum + 16 groups of weights * one group of x, in all lanes. */
GEMM_INLINE __m512i gemm_step(__m512i sum, __m512i x, __m512i weights);

/* Of 16 output channels, for all rows. */
struct gemm_channels {
    __m512 scale;    /* int8 */
    __m512i weights; /* int8: their sums */
    bool
        own_ranges; /* int8: rows have scales and zeros of their own, which are not in `scale` and in gemm_init() yet */
};

/* Where the sums of channels [channel, channel + 16) begin. */
GEMM_INLINE __m512i gemm_init(const struct rk_gemm *gemm, uint32_t channel);
GEMM_INLINE struct gemm_channels gemm_channels_at(const struct rk_gemm *gemm, uint32_t channel);
/* Sums to outputs, before ReLU. */
GEMM_INLINE __m512 gemm_finish(const struct rk_gemm *gemm, const struct gemm_channels *channels, __m512i sums,
                               uint32_t row, __m512 bias);

#ifdef GEMM_FLOAT_SUMS /* fp32 and bf16 */
GEMM_INLINE __m512i gemm_init(const struct rk_gemm *gemm, uint32_t channel)
{
    (void)gemm;
    (void)channel;
    return _mm512_setzero_si512();
}

GEMM_INLINE struct gemm_channels gemm_channels_at(const struct rk_gemm *gemm, uint32_t channel)
{
    (void)gemm;
    (void)channel;
    return (struct gemm_channels){.own_ranges = false};
}

GEMM_INLINE __m512 gemm_finish(const struct rk_gemm *gemm, const struct gemm_channels *channels, __m512i sums,
                               uint32_t row, __m512 bias)
{
    (void)gemm;
    (void)channels;
    (void)row;
    return _mm512_add_ps(_mm512_castsi512_ps(sums), bias);
}
#endif

/* Named sums: gcc keeps arrays of registers in memory. */
#define GEMM_SUMS(X)                                                                                                   \
    X(0)                                                                                                               \
    X(1)                                                                                                               \
    X(2)                                                                                                               \
    X(3)                                                                                                               \
    X(4)                                                                                                               \
    X(5)                                                                                                               \
    X(6)                                                                                                               \
    X(7)                                                                                                               \
    X(8)                                                                                                               \
    X(9)                                                                                                               \
    X(10)                                                                                                              \
    X(11)                                                                                                              \
    X(12)                                                                                                              \
    X(13)                                                                                                              \
    X(14)                                                                                                              \
    X(15)                                                                                                              \
    X(16)                                                                                                              \
    X(17)                                                                                                              \
    X(18)                                                                                                              \
    X(19)                                                                                                              \
    X(20)                                                                                                              \
    X(21)                                                                                                              \
    X(22)                                                                                                              \
    X(23)

GEMM_INLINE __m512i gemm_group(const char *x)
{
    int32_t group;
    memcpy(&group, x, sizeof group);
    return _mm512_set1_epi32(group);
}

/* Every third address is kept in a register of its own; the two behind it are that one plus once or twice the stride.
 */
#define GEMM_NEAR(base, i, stride)                                                                                     \
    ((i) < 3   ? base##0 + (size_t)((i) % 3) * (stride)                                                                \
     : (i) < 6 ? base##3 + (size_t)((i) % 3) * (stride)                                                                \
     : (i) < 9 ? base##6 + (size_t)((i) % 3) * (stride)                                                                \
               : base##9 + (size_t)((i) % 3) * (stride))

/* Sum i belongs to row GEMM_ROW(i) and panel GEMM_PANEL(i), in an order that holds on to the fewer of the two. */
#define GEMM_ROW(i)   (panels <= rows ? (i) / panels : (i) % rows)
#define GEMM_PANEL(i) (panels <= rows ? (i) % panels : (i) / rows)

GEMM_INLINE void gemm_multiply(const struct gemm_tile *tile, const int rows, const int panels)
{
    const size_t x_bytes = tile->x_bytes, panel_bytes = tile->panel_bytes, ahead_step = tile->ahead_step;
    const char *x0 = tile->x, *x3 = x0 + 3 * x_bytes, *x6 = x3 + 3 * x_bytes, *x9 = x6 + 3 * x_bytes;
    const char *panel0 = tile->panel, *panel3 = panel0 + 3 * panel_bytes, *panel6 = panel3 + 3 * panel_bytes,
               *panel9 = panel6 + 3 * panel_bytes;
    const char *ahead0 = tile->ahead, *ahead3 = ahead0 + 3 * panel_bytes, *ahead6 = ahead3 + 3 * panel_bytes,
               *ahead9 = ahead6 + 3 * panel_bytes;
    __m512i *const sums = tile->sums;
#define DEFINE(i) __m512i sum##i = _mm512_setzero_si512();
    GEMM_SUMS(DEFINE)
#undef DEFINE
#define INIT(i)                                                                                                        \
    if (i < rows * panels)                                                                                             \
        sum##i = _mm512_load_si512(tile->init + GEMM_PANEL(i));
#define LOAD(i)                                                                                                        \
    if (i < rows * panels)                                                                                             \
        sum##i = _mm512_load_si512(sums + GEMM_ROW(i) * panels + GEMM_PANEL(i));
    if (tile->init != NULL) {
        GEMM_SUMS(INIT)
    } else {
        GEMM_SUMS(LOAD)
    }
#undef INIT
#undef LOAD
    for (uint32_t k = tile->groups; k > 0; k--) {
#define STEP(i)                                                                                                        \
    if (i < rows * panels)                                                                                             \
        sum##i = gemm_step(sum##i, gemm_group(GEMM_NEAR(x, GEMM_ROW(i), x_bytes)),                                     \
                           _mm512_load_si512(GEMM_NEAR(panel, GEMM_PANEL(i), panel_bytes)));
        GEMM_SUMS(STEP)
#undef STEP
#define PREFETCH(i)                                                                                                    \
    if (i < panels && rows > GEMM_FEW_ROWS)                                                                            \
        _mm_prefetch(GEMM_NEAR(ahead, i, panel_bytes), _MM_HINT_T1);
        GEMM_SUMS(PREFETCH)
#undef PREFETCH
#define NEXT(i)                                                                                                        \
    x##i += RK_GEMM_GROUP_BYTES;                                                                                       \
    panel##i += GEMM_LINE;                                                                                             \
    ahead##i += ahead_step;
        NEXT(0)
        NEXT(3)
        NEXT(6)
        NEXT(9)
#undef NEXT
    }
#define STORE(i)                                                                                                       \
    if (i < rows * panels)                                                                                             \
        _mm512_store_si512(sums + GEMM_ROW(i) * panels + GEMM_PANEL(i), sum##i);
    GEMM_SUMS(STORE)
#undef STORE
}

/* T(rows, panels, which): panels are 1 << which. */
/* clang-format off */
#define GEMM_TILES(T)                                                                                                  \
    T(1, 1, 0) T(2, 1, 0) T(3, 1, 0) T(4, 1, 0) T(5, 1, 0) T(6, 1, 0)                                                  \
    T(7, 1, 0) T(8, 1, 0) T(9, 1, 0) T(10, 1, 0) T(11, 1, 0) T(12, 1, 0)                                               \
    T(1, 2, 1) T(2, 2, 1) T(3, 2, 1) T(4, 2, 1) T(5, 2, 1) T(6, 2, 1)                                                  \
    T(7, 2, 1) T(8, 2, 1) T(9, 2, 1) T(10, 2, 1) T(11, 2, 1) T(12, 2, 1)                                               \
    T(1, 4, 2) T(2, 4, 2) T(3, 4, 2) T(4, 4, 2) T(5, 4, 2) T(6, 4, 2)                                                  \
    T(1, 8, 3) T(2, 8, 3) T(3, 8, 3)
/* clang-format on */

#define GEMM_FUNCTION(rows, panels, which)                                                                             \
    static void gemm_tile_##rows##_##panels(const struct gemm_tile *tile)                                              \
    {                                                                                                                  \
        gemm_multiply(tile, rows, panels);                                                                             \
    }
GEMM_TILES(GEMM_FUNCTION)
#undef GEMM_FUNCTION

#define GEMM_ENTRY(rows, panels, which) [rows][which] = gemm_tile_##rows##_##panels,
static gemm_tile_fn *const gemm_tiles[GEMM_BLOCK_ROWS + 1][4] = {GEMM_TILES(GEMM_ENTRY)};
#undef GEMM_ENTRY

/* What is stored: bytes that ReLU leaves at a zero of 0 take half as many operations as other bytes, on ports that the
 * next tile wants to have. */
enum gemm_kind { GEMM_FLOATS, GEMM_BF16, GEMM_BYTES, GEMM_BYTES_FROM_0 };

GEMM_INLINE enum gemm_kind gemm_kind_of(const struct rk_gemm *gemm)
{
    if (gemm->to == RK_DENSE_INT8)
        return gemm->relu && gemm->zero == 0 ? GEMM_BYTES_FROM_0 : GEMM_BYTES;
    return gemm->to == RK_DENSE_BF16 ? GEMM_BF16 : GEMM_FLOATS;
}

GEMM_INLINE __m256i gemm_to_bf16(__m512 y)
{
    const __m512i bits = _mm512_castps_si512(y), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i kept = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q), quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}

/* scaled: y * inverse_scale. What is no number turns into INT32_MIN when converted: below 0, and so 0, is right for it
 * if zero is 0. min_ps gives its second operand if either is NaN. */
GEMM_INLINE __m128i gemm_to_bytes(__m512 scaled, int32_t zero, enum gemm_kind kind)
{
    const __m512 bounded = _mm512_min_ps(_mm512_set1_ps(255.0f), scaled);
    __m512i q;
    if (kind == GEMM_BYTES) {
        q = _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(scaled, scaled, _CMP_ORD_Q), bounded);
        q = _mm512_add_epi32(q, _mm512_set1_epi32(zero));
    } else {
        q = _mm512_cvtps_epi32(bounded);
    }
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(q, _mm512_setzero_si512()));
}

/* Rows of sums [rows][panels] to outputs. */
GEMM_INLINE void gemm_finish_as(const struct rk_gemm *gemm, const __m512i *sums, uint32_t first_row, uint32_t rows,
                                uint32_t first_panel, uint32_t panels, const enum gemm_kind kind)
{
    /* max_ps gives its second operand if either is NaN, or both are zeros */
    const __m512 lowest = _mm512_set1_ps(gemm->relu ? 0.0f : -INFINITY), inverse = _mm512_set1_ps(gemm->inverse_scale);
    const size_t y_bytes = gemm->y_bytes, element = kind == GEMM_FLOATS ? 4 : kind == GEMM_BF16 ? 2 : 1;
    const int32_t zero = gemm->zero;
    for (uint32_t p = 0; p < panels; p++) {
        const uint32_t channel = (first_panel + p) * RK_GEMM_CHANNELS, left = gemm->out - channel;
        const bool full = left >= RK_GEMM_CHANNELS; /* masked stores of narrow elements are slow */
        const __mmask16 mask = (__mmask16)((1u << left % RK_GEMM_CHANNELS) - 1);
        const struct gemm_channels channels = gemm_channels_at(gemm, channel);
        const float *const *const biases = gemm->biases != NULL ? gemm->biases + first_row : NULL;
        __m512 bias = _mm512_loadu_ps(gemm->bias + channel);
        char *to = (char *)gemm->y + first_row * y_bytes + channel * element;
        for (uint32_t r = 0; r < rows; r++, to += y_bytes) {
            if (biases != NULL)
                bias = _mm512_loadu_ps(biases[r] + channel);
            __m512 y = gemm_finish(gemm, &channels, _mm512_load_si512(sums + r * panels + p), first_row + r, bias);
            if (kind != GEMM_BYTES_FROM_0)
                y = _mm512_max_ps(lowest, y);
            if (kind == GEMM_FLOATS) {
                if (full)
                    _mm512_storeu_ps(to, y);
                else
                    _mm512_mask_storeu_ps(to, mask, y);
            } else if (kind == GEMM_BF16) {
                if (full)
                    _mm256_storeu_si256((__m256i *)to, gemm_to_bf16(y));
                else
                    _mm256_mask_storeu_epi16(to, mask, gemm_to_bf16(y));
            } else {
                const __m128i bytes = gemm_to_bytes(_mm512_mul_ps(y, inverse), zero, kind);
                if (full)
                    _mm_storeu_si128((__m128i *)to, bytes);
                else
                    _mm_mask_storeu_epi8(to, mask, bytes);
            }
        }
    }
}

GEMM_INLINE void gemm_finish_rows(const struct rk_gemm *gemm, const __m512i *sums, uint32_t first_row, uint32_t rows,
                                  uint32_t first_panel, uint32_t panels)
{
    switch (gemm_kind_of(gemm)) {
    case GEMM_FLOATS:
        gemm_finish_as(gemm, sums, first_row, rows, first_panel, panels, GEMM_FLOATS);
        break;
    case GEMM_BF16:
        gemm_finish_as(gemm, sums, first_row, rows, first_panel, panels, GEMM_BF16);
        break;
    case GEMM_BYTES:
        gemm_finish_as(gemm, sums, first_row, rows, first_panel, panels, GEMM_BYTES);
        break;
    case GEMM_BYTES_FROM_0:
        gemm_finish_as(gemm, sums, first_row, rows, first_panel, panels, GEMM_BYTES_FROM_0);
    }
}

/* What is read once for each panel comes from too many places for the hardware to foresee. */
GEMM_INLINE void gemm_prefetch_channels(const struct rk_gemm *gemm, uint32_t channel)
{
    _mm_prefetch((const char *)(gemm->bias + channel), _MM_HINT_T0);
    _mm_prefetch((const char *)(gemm->scales + channel), _MM_HINT_T0);
    _mm_prefetch((const char *)(gemm->sums + channel), _MM_HINT_T0);
}

/* Rows [first, first + rows) times all panels. */
GEMM_INLINE void gemm_tile_run(const struct rk_gemm *gemm, uint32_t first, uint32_t rows)
{
    __m512i init[GEMM_MAX_PANELS],
        sums[GEMM_TILE_ROWS * 2]; /* blocks of more than 6 rows have 2 panels, and fewer rows are one block */
    const uint32_t panels = (gemm->out + RK_GEMM_CHANNELS - 1) / RK_GEMM_CHANNELS,
                   blocks = (rows + GEMM_BLOCK_ROWS - 1) / GEMM_BLOCK_ROWS, most_rows = (rows + blocks - 1) / blocks,
                   most = most_rows <= GEMM_FEW_ROWS ? 3
                          : most_rows <= 6           ? 2
                                                     : 1,
                   slices = (gemm->groups + GEMM_MAX_GROUPS - 1) / GEMM_MAX_GROUPS,
                   slice_groups = (gemm->groups + slices - 1) / slices;
    struct gemm_tile tile = {.x_bytes = gemm->x_bytes, .panel_bytes = gemm->panel_bytes};
    tile.ahead_step = (GEMM_LINE + blocks - 1) / blocks;
    for (uint32_t panel = 0, which; panel < panels; panel += 1u << which) {
        for (which = most; 1u << which > panels - panel;)
            which--;
        const char *const weights = (const char *)gemm->panels + panel * tile.panel_bytes;
        for (uint32_t p = 0; p < 1u << which; p++) {
            init[p] = gemm_init(gemm, (panel + p) * RK_GEMM_CHANNELS);
            gemm_prefetch_channels(gemm, (panel + p) * RK_GEMM_CHANNELS);
        }
        for (uint32_t group = 0; group < gemm->groups; group += slice_groups) {
            tile.groups = gemm->groups - group < slice_groups ? gemm->groups - group : slice_groups;
            tile.panel = weights + (size_t)group * GEMM_LINE;
            tile.init = group == 0 ? init : NULL;
            tile.ahead = group + tile.groups < gemm->groups ? tile.panel + tile.groups * GEMM_LINE
                         : panel + (1u << which) < panels   ? weights + (tile.panel_bytes << which)
                                                            : (const char *)gemm->ahead;
            const bool last = group + tile.groups == gemm->groups;
            uint32_t row = 0;
            for (uint32_t block = 0; block < blocks; block++) {
                const uint32_t block_rows = rows / blocks + (block < rows % blocks);
                tile.x = (const char *)gemm->x + (first + row) * gemm->x_bytes + group * RK_GEMM_GROUP_BYTES;
                tile.sums = sums + (row << which);
                gemm_tiles[block_rows][which](&tile);
                if (last)
                    gemm_finish_rows(gemm, tile.sums, first + row, block_rows, panel, 1u << which);
                tile.ahead += tile.groups * tile.ahead_step;
                row += block_rows;
            }
        }
    }
}

GEMM_INLINE void gemm_run(const struct rk_gemm *gemm)
{
    for (uint32_t first = 0; first < gemm->rows; first += GEMM_TILE_ROWS)
        gemm_tile_run(gemm, first, gemm->rows - first < GEMM_TILE_ROWS ? gemm->rows - first : GEMM_TILE_ROWS);
}

#endif
#endif
