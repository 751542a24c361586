/* What plug-ins call: one table of functions over an open model. Any thread. */
#include "model/backends.h"

static const void *model_row(const struct rk_model *model, uint32_t table, uint64_t id)
{
    return rk_table_row(rk_model_table(model, table), rk_kernels_get(), (int64_t)id);
}

/* Rows follow one another within a shard. */
static const void *model_stored_rows(const struct rk_model *model, uint32_t table, uint64_t first, uint64_t *count)
{
    const struct rk_shard_spec *shard = rk_model_spec_of(model)->tables[table].shards;
    while (first >= shard->first_row + shard->num_rows)
        shard++;
    *count = shard->first_row + shard->num_rows - first;
    return rk_table_stored_row(rk_model_table(model, table), first);
}

static const struct rk_kept_block *model_kept(const struct rk_model *model, uint32_t table)
{
    struct rk_mapped_file *file = rk_table_kept_file(rk_model_table(model, table));
    return file != NULL ? rk_mapped_file_data(file) : NULL;
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
