/* The context's part of a layer that reads both sides (model/towers.h): what it gives for each request is where the
 * rows of that request's candidates begin. */
#ifndef RANKD_MODEL_CONTEXT_PART_H
#define RANKD_MODEL_CONTEXT_PART_H

#include "model/scratch.h"
#include "model/tile.h"
#include "model/tower.h"

struct rk_context_part {
    const struct rk_linear *linear; /* NULL: the layer has no such part, and nothing below does anything */
    enum rk_stage stage;            /* of whose first layer it is a part */
    /* scratch, a row for each request */
    struct rk_matrix in;
    float *starts;
    const float **of_rows; /* the starts of a tile's rows */
};

/* rows: of a tile, which may be of as many requests. */
void rk_context_part_cut(struct rk_context_part *part, uint32_t rows, struct rk_scratch *scratch);

/* Request `request` has the context x[the part's columns]. */
void rk_context_part_set(struct rk_context_part *part, uint32_t request, const float *x);
/* Computes the starts of the tile's new requests, which have been set. The observer sees each once for each candidate.
 */
void rk_context_part_run(struct rk_context_part *part, const struct rk_tile *tile, const struct rk_observer *observer);
/* The first request is now the one that was `request`. */
void rk_context_part_carry(struct rk_context_part *part, uint32_t request);

/* The tile's rows of x, which the other part is going to read, begin where their requests do. */
void rk_context_part_begin(const struct rk_context_part *part, const struct rk_tile *tile, struct rk_matrix *x);

#endif
