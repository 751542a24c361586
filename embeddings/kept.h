/* Which rows a pruned table keeps: the blocks of its file (struct rk_kept_spec), how they are written and checked. */
#ifndef RANKD_EMBEDDINGS_KEPT_H
#define RANKD_EMBEDDINGS_KEPT_H

#include <stdint.h>

#include "embeddings/table.h"
#include "quant/base/status.h"

/* As it lies in the file, in little-endian order: one cache line answers whether an id is kept, and where. */
struct rk_kept_block {
    uint64_t before;  /* ids kept in all the blocks before */
    uint64_t bits[7]; /* the lowest of the first word is the block's first id */
};

static inline uint64_t rk_kept_num_blocks(uint64_t num_embeddings)
{
    return num_embeddings / RK_KEPT_BLOCK + (num_embeddings % RK_KEPT_BLOCK > 0);
}

/* Writes the blocks one after the other from ids that come in ascending order, without holding more than one:
 *
 *     struct rk_kept_writer writer = {.write = ..., .context = ...};
 *     rk_kept_add(&writer, first, count) for every stretch of kept ids, in ascending order
 *     rk_kept_finish(&writer, num_embeddings)
 *
 * `write` returns RK_OK or why it failed, which ends the writing: every later call returns the same. */
struct rk_kept_writer {
    enum rk_status (*write)(void *context, const struct rk_kept_block *block);
    void *context;
    /* zero at first */
    uint64_t num_kept; /* so far; at the end what the spec's num_rows says */
    uint64_t next_id;  /* ids below it are decided */
    uint64_t blocks_written;
    struct rk_kept_block block; /* the one that next_id falls into, unless that is at its first id */
    enum rk_status status;
};

/* Keeps ids [first, first + count). RK_INVALID when they do not follow those added before. */
enum rk_status rk_kept_add(struct rk_kept_writer *writer, uint64_t first, uint64_t count);
/* Writes what is left for a table of so many ids; RK_INVALID when ids beyond were added. */
enum rk_status rk_kept_finish(struct rk_kept_writer *writer, uint64_t num_embeddings);

/* Do the counts follow from the bits, do num_kept ids in all have one, and none that does not exist? RK_CORRUPT with
 * a text that names the block. blocks[rk_kept_num_blocks(num_embeddings)] */
enum rk_status rk_kept_check(const struct rk_kept_block *blocks, uint64_t num_embeddings, uint64_t num_kept,
                             struct rk_error *error);

#endif
