/* What plug-ins call: one table of functions over an open model. Any thread. */
#include "model/backends.h"

static const void *model_row(const struct rk_model *model, uint32_t table, uint64_t id)
{
    return rk_table_row(rk_model_table(model, table), rk_kernels_get(), (int64_t)id);
}

static const void *model_stored_rows(const struct rk_model *model, uint32_t table, uint64_t first, uint64_t *count)
{
    return rk_table_stored_rows(rk_model_table(model, table), first, count);
}

static const struct rk_kept_block *model_kept(const struct rk_model *model, uint32_t table)
{
    return rk_table_kept(rk_model_table(model, table));
}

static void decode_row(enum rk_row_format format, const void *row, size_t dim, float *values)
{
    rk_row_traits(format)->decode(row, dim, values);
}

const struct rk_backend_host rk_backend_host = {
    .error_set = rk_error_set,
    .model_spec = rk_model_spec_of,
    .model_weights = rk_model_weights,
    .model_row = model_row,
    .model_stored_rows = model_stored_rows,
    .model_kept = model_kept,
    .model_damaged = rk_model_damaged,
    .decode_row = decode_row,
    .decode_dense = rk_dense_decode,
};
