/* Embedding tables: opening and closing. Files are mapped whole, or copied to where they were planned to go. Opened and
 * closed by one thread, immutable in between. */
#include "embeddings/table.h"

#include <stdlib.h>

#include "embeddings/kept.h"
#include "embeddings/memory.h"
#include "embeddings/table_layout.h"

/* Tables up to this size are left to the caches: prefetches would cost more than they spare. */
#define CACHED_BYTES ((uint64_t)1 << 20)

static void set_extent(struct rk_table *table, uint32_t extent, uint64_t first_row, const void *data)
{
    table->first_rows[extent] = first_row;
    table->bases[extent] = (uintptr_t)data - (uintptr_t)(first_row * table->row_bytes);
}

static uint64_t kept_bytes(const struct rk_table_spec *spec)
{
    return rk_kept_num_blocks(spec->num_embeddings) * sizeof(struct rk_kept_block);
}

static enum rk_status map_shard(struct rk_table *table, uint32_t s, int dir_fd, struct rk_error *error)
{
    const struct rk_shard_spec *shard = &table->spec->shards[s];
    const enum rk_status status =
        rk_mapped_file_open(dir_fd, shard->file, shard->num_rows * table->row_bytes, &table->files[s], error);
    if (status != RK_OK) {
        rk_error_prefix(error, "table '%.128s', shards[%u] (%llu rows of %llu bytes)", table->spec->name, s,
                        (unsigned long long)shard->num_rows, (unsigned long long)table->row_bytes);
        return status;
    }
    rk_mapped_file_advise_random(table->files[s]);
    set_extent(table, s, shard->first_row, rk_mapped_file_data(table->files[s]));
    return RK_OK;
}

static enum rk_status map_files(struct rk_table *table, int dir_fd, struct rk_error *error)
{
    const struct rk_table_spec *spec = table->spec;
    table->files = calloc(spec->num_shards, sizeof *table->files);
    if (table->files == NULL)
        return RK_NO_MEMORY;
    enum rk_status status = RK_OK;
    for (uint32_t s = 0; status == RK_OK && s < spec->num_shards; s++)
        status = map_shard(table, s, dir_fd, error);
    if (status != RK_OK || spec->kept.file == NULL)
        return status;
    status = rk_mapped_file_open(dir_fd, spec->kept.file, kept_bytes(spec), &table->kept_file, error);
    if (status != RK_OK) {
        rk_error_prefix(error, "table '%.128s', kept file '%.128s'", spec->name, spec->kept.file);
        return status;
    }
    rk_mapped_file_advise_random(table->kept_file);
    table->kept = rk_mapped_file_data(table->kept_file);
    return RK_OK;
}

/* Takes the places from the shards and fills them. */
static enum rk_status copy_to(struct rk_table *table, const struct rk_table_places *places, int dir_fd,
                              const struct rk_table_options *options, struct rk_error *error)
{
    for (uint32_t e = 0; e < table->num_extents; e++) {
        const struct rk_piece *piece = &places->pieces[e];
        set_extent(table, e, piece->first_row,
                   rk_shard_take(places->shards[piece->shard], piece->num_rows * table->row_bytes));
    }
    if (table->spec->kept.file != NULL)
        table->kept = rk_shard_take(places->shards[places->kept->shard], kept_bytes(table->spec));
    return rk_row_copy_fill(table, dir_fd, options, error);
}

static enum rk_status copy_to_own_shard(struct rk_table *table, int dir_fd, const struct rk_table_options *options,
                                        struct rk_error *error)
{
    const struct rk_piece kept = {0}, all = {.num_rows = rk_table_spec_stored_rows(table->spec)};
    const uint64_t bytes = rk_table_spec_bytes(table->spec) + RK_PIECE_ALIGNMENT; /* between rows and kept blocks */
    enum rk_status status = rk_shard_create(bytes, -1, &table->own_shard, error);
    if (status != RK_OK)
        return status;
    const struct rk_table_places places = {.pieces = &all, .num_pieces = 1, .kept = &kept, .shards = &table->own_shard};
    status = copy_to(table, &places, dir_fd, options, error);
    rk_shard_seal(table->own_shard);
    return status;
}

static enum rk_status read_files(struct rk_table *table, int dir_fd, const struct rk_table_options *options,
                                 struct rk_error *error)
{
    if (options->memory == RK_ROWS_MAPPED)
        return map_files(table, dir_fd, error);
    return options->places != NULL ? copy_to(table, options->places, dir_fd, options, error)
                                   : copy_to_own_shard(table, dir_fd, options, error);
}

