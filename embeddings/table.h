/* Embedding tables: what they are (specs, plain data) and tables that can be read (opaque).
 *
 * A table of num_embeddings rows is cut into shards, each a file of consecutive rows without header or padding: row r
 * of a shard starts at (r - first_row) * row_bytes. Files are mapped and used in place, or copied to memory
 * (embeddings/shard.h). All counts are 64-bit: four billion rows and more can be described. */
#ifndef RANKD_EMBEDDINGS_TABLE_H
#define RANKD_EMBEDDINGS_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "embeddings/mapped_file.h"
#include "embeddings/placement.h"
#include "embeddings/shard.h"
#include "quant/base/status.h"
#include "quant/kernels.h"
#include "quant/rows.h"

/* What happens to an id that is negative or not below num_embeddings. Counted in every case. */
enum rk_out_of_range {
    RK_OUT_OF_RANGE_REJECT,  /* the request is refused (the default) */
    RK_OUT_OF_RANGE_MODULO,  /* the non-negative remainder: -1 becomes num_embeddings - 1 */
    RK_OUT_OF_RANGE_DEFAULT, /* row default_row is read instead */
    RK_OUT_OF_RANGE_COUNT
};
const char *rk_out_of_range_name(enum rk_out_of_range policy); /* "reject", "modulo", "default_row" */
bool rk_out_of_range_parse(const char *name, enum rk_out_of_range *policy);

struct rk_shard_spec {
    const char *file; /* one path component inside the package */
    uint64_t first_row, num_rows;
    uint64_t xxh3; /* of the whole file */
};

/* A pruned table stores only some of its rows, in order, and behind them one row more, which stands for all that were
 * dropped. Which ones it keeps is a file of 64-byte blocks, one for every RK_KEPT_BLOCK rows: a little-endian 64-bit
 * count of the rows kept before the block, then 448 bits, the lowest bit of the first byte for the block's first row.
 */
#define RK_KEPT_BLOCK 448u
struct rk_kept_spec {
    const char *file;  /* one path component; NULL: the table keeps all its rows */
    uint64_t num_rows; /* kept, not counting the one more */
    uint64_t xxh3;     /* of the file */
};

struct rk_table_spec {
    const char *name;
    uint64_t num_embeddings;
    uint32_t embedding_dim;
    enum rk_row_format format;
    enum rk_out_of_range out_of_range;
    uint64_t default_row; /* for RK_OUT_OF_RANGE_DEFAULT */
    struct rk_kept_spec kept;
    const struct rk_shard_spec *shards; /* in row order, covering every stored row exactly once */
    uint32_t num_shards;
};

/* Rows that the shards hold. */
static inline uint64_t rk_table_spec_stored_rows(const struct rk_table_spec *spec)
{
    return spec->kept.file != NULL ? spec->kept.num_rows + 1 : spec->num_embeddings;
}

/* Bytes of its files: stored rows, and which rows are kept. */
uint64_t rk_table_spec_bytes(const struct rk_table_spec *spec);

struct rk_table;
struct rk_kept_block;

/* Everything about a spec that needs no files: formats, sizes without overflow, the default row, shards that follow one
 * another and cover every row exactly once under plain file names. RK_INVALID with a text that names table, field and
 * value. */
enum rk_status rk_table_spec_check(const struct rk_table_spec *spec, struct rk_error *error);

/* Where the rows are read from. */
enum rk_row_memory {
    RK_ROWS_MAPPED,     /* the files' pages (the default): nothing to copy, shared between processes */
    RK_ROWS_HUGE_PAGES, /* copies on shards in anonymous huge pages, made at open: faster for rows all over a large
                           table, and what happens to the files afterwards does them no harm */
    RK_ROW_MEMORY_COUNT
};

/* Where copies go: pieces of the stored rows in order (their `item` is not looked at), and of a pruned table the one
 * for which rows it keeps. All is taken from the shards that the pieces name. */
struct rk_table_places {
    const struct rk_piece *pieces;
    size_t num_pieces;
    const struct rk_piece *kept;
    struct rk_shard *const *shards;
};

struct rk_table_options {
    enum rk_row_memory memory;
    /* Called, when not NULL, about every 32 MiB with the bytes copied since its last call; false stops (RK_CANCELLED).
     */
    bool (*progress)(void *context, uint64_t bytes);
    void *progress_context;
    const struct rk_table_places *places; /* of copies; NULL: one shard for this table alone */
};

