/* The specification of the conversions. */
#include <math.h>

#include "quant/dense.h"
#include "quant/kernels_list.h"
#include "quant/minifloat.h"
#include "quant/sigmoid.h"

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

/* exp(z) of z <= 0. */
static float exponential(float z)
{
    static const float terms[] = {RK_EXP_TERMS};
    if (z < RK_EXP_LEAST)
        return 0.0f;
    const float n = rintf(z * RK_LOG2_E);
    const float r = fmaf(n, -RK_LN2_LOW, fmaf(n, -RK_LN2_HIGH, z));
    float sum = terms[0];
    for (size_t t = 1; t < sizeof terms / sizeof *terms; t++)
        sum = fmaf(sum, r, terms[t]);
    return sum * rk_f32_from_bits((uint32_t)((int32_t)n + 127) << 23);
}

void rk_sigmoid_scalar(const float *x, size_t count, float *y)
{
    for (size_t i = 0; i < count; i++) {
        if (isnan(x[i])) {
            y[i] = x[i];
            continue;
        }
        const float e = exponential(-fabsf(x[i])); /* of what is not positive: no overflow */
        y[i] = (x[i] >= 0.0f ? 1.0f : e) / (1.0f + e);
    }
}
