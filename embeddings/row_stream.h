/* All rows of a table, one after the other, of a table that may be larger than memory. */
#ifndef RANKD_EMBEDDINGS_ROW_STREAM_H
#define RANKD_EMBEDDINGS_ROW_STREAM_H

#include <stdint.h>

#include "embeddings/table.h"
#include "quant/base/status.h"

/* A way through the stored rows: of a pruned table the kept ones in order, then the one that stands for the others. The
 * files are read ahead of it, and their pages given back behind it. One thread. */
struct rk_row_stream {
    const struct rk_table *table;
    uint64_t window_rows;
    uint64_t first, end; /* of the window that was read last; empty at first */
};

struct rk_row_stream rk_row_stream_begin(const struct rk_table *table);

/* Stored row number `row` in the table's format, valid until the next call. Any order is right, rising ones are fast.
 */
const void *rk_row_stream_row(struct rk_row_stream *stream, uint64_t row);

/* values[embedding_dim] = that row decoded. RK_CORRUPT, with a text that names table, row and element, when a number is
 * not finite. */
enum rk_status rk_row_stream_decode(struct rk_row_stream *stream, uint64_t row, float *values, struct rk_error *error);

/* Gives the last pages back. RK_CORRUPT when the table's files turned out to be damaged on the way: what was read is
 * worthless. */
enum rk_status rk_row_stream_end(struct rk_row_stream *stream, struct rk_error *error);

#endif
