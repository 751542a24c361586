/* Inside quantising: a table's rows from one format to another, and those of a pruned table. */
#ifndef RANKD_MODEL_QUANTIZE_ROWS_H
#define RANKD_MODEL_QUANTIZE_ROWS_H

#include "embeddings/row_stream.h"
#include "embeddings/table.h"
#include "model/pack.h"
#include "model/plan.h"

/* One table on its way. Rows are counted as they are stored: of a pruned table the kept ones, then the one that stands
 * for the others. */
struct rk_row_conversion {
    const struct rk_table *table;
    const struct rk_table_spec *from, *to;
    const struct rk_row_range *kept; /* NULL: all rows that the source stores */
    size_t num_kept;
    float *values, *decoded;       /* [embedding_dim] each */
    double *sum;                   /* [embedding_dim], of dropped rows */
    struct rk_row_stream stream;   /* of the table */
    rk_pack_progress_fn *progress; /* of the way to the mean of the dropped rows; may be NULL */
    void *progress_context;
    /* what was seen */
    double largest_error, error_sum;
    uint64_t num_elements;
    /* where the last row that was read lies among the ranges: rows are asked for in order */
    size_t range;
    uint64_t rows_before; /* kept rows of the ranges before */
};

/* rows[count] = rows [first, first + count), in the target's format. RK_CORRUPT when a row is not finite, RK_CANCELLED
 * when `progress` said so. */
enum rk_status rk_row_conversion_read(struct rk_row_conversion *conversion, uint64_t first, uint64_t count, void *rows,
                                      struct rk_error *error);

/* Writes which rows the target keeps into the open file. */
enum rk_status rk_row_conversion_write_kept(const struct rk_row_conversion *conversion,
                                            struct rk_package_writer *writer, struct rk_error *error);

#endif
