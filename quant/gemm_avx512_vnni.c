/* Packed multiplications of bytes for AVX-512 VNNI (quant/gemm_avx512.h): VPDPBUSD multiplies 16 times 4. */
#ifdef __AVX512VNNI__

#include "quant/gemm_avx512.h"
#include "quant/kernels_list.h"

GEMM_INLINE __m512i gemm_step(__m512i sum, __m512i x, __m512i weights)
{
    return _mm512_dpbusd_epi32(sum, x, weights);
}

/* A zero that all rows share is subtracted before anything is added. */
GEMM_INLINE __m512i gemm_init(const struct rk_gemm *gemm, uint32_t channel)
{
    const __m512i none = _mm512_setzero_si512();
    if (gemm->x_step != 0)
        return none;
    return _mm512_sub_epi32(none, _mm512_mullo_epi32(_mm512_set1_epi32(gemm->x_zeros[0]),
                                                     _mm512_loadu_si512(gemm->sums + channel)));
}

GEMM_INLINE struct gemm_channels gemm_channels_at(const struct rk_gemm *gemm, uint32_t channel)
{
    struct gemm_channels channels = {.scale = _mm512_loadu_ps(gemm->scales + channel),
                                     .weights = _mm512_loadu_si512(gemm->sums + channel),
                                     .own_ranges = gemm->x_step != 0};
    if (!channels.own_ranges)
        channels.scale = _mm512_mul_ps(_mm512_set1_ps(gemm->x_scales[0]), channels.scale);
    return channels;
}

GEMM_INLINE __m512 gemm_finish(const struct rk_gemm *gemm, const struct gemm_channels *channels, __m512i sums,
                               uint32_t row, __m512 bias)
{
    __m512 scale = channels->scale;
    if (channels->own_ranges) {
        scale = _mm512_mul_ps(_mm512_set1_ps(gemm->x_scales[row]), scale);
        sums = _mm512_sub_epi32(sums, _mm512_mullo_epi32(_mm512_set1_epi32(gemm->x_zeros[row]), channels->weights));
    }
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, bias);
}

void rk_gemm_int8_avx512_vnni(const struct rk_gemm *gemm)
{
    gemm_run(gemm);
}

#else
typedef int rk_gemm_avx512_vnni_not_built; /* a translation unit may not be empty */
#endif
