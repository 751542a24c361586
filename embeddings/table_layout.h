/* Where the rows of an open table lie: between table.c, which opens and closes, row_copy.c, which fills, and lookup.c,
 * which reads. */
#ifndef RANKD_EMBEDDINGS_TABLE_LAYOUT_H
#define RANKD_EMBEDDINGS_TABLE_LAYOUT_H

#include <stdatomic.h>

#include "embeddings/row_source.h"
#include "embeddings/table.h"

/* Immutable once open, but for the damage marks of the files and its own. */
struct rk_table {
    const struct rk_table_spec *spec;
    const struct rk_row_source *source;
    uint64_t row_bytes;

    /* Extents: consecutive stored rows that lie at one place: a file, or a piece of a copy on a shard. */
    uint32_t num_extents;
    uint64_t *first_rows; /* [num_extents] */
    uintptr_t *bases;     /* [num_extents]; as numbers, because row 0 of a later extent lies outside its memory */

    struct rk_mapped_file **files;    /* [spec->num_shards]; NULL: rows were copied, the files are closed */
    struct rk_mapped_file *kept_file; /* pruned tables that are not copied, else NULL */
    const uint64_t (*kept)[8];        /* pruned tables, else NULL */
    struct rk_shard *own_shard;       /* for copies when no other was given, else NULL */
    atomic_bool copy_damaged;

    uint32_t burst_rows; /* prefetched at a time; 0: the table stays in the cache by itself */
};

/* Rows of so many bytes in one burst. */
uint32_t rk_table_burst_rows(uint64_t row_bytes);

/* Reads the files of a table whose extents (and kept, if the table is pruned) are places to copy to. Errors name the
 * file. */
enum rk_status rk_row_copy_fill(struct rk_table *table, int dir_fd, const struct rk_table_options *options,
                                struct rk_error *error);
/* XXH3-64 of what was copied from a file, as rk_table_hash. */
enum rk_status rk_row_copy_hash(const struct rk_table *table, uint32_t file, rk_hash_progress_fn *progress,
                                void *context, uint64_t *hash);

#endif
