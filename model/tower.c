/* Towers through OpenBLAS. Layers write into two scratch matrices by turns; the last one writes to the caller's. */
#include "model/tower.h"

#include <cblas.h>
#include <string.h>

/* Up to here a few rows are faster as matrix-vector products: for a big layer, sgemm first copies all weights into its
 * own order, which costs ten times the multiplication itself when there is one row, and pays for itself from about five
 * rows on. Below SMALL multiply-adds sgemm does without that copy. */
#define FEW_ROWS 4u
#define SMALL    1000000u

void rk_tower_linear(const float *w, uint32_t in, uint32_t out, const float *x, size_t x_stride, uint32_t rows,
                     float *y, size_t y_stride)
{
    if (rows == 1 || (rows <= FEW_ROWS && (uint64_t)rows * in * out > SMALL)) {
        for (uint32_t r = 0; r < rows; r++)
            cblas_sgemv(CblasRowMajor, CblasNoTrans, (blasint)out, (blasint)in, 1.0f, w, (blasint)in, x + r * x_stride,
                        1, 0.0f, y + r * y_stride, 1);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)out, (blasint)in, 1.0f, x,
                    (blasint)x_stride, w, (blasint)in, 0.0f, y, (blasint)y_stride);
    }
}

static void add_bias(const float *restrict bias, uint32_t width, bool relu, float *restrict y, size_t y_stride,
                     uint32_t rows)
{
    for (uint32_t r = 0; r < rows; r++, y += y_stride) {
        if (relu) {
            for (uint32_t i = 0; i < width; i++) {
                float sum = y[i] + bias[i];
                y[i] = sum < 0.0f ? 0.0f : sum; /* this way round NaN passes, so that a damaged model shows */
            }
        } else {
            for (uint32_t i = 0; i < width; i++)
                y[i] += bias[i];
        }
    }
}

static uint32_t widest_between(const struct rk_mlp_spec *mlp)
{
    uint32_t widest = 0;
    for (uint32_t l = 0; l + 1 < mlp->num_layers; l++)
        if (mlp->layers[l].weight.rows > widest)
            widest = mlp->layers[l].weight.rows;
    return widest;
}

size_t rk_tower_scratch_floats(const struct rk_mlp_spec *mlp)
{
    return 2 * (size_t)widest_between(mlp);
}

void rk_tower_run(const struct rk_tower *tower, const float *x, size_t x_stride, uint32_t width, uint32_t rows,
                  const struct rk_observer *observer, float *scratch, float *y, size_t y_stride)
{
    const struct rk_mlp_spec *mlp = tower->mlp;
    float *turns[2] = {scratch, scratch + (size_t)rows * widest_between(mlp)};
    for (uint32_t l = 0; l < mlp->num_layers; l++) {
        const struct rk_linear_spec *layer = &mlp->layers[l];
        const bool last = l + 1 == mlp->num_layers;
        const uint32_t in = layer->weight.columns, out = layer->weight.rows;
        float *to = last ? y : turns[l % 2];
        const size_t to_stride = last ? y_stride : out;
        rk_observe(observer, tower->stage, l, x, rows, in, x_stride);
        rk_tower_linear((const float *)(tower->weights + layer->weight.offset), in, out, x, x_stride, rows, to,
                        to_stride);
        add_bias((const float *)(tower->weights + layer->bias.offset), out, !last || tower->relu_last, to, to_stride,
                 rows);
        x = to;
        x_stride = to_stride;
    }
    if (mlp->num_layers == 0)
        for (uint32_t r = 0; r < rows; r++)
            memcpy(y + r * y_stride, x + r * x_stride, width * sizeof *y);
}
