/* Tables of rows in mapped files.
 *
 * A table keeps, beside its spec, two arrays in shard order: the first row of each shard and the address at which row 0
 * would be if that shard reached back so far, so that a row's address is one multiplication and one addition:
 *
 *   address(row) = bases[s] + row * row_bytes      with first_rows[s] <= row < first_rows[s + 1]
 *
 * Immutable once open; any number of threads may read it.
 *
 * Memory advice. Lookups jump about, so rows are mapped with MADV_RANDOM: for a table larger than memory a miss then
 * reads one page instead of a read-ahead window of which nothing else is used. Loading hashes every file first, which
 * brings the pages in and fills the page tables, so nothing is populated a second time here. Huge pages for file
 * mappings depend on the file system and on how the kernel was built; copying rows into anonymous huge pages belongs to
 * a row source of its own. */
#include "embeddings/table.h"

#include <stdlib.h>
#include <string.h>

#include "quant/base/checked.h"

struct rk_table {
    const struct rk_table_spec *spec;
    uint64_t row_bytes;
    uint64_t *first_rows; /* [num_shards] */
    uintptr_t *bases;     /* [num_shards]; as numbers, because row 0 of a later shard lies outside its mapping */
    struct rk_mapped_file **files; /* [num_shards] */
};

static const char *const policies[RK_OUT_OF_RANGE_COUNT] = {
    [RK_OUT_OF_RANGE_REJECT] = "reject",
    [RK_OUT_OF_RANGE_MODULO] = "modulo",
    [RK_OUT_OF_RANGE_DEFAULT] = "default_row",
};

const char *rk_out_of_range_name(enum rk_out_of_range policy)
{
    return (unsigned)policy < RK_OUT_OF_RANGE_COUNT ? policies[policy] : "unknown";
}

bool rk_out_of_range_parse(const char *name, enum rk_out_of_range *policy)
{
    for (int p = 0; p < RK_OUT_OF_RANGE_COUNT; p++)
        if (strcmp(name, policies[p]) == 0) {
            *policy = (enum rk_out_of_range)p;
            return true;
        }
    return false;
}

