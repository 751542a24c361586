/* Which rows lie on which shard: the planner. Plain data in, plain data out; nothing is opened or moved.
 *
 * Cost model. Looking a row up costs the cache lines that it lies on: that is what memory has to bring. An item's load
 * is rows read per request times lines per row, and every row of an item is taken to be read equally often.
 *
 * What comes out. Within the capacities, the busiest shard has at most 4/3 of the mean load, plus one row's (and what
 * cannot be divided: a single row). Items are cut only as far as that needs: the planner first places all of them
 * whole, then cuts those that are more than the mean load of a shard, then more than a half and a third of it, and
 * takes the first that keeps the bound. Where capacities leave no choice they come before balance. The same input gives
 * the same placement. */
#ifndef RANKD_EMBEDDINGS_PLACEMENT_H
#define RANKD_EMBEDDINGS_PLACEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

#define RK_MAX_PLACEMENT_SHARDS 256u

/* Pieces begin at multiples of so many bytes of a shard. */
#define RK_PIECE_ALIGNMENT 64u

/* Rows that may be cut between any two: of a table, or a single one that is a table's list of kept rows. */
struct rk_placement_item {
    const char *name;         /* for error texts */
    uint64_t rows, row_bytes; /* both at least 1; their product fits in 63 bits */
    double reads;             /* rows read per request, finite, from 0 up */
};

/* What lies on a shard. */
struct rk_shard_use {
    uint64_t bytes; /* pieces with their alignment */
    double load;    /* cache lines read per request */
};

struct rk_placement_limits {
    uint32_t num_shards;             /* 1 to RK_MAX_PLACEMENT_SHARDS */
    uint64_t capacity_bytes;         /* of each shard; 0: no limit */
    const struct rk_shard_use *used; /* [num_shards] what lies there already; NULL: nothing */
};

/* Rows [first_row, first_row + num_rows) of an item on a shard. */
struct rk_piece {
    uint32_t item, shard;
    uint64_t first_row, num_rows;
    uint64_t bytes; /* as they count against the capacity */
    double load;
};

struct rk_placement {
    struct rk_piece *pieces; /* by item and first row; every row exactly once, at most one piece of an item per shard */
    size_t num_pieces;
    struct rk_shard_use *shards; /* [num_shards] what this placement adds */
    uint32_t num_shards;
};

/* Expected cache lines of a row that starts at any multiple of row_bytes. */
double rk_row_lines(uint64_t row_bytes);

/* RK_INVALID (num_shards), RK_EXHAUSTED with a text that names the item that does not fit, by how much, and what would
 * make it fit; RK_NO_MEMORY. */
enum rk_status rk_placement_plan(const struct rk_placement_item *items, uint32_t num_items,
                                 const struct rk_placement_limits *limits, struct rk_placement *placement,
                                 struct rk_error *error);
void rk_placement_deinit(struct rk_placement *placement); /* a zeroed one, too */

/* An item's pieces: *count of them from the one that is returned. */
const struct rk_piece *rk_placement_pieces(const struct rk_placement *placement, uint32_t item, size_t *count);

#endif
