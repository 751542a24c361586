/* Towers through OpenBLAS: one sgemm a layer, or one sgemv for each row, then bias and ReLU. */
#include <cblas.h>
#include <stdlib.h>

#include "tests/bench/towers.h"

struct openblas {
    const struct tower *tower;
    const float *x;
    float *turns[2];
    uint32_t batch;
    bool by_row;
};

static void bias_and_relu(const float *restrict bias, uint32_t out, bool relu, uint32_t rows, float *restrict y)
{
    for (uint32_t r = 0; r < rows; r++, y += out)
        for (uint32_t o = 0; o < out; o++) {
            const float sum = y[o] + bias[o];
            y[o] = relu && sum < 0.0f ? 0.0f : sum;
        }
}

static void run(void *state)
{
    const struct openblas *openblas = state;
    const float *x = openblas->x;
    for (int l = 0; l < NUM_LAYERS; l++) {
        const blasint in = (blasint)openblas->tower->widths[l], out = (blasint)openblas->tower->widths[l + 1];
        const float *weights = openblas->tower->weights[l];
        float *y = openblas->turns[l % 2];
        if (openblas->by_row)
            for (uint32_t r = 0; r < openblas->batch; r++)
                cblas_sgemv(CblasRowMajor, CblasNoTrans, out, in, 1.0f, weights, in, x + (size_t)r * in, 1, 0.0f,
                            y + (size_t)r * out, 1);
        else
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)openblas->batch, out, in, 1.0f, x, in,
                        weights, in, 0.0f, y, out);
        bias_and_relu(openblas->tower->bias[l], (uint32_t)out, l + 1 < NUM_LAYERS, openblas->batch, y);
        x = y;
    }
}

bool openblas_create(const struct tower *tower, bool by_row, const float *x, uint32_t batch,
                     struct contender *contender)
{
    struct openblas *openblas = bench_memory(sizeof *openblas);
    *openblas = (struct openblas){.tower = tower, .x = x, .batch = batch, .by_row = by_row};
    for (int i = 0; i < 2; i++)
        openblas->turns[i] = bench_memory(sizeof(float) * MAX_WIDTH * batch);
    *contender = (struct contender){.name = by_row ? "sgemv" : "sgemm",
                                    .run = run,
                                    .state = openblas,
                                    .scores = openblas->turns[(NUM_LAYERS - 1) % 2],
                                    .score_stride = 1};
    return true;
}

void openblas_destroy(struct contender *contender)
{
    struct openblas *openblas = contender->state;
    free(openblas->turns[0]);
    free(openblas->turns[1]);
    free(openblas);
}
