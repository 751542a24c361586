/* Towers: the layers of an MLP over a batch of rows, float32, with the weights used where they are mapped. */
#ifndef RANKD_MODEL_TOWER_H
#define RANKD_MODEL_TOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/spec.h"

/* y[rows][out] = x[rows][in] W^T, with W [out, in]; y rows lie y_stride floats apart, x rows x_stride. No allocation. A
 * row's result depends in its last bits on `rows` (OpenBLAS picks its kernel by the shape), never on what the other
 * rows hold. */
void rk_tower_linear(const float *w, uint32_t in, uint32_t out, const float *x, size_t x_stride, uint32_t rows,
                     float *y, size_t y_stride);

/* Sees what linear layers read, as float32 rows `stride` floats apart; `index` counts layers of the stage. */
typedef void rk_observe_fn(void *context, enum rk_stage stage, uint32_t index, const float *values, uint32_t rows,
                           uint32_t columns, size_t stride);
struct rk_observer {
    rk_observe_fn *see; /* NULL: nobody looks */
    void *context;
};

static inline void rk_observe(const struct rk_observer *observer, enum rk_stage stage, uint32_t index,
                              const float *values, uint32_t rows, uint32_t columns, size_t stride)
{
    if (observer->see != NULL)
        observer->see(observer->context, stage, index, values, rows, columns, stride);
}

/* An MLP bound to its weights; plain data that refers to the spec and the mapping. */
struct rk_tower {
    const struct rk_mlp_spec *mlp;
    const unsigned char *weights; /* the weights file's first byte */
    enum rk_stage stage;
    bool relu_last; /* ReLU after the last layer too */
};

/* Floats per row that running it needs as scratch: two rows of the widest layer between. */
size_t rk_tower_scratch_floats(const struct rk_mlp_spec *mlp);

/* y[rows][last layer] = the tower over x[rows][first layer's input]. scratch: rows * rk_tower_scratch_floats(). x, y
 * and scratch must not overlap. A tower without layers copies. NaN stays NaN through ReLU. */
void rk_tower_run(const struct rk_tower *tower, const float *x, size_t x_stride, uint32_t width, uint32_t rows,
                  const struct rk_observer *observer, float *scratch, float *y, size_t y_stride);

#endif
