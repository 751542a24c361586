/* The kernels' specification: what every other variant has to equal, written to be read. */
#include "quant/kernels_list.h"

void rk_pool_f32_scalar(const float *const *rows, const float *weights, size_t count, size_t dim, float *out)
{
    for (size_t d = 0; d < dim; d++) {
        float sum = 0.0f;
        for (size_t i = 0; i < count; i++)
            sum += weights != NULL ? weights[i] * rows[i][d] : rows[i][d];
        out[d] = sum;
    }
}

float rk_dot_f32_scalar(const float *a, const float *b, size_t dim)
{
    float sum = 0.0f;
    for (size_t d = 0; d < dim; d++)
        sum += a[d] * b[d];
    return sum;
}
