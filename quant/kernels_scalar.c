/* The kernels' specification: what every other variant has to equal, written to be read. */
#include "quant/kernels_list.h"

float rk_dot_f32_scalar(const float *a, const float *b, size_t dim)
{
    float sum = 0.0f;
    for (size_t d = 0; d < dim; d++)
        sum += a[d] * b[d];
    return sum;
}
