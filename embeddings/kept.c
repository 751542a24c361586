/* Which rows a pruned table keeps. The writer holds one block and hands it on when it is complete. Reading one id is a
 * kernel (rk_kept_rows_fn). No locks: a writer belongs to one thread, blocks are immutable. */
#include "embeddings/kept.h"

#include <stdbool.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blocks are mapped and used as they lie in the file: little-endian"
#endif

static uint64_t count_bits(const struct rk_kept_block *block)
{
    uint64_t count = 0;
    for (int w = 0; w < 7; w++)
        count += (uint64_t)__builtin_popcountll(block->bits[w]);
    return count;
}

static enum rk_status write_block(struct rk_kept_writer *writer)
{
    writer->status = writer->write(writer->context, &writer->block);
    writer->blocks_written++;
    writer->block = (struct rk_kept_block){.before = writer->num_kept};
    return writer->status;
}

/* Sets or leaves the bits up to `end`, writing each block as it is completed. */
static enum rk_status advance(struct rk_kept_writer *writer, uint64_t end, bool kept)
{
    while (writer->status == RK_OK && writer->next_id < end) {
        const uint64_t bit = writer->next_id % RK_KEPT_BLOCK, left = end - writer->next_id;
        const uint64_t in_word = 64 - bit % 64, count = left < in_word ? left : in_word;
        if (kept) {
            writer->block.bits[bit / 64] |= ~UINT64_C(0) >> (64 - count) << bit % 64;
            writer->num_kept += count;
        }
        writer->next_id += count;
        if (writer->next_id % RK_KEPT_BLOCK == 0)
            write_block(writer);
    }
    return writer->status;
}

enum rk_status rk_kept_add(struct rk_kept_writer *writer, uint64_t first, uint64_t count)
{
    if (writer->status == RK_OK && (first < writer->next_id || count > UINT64_MAX - first))
        writer->status = RK_INVALID;
    advance(writer, first, false);
    return advance(writer, first + count, true);
}

enum rk_status rk_kept_finish(struct rk_kept_writer *writer, uint64_t num_embeddings)
{
    if (writer->status == RK_OK && writer->next_id > num_embeddings)
        writer->status = RK_INVALID;
    advance(writer, num_embeddings, false);
    if (writer->status == RK_OK && num_embeddings % RK_KEPT_BLOCK > 0)
        write_block(writer);
    return writer->status;
}

enum rk_status rk_kept_check(const struct rk_kept_block *blocks, uint64_t num_embeddings, uint64_t num_kept,
                             struct rk_error *error)
{
    const uint64_t num_blocks = rk_kept_num_blocks(num_embeddings);
    uint64_t count = 0;
    for (uint64_t b = 0; b < num_blocks; b++) {
        if (blocks[b].before != count)
            return rk_error_set(error, RK_CORRUPT, "block %llu says %llu ids are kept before it where there are %llu",
                                (unsigned long long)b, (unsigned long long)blocks[b].before, (unsigned long long)count);
        count += count_bits(&blocks[b]);
    }
    const uint64_t used = num_embeddings % RK_KEPT_BLOCK;
    for (uint64_t w = 0; used > 0 && w < 7; w++) {
        const uint64_t exist = used <= w * 64 ? 0 : used >= w * 64 + 64 ? ~UINT64_C(0) : (UINT64_C(1) << used % 64) - 1;
        if (blocks[num_blocks - 1].bits[w] & ~exist)
            return rk_error_set(error, RK_CORRUPT, "the last block keeps ids past num_embeddings %llu",
                                (unsigned long long)num_embeddings);
    }
    if (count != num_kept)
        return rk_error_set(error, RK_CORRUPT, "%llu ids are kept where the manifest says %llu",
                            (unsigned long long)count, (unsigned long long)num_kept);
    return RK_OK;
}