/* Checks the spec (rk_table_spec_check), maps or copies the files from the package directory dir_fd. The spec and the
 * shards must outlive the table; options NULL: the defaults. The blocks of a pruned table are read through and checked.
 * Errors name the table, the file and the field. Checksums are not read here: see rk_table_hash. */
enum rk_status rk_table_open(const struct rk_table_spec *spec, int dir_fd, const struct rk_table_options *options,
                             struct rk_table **table, struct rk_error *error);
void rk_table_close(struct rk_table *table);

/* The mapped files; NULL: the table was copied, or keeps all rows. */
struct rk_mapped_file *rk_table_file(const struct rk_table *table, uint32_t shard);
struct rk_mapped_file *rk_table_kept_file(const struct rk_table *table);

/* XXH3-64 of one of its files as it is served: of the mapped file, or of what was copied from it. file: a number of a
 * shard file, or num_shards for which rows are kept. Otherwise as rk_mapped_file_hash. */
enum rk_status rk_table_hash(const struct rk_table *table, uint32_t file, rk_hash_progress_fn *progress, void *context,
                             uint64_t *hash);

/* True once what is served is known to be damaged: a mapped file, or a copy that was marked. */
bool rk_table_damaged(const struct rk_table *table);
void rk_table_mark_damaged(struct rk_table *table, uint32_t file);

/* Keeps mapped files, or copies on a shard of the table's own, in memory (rk_memory_lock). Shards that were given are
 * their owner's to lock. */
enum rk_status rk_table_lock(const struct rk_table *table, struct rk_error *error);

/* Rows by their place in the files: of a pruned table the kept ones in order, then the one that stands for the others.
 * To go through all of them, take embeddings/row_stream.h. */
const void *rk_table_stored_row(const struct rk_table *table, uint64_t row);
/* The same, and in *count how many rows follow one another from there on. */
const void *rk_table_stored_rows(const struct rk_table *table, uint64_t first, uint64_t *count);
/* Which rows a pruned table keeps (embeddings/kept.h); NULL: it keeps all. */
const struct rk_kept_block *rk_table_kept(const struct rk_table *table);
/* The pages of these rows, as far as there are such rows, will be read soon; they will not, and may go. */
void rk_table_want(const struct rk_table *table, uint64_t first, uint64_t count);
void rk_table_forget(const struct rk_table *table, uint64_t first, uint64_t count);

/* What to do with an id outside the table; false when it is to be rejected. *out_of_range grows by one. */
bool rk_table_resolve_outside(const struct rk_table_spec *spec, int64_t *id, uint64_t *out_of_range);

/* Turns any id into a row by the table's policy. Returns false when the policy is to reject. *out_of_range grows by one
 * for an id outside the table. */
static inline bool rk_table_resolve(const struct rk_table_spec *spec, int64_t *id, uint64_t *out_of_range)
{
    /* As unsigned numbers, negative ids lie past every table. */
    return (uint64_t)*id < spec->num_embeddings || rk_table_resolve_outside(spec, id, out_of_range);
}

/* The row that a resolved id reads, in the table's format. */
const void *rk_table_row(const struct rk_table *table, const struct rk_kernels *kernels, int64_t id);

/* num_bags bags that lie one after the other in `ids`: bag b is ids[offsets[b] .. offsets[b + 1]) with the weights at
 * the same places (NULL: ones). Ids must have been resolved. */
struct rk_bag_list {
    const int64_t *ids;
    const float *weights;
    const uint32_t *offsets; /* [num_bags + 1] */
    size_t num_bags;
    bool mean;
};

/* out[b * out_stride .. + embedding_dim) becomes the sum of weight * row over bag b, divided by the number of ids when
 * `mean`. An empty bag gives zeros. Rows of later bags are prefetched while earlier ones are summed. */
void rk_table_pool(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                   float *out, size_t out_stride);

/* Asks for the rows of these bags (up to what a second-level cache can well hold, the first ones), and returns at once:
 * for rows that rk_table_pool will be called for soon. Reads nothing but the ids and a pruned table's blocks. */
void rk_table_prefetch(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags);
/* False for a table that stays in the cache by itself: asking for its rows does nothing. */
bool rk_table_prefetches(const struct rk_table *table);

#endif
