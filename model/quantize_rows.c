/* Rows from one format to another: decoded, encoded, and compared with what they were, one at a time. Rows that keep
 * their format are copied byte for byte. One thread. */
#include "model/quantize_rows.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "embeddings/kept.h"

/* Pages of the source are let go behind so many rows, so that a table larger than memory passes through. */
#define FORGET_ROWS 4096u

static enum rk_status decode(const struct rk_row_conversion *c, uint64_t row, float *values, struct rk_error *error)
{
    const uint32_t dim = c->from->embedding_dim;
    rk_row_traits(c->from->format)->decode(rk_table_stored_row(c->table, row), dim, values);
    for (uint32_t d = 0; d < dim; d++)
        if (!isfinite(values[d]))
            return rk_error_set(error, RK_CORRUPT,
                                "table '%.128s': element %u of row %" PRIu64 " is %g; every element must be finite",
                                c->from->name, d, row, (double)values[d]);
    return RK_OK;
}

static void encode(struct rk_row_conversion *c, const float *values, void *row)
{
    const struct rk_row_traits *traits = rk_row_traits(c->to->format);
    const uint32_t dim = c->to->embedding_dim;
    traits->encode(values, dim, row);
    traits->decode(row, dim, c->decoded);
    for (uint32_t d = 0; d < dim; d++) {
        const double error = fabs((double)c->decoded[d] - (double)values[d]);
        c->largest_error = fmax(c->largest_error, error);
        c->error_sum += error;
    }
    c->num_elements += dim;
}

/* What ids read that are not kept: the table's default row where it has one, else the mean of the dropped rows. */
static enum rk_status default_row(struct rk_row_conversion *c, float *values, struct rk_error *error)
{
    if (c->from->out_of_range == RK_OUT_OF_RANGE_DEFAULT)
        return decode(c, c->from->default_row, values, error);
    const uint32_t dim = c->from->embedding_dim;
    uint64_t count = 0, row = 0;
    memset(c->sum, 0, dim * sizeof *c->sum);
    for (size_t r = 0; r <= c->num_kept; r++) {
        const uint64_t end = r < c->num_kept ? c->kept[r].first : c->from->num_embeddings;
        for (; row < end; row++, count++) {
            const enum rk_status status = decode(c, row, values, error);
            if (status != RK_OK)
                return status;
            for (uint32_t d = 0; d < dim; d++)
                c->sum[d] += (double)values[d];
            if (row % FORGET_ROWS == FORGET_ROWS - 1)
                rk_table_forget(c->table, row - (FORGET_ROWS - 1), FORGET_ROWS);
        }
        if (r < c->num_kept)
            row = c->kept[r].first + c->kept[r].count;
    }
    for (uint32_t d = 0; d < dim; d++)
        values[d] = count > 0 ? (float)(c->sum[d] / (double)count) : 0.0f;
    return RK_OK;
}

/* The row of the source that the target stores at `stored`, which is not its last one. */
static uint64_t source_row(struct rk_row_conversion *c, uint64_t stored)
{
    if (c->kept == NULL)
        return stored;
    if (stored < c->rows_before) {
        c->range = 0;
        c->rows_before = 0;
    }
    while (stored - c->rows_before >= c->kept[c->range].count)
        c->rows_before += c->kept[c->range++].count;
    return c->kept[c->range].first + (stored - c->rows_before);
}

enum rk_status rk_row_conversion_read(struct rk_row_conversion *c, uint64_t first, uint64_t count, void *rows,
                                      struct rk_error *error)
{
    const uint64_t row_bytes = rk_row_bytes(c->to->format, c->to->embedding_dim);
    const uint64_t stored = rk_table_spec_stored_rows(c->to);
    const bool is_default = c->kept != NULL && first + 1 == stored;
    uint64_t forgotten = is_default ? 0 : source_row(c, first);
    unsigned char *to = rows;
    enum rk_status status = RK_OK;
    for (uint64_t i = first; status == RK_OK && i < first + count; i++, to += row_bytes) {
        if (c->kept != NULL && i + 1 == stored) {
            status = default_row(c, c->values, error);
            if (status == RK_OK)
                rk_row_traits(c->to->format)->encode(c->values, c->to->embedding_dim, to);
            continue;
        }
        const uint64_t row = source_row(c, i);
        status = decode(c, row, c->values, error);
        if (status != RK_OK)
            break;
        if (c->to->format == c->from->format) {
            memcpy(to, rk_table_stored_row(c->table, row), row_bytes);
            c->num_elements += c->to->embedding_dim;
        } else {
            encode(c, c->values, to);
        }
        if (row - forgotten >= FORGET_ROWS) {
            rk_table_forget(c->table, forgotten, row - forgotten);
            forgotten = row;
        }
    }
    if (status == RK_OK && rk_table_damaged(c->table))
        status =
            rk_error_set(error, RK_CORRUPT, "table '%.128s': a file was truncated while it was read", c->from->name);
    return status;
}

/* ---- which rows are kept ---- */

struct kept_file {
    struct rk_package_writer *writer;
    struct rk_error *error;
};

static enum rk_status write_block(void *context, const struct rk_kept_block *block)
{
    const struct kept_file *file = context;
    return rk_package_write(file->writer, block, sizeof *block, file->error);
}

enum rk_status rk_row_conversion_write_kept(const struct rk_row_conversion *c, struct rk_package_writer *writer,
                                            struct rk_error *error)
{
    if (c->kept == NULL) {
        const struct rk_mapped_file *file = rk_table_kept_file(c->table);
        return rk_package_write(writer, rk_mapped_file_data(file), rk_mapped_file_bytes(file), error);
    }
    struct kept_file file = {writer, error};
    struct rk_kept_writer blocks = {.write = write_block, .context = &file};
    enum rk_status status = RK_OK;
    for (size_t r = 0; status == RK_OK && r < c->num_kept; r++)
        status = rk_kept_add(&blocks, c->kept[r].first, c->kept[r].count);
    return status == RK_OK ? rk_kept_finish(&blocks, c->from->num_embeddings) : status;
}
