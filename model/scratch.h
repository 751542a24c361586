/* Scratch memory of an engine: one block, cut into pieces that begin at multiples of 64 bytes. Everything that needs
 * some has a function that cuts it, which is called twice: first without a block, to count, then with one. */
#ifndef RANKD_MODEL_SCRATCH_H
#define RANKD_MODEL_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#include "quant/linear.h"

#define RK_SCRATCH_ALIGNMENT ((size_t)64)

struct rk_scratch {
    unsigned char *base; /* NULL: only count */
    size_t end;
};

/* Sizes come from checked specs: rows of less than 2^24 bytes, and as many as fit into the engine's budget. */
static inline void *rk_scratch_cut(struct rk_scratch *scratch, size_t count, size_t element_bytes)
{
    void *piece = scratch->base != NULL ? scratch->base + scratch->end : NULL;
    scratch->end += (count * element_bytes + RK_SCRATCH_ALIGNMENT - 1) & ~(RK_SCRATCH_ALIGNMENT - 1);
    return piece;
}

/* Room for rows of `row_bytes` in any of the dense formats. */
static inline struct rk_matrix rk_scratch_cut_matrix(struct rk_scratch *scratch, size_t rows, size_t row_bytes)
{
    struct rk_matrix matrix = {.row_bytes = row_bytes};
    matrix.values = rk_scratch_cut(scratch, rows, row_bytes);
    matrix.scales = rk_scratch_cut(scratch, rows, sizeof *matrix.scales);
    matrix.zeros = rk_scratch_cut(scratch, rows, sizeof *matrix.zeros);
    return matrix;
}

/* The matrix from a row on. */
static inline struct rk_matrix rk_matrix_from(const struct rk_matrix *matrix, size_t row)
{
    return (struct rk_matrix){.values = (unsigned char *)matrix->values + row * matrix->row_bytes,
                              .row_bytes = matrix->row_bytes,
                              .scales = matrix->scales + row,
                              .zeros = matrix->zeros + row,
                              .starts = matrix->starts != NULL ? matrix->starts + row : NULL};
}

/* Bytes of a row that `linear` reads. */
static inline size_t rk_linear_row_bytes(const struct rk_linear *linear)
{
    return rk_matrix_row_bytes(rk_linear_format(linear), rk_linear_columns(linear));
}

#endif
