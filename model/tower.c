/* Layers write into two scratch matrices by turns, in the format of the layer that reads them; the last one writes
 * float32 to the caller's. Scratch belongs to one engine; the layers are shared. */
#include "model/tower.h"

static const struct rk_linear *next_of(const struct rk_tower *tower, uint32_t layer)
{
    return layer + 1 < tower->num_layers ? tower->layers[layer + 1] : NULL;
}

void rk_tower_cut(struct rk_tower *tower, uint32_t rows, struct rk_scratch *scratch)
{
    size_t row_bytes[2] = {0, 0}, sums = 0;
    for (uint32_t l = 0; l < tower->num_layers; l++) {
        const struct rk_linear *next = next_of(tower, l);
        const size_t floats = rk_linear_scratch_floats(tower->layers[l], next);
        sums = floats > sums ? floats : sums;
        if (next != NULL && rk_linear_row_bytes(next) > row_bytes[l % 2])
            row_bytes[l % 2] = rk_linear_row_bytes(next);
    }
    for (int turn = 0; turn < 2; turn++)
        tower->turns[turn] = rk_scratch_cut_matrix(scratch, rows, row_bytes[turn]);
    tower->sums = rk_scratch_cut(scratch, rows, sums * sizeof(float));
}

void rk_tower_run(const struct rk_tower *tower, const struct rk_matrix *x, uint32_t rows,
                  const struct rk_observer *observer, float *y, size_t y_stride)
{
    struct rk_matrix from = *x;
    for (uint32_t l = 0; l < tower->num_layers; l++) {
        const struct rk_linear *layer = tower->layers[l], *next = next_of(tower, l);
        struct rk_matrix to = {.values = y, .row_bytes = y_stride * sizeof(float)};
        if (next != NULL) {
            to = tower->turns[l % 2];
            to.row_bytes = rk_linear_row_bytes(next);
        }
        rk_observe(observer, tower->stage, l, l == 0 ? tower->first_column : 0,
                   l == 0 ? tower->columns : rk_linear_columns(layer), &from, rows);
        rk_linear_run(layer, &from, rows, next != NULL || tower->relu_last, next, tower->sums, &to);
        from = to;
    }
}