static uint32_t count_extents(const struct rk_table_spec *spec, const struct rk_table_options *options)
{
    if (options->memory == RK_ROWS_MAPPED)
        return spec->num_shards;
    return options->places != NULL ? (uint32_t)options->places->num_pieces : 1;
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
    opened->source = &rk_memory_rows;
    opened->row_bytes = rk_row_bytes(spec->format, spec->embedding_dim);
    opened->num_extents = count_extents(spec, options);
    opened->first_rows = calloc(opened->num_extents, sizeof *opened->first_rows);
    opened->bases = calloc(opened->num_extents, sizeof *opened->bases);
    if (opened->first_rows == NULL || opened->bases == NULL)
        goto no_memory;
    if (rk_table_spec_stored_rows(spec) * opened->row_bytes > CACHED_BYTES)
        opened->burst_rows = rk_table_burst_rows(opened->row_bytes);
    status = read_files(opened, dir_fd, options, error);
    if (status == RK_NO_MEMORY)
        goto no_memory;
    if (status == RK_OK && spec->kept.file != NULL) {
        status =
            rk_kept_check((const struct rk_kept_block *)opened->kept, spec->num_embeddings, spec->kept.num_rows, error);
        if (status != RK_OK)
            rk_error_prefix(error, "table '%.128s', kept file '%.128s'", spec->name, spec->kept.file);
    }
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
    rk_mapped_file_close(table->kept_file);
    rk_shard_destroy(table->own_shard);
    free(table->files);
    free(table->bases);
    free(table->first_rows);
    free(table);
}

/* ---- lookups: whatever the rows' source is ---- */

void rk_table_pool(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                   float *out, size_t out_stride)
{
    table->source->pool(table, kernels, bags, out, out_stride);
}

bool rk_table_prefetches(const struct rk_table *table)
{
    return table->burst_rows > 0;
}

void rk_table_prefetch(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags)
{
    table->source->prefetch(table, kernels, bags);
}

const void *rk_table_row(const struct rk_table *table, const struct rk_kernels *kernels, int64_t id)
{
    return table->source->row(table, kernels, id);
}

/* ---- files ---- */

struct rk_mapped_file *rk_table_file(const struct rk_table *table, uint32_t shard)
{
    return table->files != NULL ? table->files[shard] : NULL;
}

struct rk_mapped_file *rk_table_kept_file(const struct rk_table *table)
{
    return table->kept_file;
}

static struct rk_mapped_file *mapped_file(const struct rk_table *table, uint32_t file)
{
    return file == table->spec->num_shards ? table->kept_file : rk_table_file(table, file);
}

enum rk_status rk_table_hash(const struct rk_table *table, uint32_t file, rk_hash_progress_fn *progress, void *context,
                             uint64_t *hash)
{
    const struct rk_mapped_file *mapped = mapped_file(table, file);
    return mapped != NULL ? rk_mapped_file_hash(mapped, progress, context, hash)
                          : rk_row_copy_hash(table, file, progress, context, hash);
}

bool rk_table_damaged(const struct rk_table *table)
{
    if (table->files == NULL)
        return atomic_load(&table->copy_damaged);
    for (uint32_t s = 0; s < table->spec->num_shards; s++)
        if (rk_mapped_file_damaged(table->files[s]))
            return true;
    return table->kept_file != NULL && rk_mapped_file_damaged(table->kept_file);
}

void rk_table_mark_damaged(struct rk_table *table, uint32_t file)
{
    struct rk_mapped_file *mapped = mapped_file(table, file);
    if (mapped != NULL)
        rk_mapped_file_mark_damaged(mapped);
    else
        atomic_store(&table->copy_damaged, true);
}

enum rk_status rk_table_lock(const struct rk_table *table, struct rk_error *error)
{
    if (table->own_shard != NULL)
        return rk_shard_lock(table->own_shard, error);
    enum rk_status status = RK_OK;
    for (uint32_t f = 0; table->files != NULL && status == RK_OK && f <= table->spec->num_shards; f++) {
        const struct rk_mapped_file *file = mapped_file(table, f);
        if (file != NULL)
            status = rk_memory_lock(rk_mapped_file_data(file), rk_mapped_file_bytes(file), error);
    }
    return status;
}

const void *rk_table_stored_rows(const struct rk_table *table, uint64_t first, uint64_t *count)
{
    uint32_t next = 0; /* the extent behind the one that holds it */
    while (next < table->num_extents && table->first_rows[next] <= first)
        next++;
    *count = (next < table->num_extents ? table->first_rows[next] : rk_table_spec_stored_rows(table->spec)) - first;
    return rk_table_stored_row(table, first);
}

const struct rk_kept_block *rk_table_kept(const struct rk_table *table)
{
    return (const struct rk_kept_block *)table->kept;
}

/* Gives each file's part of the rows to `advise`. Copies need no advice. */
static void advise_rows(const struct rk_table *table, uint64_t first, uint64_t count,
                        void (*advise)(const struct rk_mapped_file *file, uint64_t offset, uint64_t bytes))
{
    const struct rk_table_spec *spec = table->spec;
    for (uint32_t s = 0; table->files != NULL && s < spec->num_shards; s++) {
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
