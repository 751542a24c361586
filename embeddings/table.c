/* Embedding tables: opening and closing. Shards are mapped whole, and copied into huge pages if asked. */
#include "embeddings/table.h"

#include <stdlib.h>

#include "embeddings/kept.h"
#include "embeddings/table_layout.h"

/* Tables up to this size are left to the caches: prefetches would cost more than they spare. */
#define CACHED_BYTES ((uint64_t)1 << 20)

static enum rk_status open_shard(struct rk_table *table, uint32_t s, int dir_fd, const struct rk_table_options *options,
                                 struct rk_error *error)
{
    const struct rk_shard_spec *shard = &table->spec->shards[s];
    enum rk_status status =
        rk_mapped_file_open(dir_fd, shard->file, shard->num_rows * table->row_bytes, &table->files[s], error);
    if (status == RK_OK)
        rk_mapped_file_advise_random(table->files[s]);
    if (status == RK_OK && table->copies != NULL)
        status =
            rk_huge_copy_init(&table->copies[s], table->files[s], options->progress, options->progress_context, error);
    if (status != RK_OK) {
        rk_error_prefix(error, "table '%.128s', shards[%u] (%llu rows of %llu bytes)", table->spec->name, s,
                        (unsigned long long)shard->num_rows, (unsigned long long)table->row_bytes);
        return status;
    }
    const void *data = table->copies != NULL ? table->copies[s].data : rk_mapped_file_data(table->files[s]);
    table->first_rows[s] = shard->first_row;
    table->bases[s] = (uintptr_t)data - (uintptr_t)(shard->first_row * table->row_bytes);
    return RK_OK;
}

static enum rk_status open_kept(struct rk_table *table, int dir_fd, const struct rk_table_options *options,
                                struct rk_error *error)
{
    const struct rk_table_spec *spec = table->spec;
    enum rk_status status = rk_mapped_file_open(dir_fd, spec->kept.file,
                                                rk_kept_num_blocks(spec->num_embeddings) * sizeof(struct rk_kept_block),
                                                &table->kept_file, error);
    const void *blocks = NULL;
    if (status == RK_OK) {
        blocks = rk_mapped_file_data(table->kept_file);
        status = rk_kept_check(blocks, spec->num_embeddings, spec->kept.num_rows, error);
        rk_mapped_file_advise_random(table->kept_file);
    }
    if (status == RK_OK && table->copies != NULL) {
        status =
            rk_huge_copy_init(&table->kept_copy, table->kept_file, options->progress, options->progress_context, error);
        blocks = table->kept_copy.data;
    }
    table->kept = blocks;
    if (status != RK_OK)
        rk_error_prefix(error, "table '%.128s', kept file '%.128s'", spec->name, spec->kept.file);
    return status;
}

enum rk_status rk_table_open(const struct rk_table_spec *spec, int dir_fd, const struct rk_table_options *options,
                             struct rk_table **table, struct rk_error *error)
{
    static const struct rk_table_options defaults = {0};
    options = options != NULL ? options : &defaults;
    enum rk_status status = rk_table_spec_check(spec, error);
    if (status != RK_OK)
        return status;
    struct rk_table *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        goto no_memory;
    opened->spec = spec;
    opened->row_bytes = rk_row_bytes(spec->format, spec->embedding_dim);
    opened->first_rows = calloc(spec->num_shards, sizeof *opened->first_rows);
    opened->bases = calloc(spec->num_shards, sizeof *opened->bases);
    opened->files = calloc(spec->num_shards, sizeof *opened->files);
    if (opened->first_rows == NULL || opened->bases == NULL || opened->files == NULL)
        goto no_memory;
    if (options->memory == RK_ROWS_HUGE_PAGES) {
        opened->copies = calloc(spec->num_shards, sizeof *opened->copies);
        if (opened->copies == NULL)
            goto no_memory;
    }
    if (rk_table_spec_stored_rows(spec) * opened->row_bytes > CACHED_BYTES)
        opened->burst_rows = rk_table_burst_rows(opened->row_bytes);
    for (uint32_t s = 0; status == RK_OK && s < spec->num_shards; s++)
        status = open_shard(opened, s, dir_fd, options, error);
    if (status == RK_OK && spec->kept.file != NULL)
        status = open_kept(opened, dir_fd, options, error);
    if (status != RK_OK)
        goto fail;
    *table = opened;
    return RK_OK;
no_memory:
    status = rk_error_set(error, RK_NO_MEMORY, "out of memory while opening table '%.128s'", spec->name);
fail:
    rk_table_close(opened);
    return status;
}

void rk_table_close(struct rk_table *table)
{
    if (table == NULL)
        return;
    for (uint32_t s = 0; table->files != NULL && s < table->spec->num_shards; s++)
        rk_mapped_file_close(table->files[s]);
    for (uint32_t s = 0; table->copies != NULL && s < table->spec->num_shards; s++)
        rk_huge_copy_deinit(&table->copies[s]);
    rk_mapped_file_close(table->kept_file);
    rk_huge_copy_deinit(&table->kept_copy);
    free(table->copies);
    free(table->files);
    free(table->bases);
    free(table->first_rows);
    free(table);
}

struct rk_mapped_file *rk_table_file(const struct rk_table *table, uint32_t shard)
{
    return table->files[shard];
}

struct rk_mapped_file *rk_table_kept_file(const struct rk_table *table)
{
    return table->kept_file;
}

bool rk_table_damaged(const struct rk_table *table)
{
    for (uint32_t s = 0; s < table->spec->num_shards; s++)
        if (rk_mapped_file_damaged(table->files[s]))
            return true;
    return table->kept_file != NULL && rk_mapped_file_damaged(table->kept_file);
}

/* Gives each shard's part of the rows to `advise`. Copies in huge pages need no advice. */
static void advise_rows(const struct rk_table *table, uint64_t first, uint64_t count,
                        void (*advise)(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes))
{
    const struct rk_table_spec *spec = table->spec;
    for (uint32_t s = 0; table->copies == NULL && s < spec->num_shards; s++) {
        const struct rk_shard_spec *shard = &spec->shards[s];
        const uint64_t end = first + count, shard_end = shard->first_row + shard->num_rows;
        const uint64_t from = first > shard->first_row ? first : shard->first_row,
                       to = end < shard_end ? end : shard_end;
        if (from < to)
            advise(table->files[s], (from - shard->first_row) * table->row_bytes, (to - from) * table->row_bytes);
    }
}

void rk_table_want(const struct rk_table *table, uint64_t first, uint64_t count)
{
    advise_rows(table, first, count, rk_mapped_file_want);
}

void rk_table_forget(const struct rk_table *table, uint64_t first, uint64_t count)
{
    advise_rows(table, first, count, rk_mapped_file_forget);
}
