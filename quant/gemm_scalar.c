/* The specification of the packed linear layers' arithmetic: one output element at a time. */
#include <math.h>
#include <string.h>

#include "quant/bf16_dot.h"
#include "quant/kernels_list.h"

/* The weights of channel o: its first group; those of the next groups follow RK_GEMM_LINE_BYTES apart. */
static const char *channel(const struct rk_gemm *gemm, uint32_t o)
{
    return (const char *)gemm->panels + o / RK_GEMM_CHANNELS * gemm->panel_bytes +
           o % RK_GEMM_CHANNELS * RK_GEMM_GROUP_BYTES;
}

static const char *input(const struct rk_gemm *gemm, uint32_t r)
{
    return (const char *)gemm->x + r * gemm->x_bytes;
}

static float bias_of(const struct rk_gemm *gemm, uint32_t r, uint32_t o)
{
    return (gemm->biases != NULL ? gemm->biases[r] : gemm->bias)[o];
}

static void store(const struct rk_gemm *gemm, uint32_t r, uint32_t o, float y)
{
    char *row = (char *)gemm->y + r * gemm->y_bytes;
    if (gemm->relu)
        y = y < 0.0f ? 0.0f : y; /* this way round NaN passes, so that a damaged model shows */
    switch (gemm->to) {
    case RK_DENSE_BF16:
        rk_to_bf16_scalar(&y, 1, (uint16_t *)row + o);
        break;
    case RK_DENSE_INT8:
        rk_to_u8_scalar(&y, 1, gemm->inverse_scale, gemm->zero, (uint8_t *)row + o);
        break;
    default:
        ((float *)row)[o] = y;
    }
}

void rk_gemm_f32_scalar(const struct rk_gemm *gemm)
{
    for (uint32_t r = 0; r < gemm->rows; r++)
        for (uint32_t o = 0; o < gemm->out; o++) {
            const float *x = (const float *)input(gemm, r), *w = (const float *)channel(gemm, o);
            float sum = 0.0f;
            for (uint32_t k = 0; k < gemm->groups; k++)
                sum = fmaf(x[k], w[k * RK_GEMM_CHANNELS], sum);
            store(gemm, r, o, sum + bias_of(gemm, r, o));
        }
}

void rk_gemm_bf16_scalar(const struct rk_gemm *gemm)
{
    for (uint32_t r = 0; r < gemm->rows; r++)
        for (uint32_t o = 0; o < gemm->out; o++) {
            const char *x = input(gemm, r), *w = channel(gemm, o);
            float sum = 0.0f;
            for (size_t k = 0; k < gemm->groups; k++) {
                uint32_t x_pair, w_pair;
                memcpy(&x_pair, x + k * RK_GEMM_GROUP_BYTES, sizeof x_pair);
                memcpy(&w_pair, w + k * RK_GEMM_LINE_BYTES, sizeof w_pair);
                sum = rk_bf16_dot(sum, x_pair, w_pair);
            }
            store(gemm, r, o, sum + bias_of(gemm, r, o));
        }
}

void rk_gemm_int8_scalar(const struct rk_gemm *gemm)
{
    for (uint32_t r = 0; r < gemm->rows; r++)
        for (uint32_t o = 0; o < gemm->out; o++) {
            const uint8_t *x = (const uint8_t *)input(gemm, r);
            const int8_t *w = (const int8_t *)channel(gemm, o);
            uint32_t sum = 0; /* wraps around */
            for (size_t k = 0; k < gemm->groups; k++, x += RK_GEMM_GROUP_BYTES, w += RK_GEMM_LINE_BYTES)
                for (size_t i = 0; i < RK_GEMM_GROUP_BYTES; i++)
                    sum += (uint32_t)(x[i] * w[i]);
            const size_t at = r * gemm->x_step;
            sum -= (uint32_t)gemm->x_zeros[at] * (uint32_t)gemm->sums[o];
            store(gemm, r, o, fmaf((float)(int32_t)sum, gemm->x_scales[at] * gemm->scales[o], bias_of(gemm, r, o)));
        }
}
