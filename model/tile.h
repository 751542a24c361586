/* Some candidates on their way through the engine together, in segments, one for each request that takes part. */
#ifndef RANKD_MODEL_TILE_H
#define RANKD_MODEL_TILE_H

#include <stdint.h>

/* Consecutive candidates of one request. */
struct rk_segment {
    uint32_t first_row, num_rows;
    uint32_t batch_rows; /* of this request in the whole batch, those in other tiles included */
};

struct rk_tile {
    const struct rk_segment *segments; /* in row order, covering all rows; segment s is of request s */
    const uint32_t *segment_of;        /* [num_rows] */
    uint32_t num_segments, num_rows;
    uint32_t first_new; /* 1: the first request goes on from the tile before, which has computed what depends on its
                           context alone; else 0 */
    float *context, *candidate;
};

#endif
