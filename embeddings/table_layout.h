/* Where the rows of an open table lie: between table.c, which opens and closes, and lookup.c, which reads. */
#ifndef RANKD_EMBEDDINGS_TABLE_LAYOUT_H
#define RANKD_EMBEDDINGS_TABLE_LAYOUT_H

#include "embeddings/huge_copy.h"
#include "embeddings/table.h"

/* Immutable once open, but for the damage marks of the files. */
struct rk_table {
    const struct rk_table_spec *spec;
    uint64_t row_bytes;
    uint64_t *first_rows; /* [num_shards] */
    uintptr_t *bases;     /* [num_shards]; as numbers, because row 0 of a later shard lies outside its memory */
    struct rk_mapped_file **files; /* [num_shards] */
    struct rk_huge_copy *copies;   /* [num_shards], or NULL: rows are read from the files */

    /* pruned tables, else NULL */
    struct rk_mapped_file *kept_file;
    struct rk_huge_copy kept_copy;
    const uint64_t (*kept)[8];

    uint32_t burst_rows; /* prefetched at a time; 0: the table stays in the cache by itself */
};

/* Rows of so many bytes in one burst. */
uint32_t rk_table_burst_rows(uint64_t row_bytes);

#endif
