/* Towers: the packed layers of an MLP over a batch of rows, each layer writing what the next one reads. */
#ifndef RANKD_MODEL_TOWER_H
#define RANKD_MODEL_TOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/scratch.h"
#include "model/spec.h"
#include "quant/linear.h"

/* Sees what linear layers read, as float32 rows `stride` floats apart (0: the same row as often); `index` counts layers
 * of the stage. values[0] of a row stands in column first_column, in the order of model/columns.h: of a layer in two
 * parts each shows its own. */
typedef void rk_observe_fn(void *context, enum rk_stage stage, uint32_t index, uint32_t first_column,
                           const float *values, uint32_t rows, uint32_t columns, size_t stride);
struct rk_observer {
    rk_observe_fn *see; /* NULL: nobody looks */
    void *context;
};

/* Shows what a layer is about to read. Only for float32 layers is there somebody who looks. */
static inline void rk_observe(const struct rk_observer *observer, enum rk_stage stage, uint32_t index,
                              uint32_t first_column, uint32_t columns, const struct rk_matrix *x, uint32_t rows)
{
    if (observer->see != NULL && columns > 0)
        observer->see(observer->context, stage, index, first_column, x->values, rows, columns,
                      x->row_bytes / sizeof(float));
}

struct rk_tower {
    struct rk_linear *const *layers; /* [num_layers]; shared, read-only */
    uint32_t num_layers;             /* at least 1 */
    enum rk_stage stage;
    bool relu_last; /* ReLU after the last layer too */
    /* of the spec's first layer: how many columns another part has read before, and how many the tower reads */
    uint32_t first_column, columns;
    /* scratch */
    struct rk_matrix turns[2]; /* what the layers between read, by turns */
    float *sums;
};

/* Cuts the tower's scratch for batches of up to `rows`. */
void rk_tower_cut(struct rk_tower *tower, uint32_t rows, struct rk_scratch *scratch);

/* y[rows][last layer's out], rows y_stride floats apart = the tower over x, which is in the first layer's format. NaN
 * stays NaN through ReLU. */
void rk_tower_run(const struct rk_tower *tower, const struct rk_matrix *x, uint32_t rows,
                  const struct rk_observer *observer, float *y, size_t y_stride);

#endif
