/* The specification of the conversions. */
#include <math.h>

#include "quant/dense.h"
#include "quant/kernels_list.h"

void rk_to_bf16_scalar(const float *x, size_t count, uint16_t *y)
{
    for (size_t i = 0; i < count; i++)
        y[i] = rk_bf16_from_f32(x[i]);
}

void rk_range_scalar(const float *x, size_t count, float *low, float *high)
{
    float least = 0.0f, most = 0.0f;
    bool nan = false;
    for (size_t i = 0; i < count; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
        nan |= x[i] != x[i];
    }
    *low = least;
    *high = nan ? NAN : most;
}

void rk_to_u8_scalar(const float *x, size_t count, float inverse_scale, int32_t zero, uint8_t *y)
{
    for (size_t i = 0; i < count; i++) {
        const float scaled = x[i] * inverse_scale;
        /* 255 either way is past the other end, wherever zero is */
        const int32_t q = (scaled != scaled ? 0 : (int32_t)rintf(fmaxf(-255.0f, fminf(255.0f, scaled)))) + zero;
        y[i] = (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q);
    }
}

void rk_to_s8_scalar(const float *x, size_t count, float inverse_scale, int8_t *y)
{
    for (size_t i = 0; i < count; i++) {
        const float scaled = x[i] * inverse_scale;
        y[i] = (int8_t)(scaled != scaled ? 0.0f : rintf(fmaxf(-127.0f, fminf(127.0f, scaled))));
    }
}
