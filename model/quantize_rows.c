/* Rows from one format to another: decoded, encoded, and compared with what they were, one at a time. Rows that keep
 * their format are copied byte for byte. One thread. */
#include "model/quantize_rows.h"

#include <math.h>
#include <string.h>

#include "embeddings/kept.h"

#define REPORT_ROWS 65536u

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

static enum rk_status report(const struct rk_row_conversion *c, uint64_t row, struct rk_error *error)
{
    const uint64_t row_bytes = rk_row_bytes(c->from->format, c->from->embedding_dim);
    if (c->progress == NULL || c->progress(c->progress_context, "averaging the rows that are dropped", row * row_bytes,
                                           c->from->num_embeddings * row_bytes))
        return RK_OK;
    return rk_error_set(error, RK_CANCELLED, "cancelled");
}

/* What ids read that are not kept: the table's default row where it has one, else the mean of the dropped rows. */
static enum rk_status default_row(struct rk_row_conversion *c, float *values, struct rk_error *error)
{
    if (c->from->out_of_range == RK_OUT_OF_RANGE_DEFAULT)
        return rk_row_stream_decode(&c->stream, c->from->default_row, values, error);
    const uint32_t dim = c->from->embedding_dim;
    uint64_t count = 0, row = 0;
    memset(c->sum, 0, dim * sizeof *c->sum);
    for (size_t r = 0; r <= c->num_kept; r++) {
        const uint64_t end = r < c->num_kept ? c->kept[r].first : c->from->num_embeddings;
        for (; row < end; row++, count++) {
            enum rk_status status = rk_row_stream_decode(&c->stream, row, values, error);
            if (status == RK_OK && count % REPORT_ROWS == 0)
                status = report(c, row, error);
            if (status != RK_OK)
                return status;
            for (uint32_t d = 0; d < dim; d++)
                c->sum[d] += (double)values[d];
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
        status = rk_row_stream_decode(&c->stream, row, c->values, error);
        if (status != RK_OK)
            break;
        if (c->to->format == c->from->format) {
            memcpy(to, rk_row_stream_row(&c->stream, row), row_bytes);
            c->num_elements += c->to->embedding_dim;
        } else {
            encode(c, c->values, to);
        }
    }
    return status == RK_OK ? rk_row_stream_end(&c->stream, error) : status;
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