static bool is_path_component(const char *name)
{
    return name != NULL && name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static enum rk_status check_shards(const struct rk_table_spec *spec, struct rk_error *error)
{
    const uint64_t stored = rk_table_spec_stored_rows(spec);
    uint64_t next = 0;
    for (uint32_t s = 0; s < spec->num_shards; s++) {
        const struct rk_shard_spec *shard = &spec->shards[s];
        if (!is_path_component(shard->file))
            return rk_error_set(error, RK_INVALID, "shards[%u].file is '%.128s', not a plain file name", s,
                                shard->file != NULL ? shard->file : "");
        if (shard->num_rows == 0)
            return rk_error_set(error, RK_INVALID, "shards[%u].num_rows is 0; every shard holds rows", s);
        if (shard->first_row != next)
            return rk_error_set(error, RK_INVALID,
                                "shards[%u].first_row is %llu where the shards before it end at %llu: a %s", s,
                                (unsigned long long)shard->first_row, (unsigned long long)next,
                                shard->first_row > next ? "gap" : "overlap");
        if (!rk_checked_add(next, shard->num_rows, &next) || next > stored)
            return rk_error_set(error, RK_INVALID,
                                "shards[%u].num_rows is %llu, which goes past the table's %llu stored rows", s,
                                (unsigned long long)shard->num_rows, (unsigned long long)stored);
    }
    if (next != stored)
        return rk_error_set(error, RK_INVALID, "the %u shards cover %llu of %llu rows", spec->num_shards,
                            (unsigned long long)next, (unsigned long long)stored);
    return RK_OK;
}

static enum rk_status check_spec(const struct rk_table_spec *spec, struct rk_error *error)
{
    if ((unsigned)spec->format >= RK_ROW_FORMAT_COUNT)
        return rk_error_set(error, RK_INVALID, "unknown row format %d", (int)spec->format);
    if ((unsigned)spec->out_of_range >= RK_OUT_OF_RANGE_COUNT)
        return rk_error_set(error, RK_INVALID, "unknown out-of-range policy %d", (int)spec->out_of_range);
    if (spec->embedding_dim == 0)
        return rk_error_set(error, RK_INVALID, "embedding_dim is 0");
    if (spec->num_embeddings == 0)
        return rk_error_set(error, RK_INVALID, "num_embeddings is 0");
    uint64_t bytes;
    if (!rk_checked_mul(spec->num_embeddings, rk_row_bytes(spec->format, spec->embedding_dim), &bytes) ||
        bytes > INT64_MAX)
        return rk_error_set(error, RK_INVALID,
                            "num_embeddings %llu with embedding_dim %u is more bytes than 64 bits count",
                            (unsigned long long)spec->num_embeddings, spec->embedding_dim);
    if (spec->out_of_range == RK_OUT_OF_RANGE_DEFAULT && spec->default_row >= spec->num_embeddings)
        return rk_error_set(error, RK_INVALID, "default_row %llu is not below num_embeddings %llu",
                            (unsigned long long)spec->default_row, (unsigned long long)spec->num_embeddings);
    if (spec->kept.file != NULL && !is_path_component(spec->kept.file))
        return rk_error_set(error, RK_INVALID, "kept.file is '%.128s', not a plain file name", spec->kept.file);
    if (spec->kept.file != NULL && spec->kept.num_rows > spec->num_embeddings)
        return rk_error_set(error, RK_INVALID, "kept.rows is %llu, more than num_embeddings %llu",
                            (unsigned long long)spec->kept.num_rows, (unsigned long long)spec->num_embeddings);
    return check_shards(spec, error);
}

enum rk_status rk_table_spec_check(const struct rk_table_spec *spec, struct rk_error *error)
{
    enum rk_status status = check_spec(spec, error);
    if (status != RK_OK)
        rk_error_prefix(error, "table '%.128s'", spec->name != NULL ? spec->name : "");
    return status;
}

enum rk_status rk_table_open(const struct rk_table_spec *spec, int dir_fd, struct rk_table **table,
                             struct rk_error *error)
{
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
    for (uint32_t s = 0; s < spec->num_shards; s++) {
        const struct rk_shard_spec *shard = &spec->shards[s];
        status =
            rk_mapped_file_open(dir_fd, shard->file, shard->num_rows * opened->row_bytes, &opened->files[s], error);
        if (status != RK_OK) {
            rk_error_prefix(error, "table '%.128s', shards[%u] (%llu rows of %llu bytes)", spec->name, s,
                            (unsigned long long)shard->num_rows, (unsigned long long)opened->row_bytes);
            goto fail;
        }
        rk_mapped_file_advise_random(opened->files[s]);
        opened->first_rows[s] = shard->first_row;
        opened->bases[s] =
            (uintptr_t)rk_mapped_file_data(opened->files[s]) - (uintptr_t)(shard->first_row * opened->row_bytes);
    }
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
    free(table->files);
    free(table->bases);
    free(table->first_rows);
    free(table);
}

struct rk_mapped_file *rk_table_file(const struct rk_table *table, uint32_t shard)
{
    return table->files[shard];
}

bool rk_table_damaged(const struct rk_table *table)
{
    for (uint32_t s = 0; s < table->spec->num_shards; s++)
        if (rk_mapped_file_damaged(table->files[s]))
            return true;
    return false;
}

bool rk_table_resolve_outside(const struct rk_table_spec *spec, int64_t *id, uint64_t *out_of_range)
{
    ++*out_of_range;
    switch (spec->out_of_range) {
    case RK_OUT_OF_RANGE_MODULO:
        if (*id >= 0) {
            *id = (int64_t)((uint64_t)*id % spec->num_embeddings);
        } else {
            uint64_t below_zero = (uint64_t)(-1 - *id) % spec->num_embeddings; /* 0 for -1, 1 for -2, ... */
            *id = (int64_t)(spec->num_embeddings - 1 - below_zero);
        }
        return true;
    case RK_OUT_OF_RANGE_DEFAULT:
        *id = (int64_t)spec->default_row;
        return true;
    default:
        return false;
    }
}

static inline const float *row_address(const struct rk_table *table, int64_t id)
{
    uint64_t row = (uint64_t)id;
    uint32_t shard = 0;
    for (uint32_t above = table->spec->num_shards;
         above - shard > 1;) { /* the last shard that begins at or before row */
        uint32_t middle = shard + (above - shard) / 2;
        if (table->first_rows[middle] <= row)
            shard = middle;
        else
            above = middle;
    }
    return (const float *)(table->bases[shard] + row * table->row_bytes);
}

enum {
    CHUNK = 64,            /* rows summed at a time: their addresses live on the stack whatever the bag's length */
    AHEAD = 24,            /* rows on their way from memory while others are summed */
    PREFETCH_BYTES = 1024, /* of one row; the hardware's own prefetcher follows through longer ones */
};

static void prefetch_row(const struct rk_table *table, int64_t id)
{
    const char *row = (const char *)row_address(table, id);
    uint64_t bytes = table->row_bytes < PREFETCH_BYTES ? table->row_bytes : PREFETCH_BYTES;
    for (uint64_t line = 0; line < bytes; line += 64)
        __builtin_prefetch(row + line);
}

void rk_table_pool(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                   float *out, size_t out_stride)
{
    const uint32_t dim = table->spec->embedding_dim;
    const size_t end = bags->offsets[bags->num_bags];
    size_t fetched = bags->offsets[0]; /* ids before it have been prefetched */
    for (size_t b = 0; b < bags->num_bags; b++, out += out_stride) {
        const size_t first = bags->offsets[b], last = bags->offsets[b + 1];
        size_t next = first;
        do {
            /* From the second chunk on, the sum so far is the first row of the next sum. */
            const float *rows[CHUNK + 1];
            float weights[CHUNK + 1];
            rows[0] = out;
            weights[0] = 1.0f;
            const size_t carried = next > first, count = last - next < CHUNK ? last - next : CHUNK;
            for (; fetched < end && fetched < next + count + AHEAD; fetched++)
                prefetch_row(table, bags->ids[fetched]);
            for (size_t i = 0; i < count; i++)
                rows[carried + i] = row_address(table, bags->ids[next + i]);
            if (bags->weights != NULL)
                memcpy(weights + carried, bags->weights + next, count * sizeof *weights);
            kernels->pool_f32(rows, bags->weights != NULL ? weights : NULL, carried + count, dim, out);
            next += count;
        } while (next < last);
        if (bags->mean && last - first > 1) {
            const float scale = (float)(last - first);
            for (uint32_t d = 0; d < dim; d++)
                out[d] /= scale;
        }
    }
}
