/* The context's part of a layer. Scratch belongs to one engine; the layer is shared. */
#include "model/context_part.h"

#include <string.h>

void rk_context_part_cut(struct rk_context_part *part, uint32_t rows, struct rk_scratch *scratch)
{
    if (part->linear == NULL)
        return;
    part->in = rk_scratch_cut_matrix(scratch, rows, rk_linear_row_bytes(part->linear));
    part->starts = rk_scratch_cut(scratch, rows, rk_linear_start_floats(part->linear) * sizeof(float));
    part->of_rows = rk_scratch_cut(scratch, rows, sizeof *part->of_rows);
}

void rk_context_part_set(struct rk_context_part *part, uint32_t request, const float *x)
{
    if (part->linear == NULL)
        return;
    struct rk_matrix to = rk_matrix_from(&part->in, request);
    rk_linear_input(part->linear, x, 0, 1, &to);
}

void rk_context_part_run(struct rk_context_part *part, const struct rk_tile *tile, const struct rk_observer *observer)
{
    const uint32_t first = tile->first_new, end = tile->num_segments;
    if (part->linear == NULL || first == end)
        return;
    const size_t floats = rk_linear_start_floats(part->linear);
    const struct rk_matrix from = rk_matrix_from(&part->in, first);
    struct rk_matrix to = {.values = part->starts + first * floats, .row_bytes = floats * sizeof(float)};
    for (uint32_t s = first; observer->see != NULL && s < end; s++) {
        struct rk_matrix same = rk_matrix_from(&part->in, s);
        same.row_bytes = 0;
        rk_observe(observer, part->stage, 0, 0, rk_linear_columns(part->linear), &same, tile->segments[s].batch_rows);
    }
    rk_linear_run(part->linear, &from, end - first, false, NULL, NULL, &to);
}

void rk_context_part_carry(struct rk_context_part *part, uint32_t request)
{
    if (part->linear == NULL || request == 0)
        return;
    const size_t floats = rk_linear_start_floats(part->linear);
    memcpy(part->starts, part->starts + request * floats, floats * sizeof(float));
}

void rk_context_part_begin(const struct rk_context_part *part, const struct rk_tile *tile, struct rk_matrix *x)
{
    x->starts = NULL;
    if (part->linear == NULL)
        return;
    const size_t floats = rk_linear_start_floats(part->linear);
    for (uint32_t r = 0; r < tile->num_rows; r++)
        part->of_rows[r] = part->starts + tile->segment_of[r] * floats;
    x->starts = part->of_rows;
}
