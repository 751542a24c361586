/* Windows of whole rows, at multiples of their size: while one is read, the next is on its way from the disk (files of
 * rows are mapped for random access, so the kernel does not read ahead by itself), and the one before is given back. */
#include "embeddings/row_stream.h"

#include <inttypes.h>
#include <string.h>

#include "embeddings/table_layout.h"

#define WINDOW_BYTES (4u << 20)

struct rk_row_stream rk_row_stream_begin(const struct rk_table *table)
{
    return (struct rk_row_stream){.table = table, .window_rows = WINDOW_BYTES / table->row_bytes + 1};
}

static void enter_window(struct rk_row_stream *stream, uint64_t row)
{
    const uint64_t first = row / stream->window_rows * stream->window_rows, end = first + stream->window_rows;
    rk_table_forget(stream->table, stream->first, stream->end - stream->first);
    if (first != stream->end || first == 0)
        rk_table_want(stream->table, first, stream->window_rows);
    rk_table_want(stream->table, end, stream->window_rows);
    stream->first = first;
    stream->end = end;
}

const void *rk_row_stream_row(struct rk_row_stream *stream, uint64_t row)
{
    if (row < stream->first || row >= stream->end)
        enter_window(stream, row);
    return rk_table_stored_row(stream->table, row);
}

/* Infinite or not a number. */
static bool is_strange(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) == 0x7f800000u;
}

enum rk_status rk_row_stream_decode(struct rk_row_stream *stream, uint64_t row, float *values, struct rk_error *error)
{
    const struct rk_table_spec *spec = stream->table->spec;
    const uint32_t dim = spec->embedding_dim;
    rk_row_traits(spec->format)->decode(rk_row_stream_row(stream, row), dim, values);
    unsigned strange = 0; /* one number for all, so that the loop runs in vectors */
    for (uint32_t d = 0; d < dim; d++)
        strange |= is_strange(values[d]);
    for (uint32_t d = 0; strange && d < dim; d++)
        if (is_strange(values[d]))
            return rk_error_set(error, RK_CORRUPT,
                                "table '%.128s': element %u of %srow %" PRIu64 " is %g; every element must be finite",
                                spec->name, d, spec->kept.file != NULL ? "stored " : "", row, (double)values[d]);
    return RK_OK;
}

enum rk_status rk_row_stream_end(struct rk_row_stream *stream, struct rk_error *error)
{
    const struct rk_table *table = stream->table;
    rk_table_forget(table, stream->first, stream->end - stream->first);
    stream->first = stream->end = 0;
    if (!rk_table_damaged(table))
        return RK_OK;
    return rk_error_set(error, RK_CORRUPT,
                        "table '%.128s': a file was truncated or became unreadable while it was read",
                        table->spec->name);
}
