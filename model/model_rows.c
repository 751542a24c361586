/* Looks at every row of a model, which opening it does not: what a package's maker wants to know once, a server need
 * not wait for. Streams; one thread. */
#include <stdlib.h>

#include "embeddings/row_stream.h"
#include "model/model.h"

#define REPORT_BYTES (16u << 20)

static enum rk_status check_table(const struct rk_table *table, const struct rk_table_spec *spec,
                                  rk_hash_progress_fn *progress, void *context, struct rk_error *error)
{
    const uint64_t rows = rk_table_spec_stored_rows(spec), row_bytes = rk_row_bytes(spec->format, spec->embedding_dim);
    struct rk_row_stream stream = rk_row_stream_begin(table);
    float *values = calloc(spec->embedding_dim, sizeof *values);
    if (values == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for a row of table '%.128s'", spec->name);
    enum rk_status status = RK_OK;
    uint64_t unreported = 0;
    for (uint64_t row = 0; status == RK_OK && row < rows; row++) {
        status = rk_row_stream_decode(&stream, row, values, error);
        unreported += row_bytes;
        if (status != RK_OK || (unreported < REPORT_BYTES && row + 1 < rows))
            continue;
        if (progress != NULL && !progress(context, unreported))
            status = rk_error_set(error, RK_CANCELLED, "cancelled");
        unreported = 0;
    }
    if (status == RK_OK)
        status = rk_row_stream_end(&stream, error);
    free(values);
    return status;
}

enum rk_status rk_model_check_rows(const struct rk_model *model, rk_hash_progress_fn *progress, void *context,
                                   struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    enum rk_status status = RK_OK;
    for (uint32_t t = 0; status == RK_OK && t < spec->num_tables; t++)
        status = check_table(rk_model_table(model, t), &spec->tables[t], progress, context, error);
    return status;
}
