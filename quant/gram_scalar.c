/* The specification of the pairwise dot products. Padding takes part: adding its zeros turns -0 into +0. */
#include <math.h>
#include <string.h>

#include "quant/bf16_dot.h"
#include "quant/kernels_list.h"

/* What 64 bytes hold of 4-byte groups: a group goes to the lane of its number modulo LANES. */
enum { LANES = 16 };

static float sum_of_four(const float lanes[static 4])
{
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

static float sum_of_lanes(const float lanes[static LANES])
{
    return (sum_of_four(lanes) + sum_of_four(lanes + 4)) + (sum_of_four(lanes + 8) + sum_of_four(lanes + 12));
}

void rk_gram_f32_scalar(const float *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self, float *z)
{
    for (uint32_t i = first; i < count; i++)
        for (uint32_t j = 0; j < i + self; j++) {
            const float *a = vectors[i], *b = vectors[j];
            float lanes[LANES] = {0};
            for (uint32_t d = 0; d < dim; d += LANES)
                for (uint32_t l = 0; l < LANES; l++)
                    lanes[l] = fmaf(a[d + l], b[d + l], lanes[l]);
            *z++ = sum_of_lanes(lanes);
        }
}

void rk_gram_bf16_scalar(const uint16_t *const *vectors, uint32_t first, uint32_t count, uint32_t dim, bool self,
                         float *z)
{
    for (uint32_t i = first; i < count; i++)
        for (uint32_t j = 0; j < i + self; j++) {
            float lanes[LANES] = {0};
            for (uint32_t d = 0; d < dim; d += 2 * LANES)
                for (uint32_t l = 0; l < LANES; l++) {
                    uint32_t a, b;
                    memcpy(&a, vectors[i] + d + 2 * l, sizeof a);
                    memcpy(&b, vectors[j] + d + 2 * l, sizeof b);
                    lanes[l] = rk_bf16_dot(lanes[l], a, b);
                }
            *z++ = sum_of_lanes(lanes);
        }
}

void rk_gram_int8_scalar(const int8_t *const *vectors, const float *scales, uint32_t first, uint32_t count,
                         uint32_t dim, bool self, void *scratch, float *z)
{
    (void)scratch;
    for (uint32_t i = first; i < count; i++)
        for (uint32_t j = 0; j < i + self; j++) {
            int32_t sum = 0;
            for (uint32_t d = 0; d < dim; d++)
                sum += (int32_t)vectors[i][d] * (int32_t)vectors[j][d];
            *z++ = (float)sum * (scales[i] * scales[j]);
        }
}
