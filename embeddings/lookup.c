/* Pooled lookups. Rows lie all over memory, so what counts is how many cache lines are on their way at a time. The ids
 * of a list are taken in bursts, whatever their bags:
 *
 *     ids      | burst 0 | burst 1 | burst 2 | ...
 *     step 0   fetch 0
 *     step 1   fetch 1, then sum 0
 *     step 2   fetch 2, then sum 1 ...
 *
 * All prefetches of a burst are issued at once, before the sums of the burst before, and into the second-level cache,
 * which takes more requests at a time than the first. A bag may cross bursts: kernels go on with a sum where they left
 * it, to the same bits. Any number of threads may read a table. */
#include <string.h>

#include "embeddings/table_layout.h"

enum {
    LINE = 64,
    BURST_ROWS = 128,      /* at most: their addresses live on the stack */
    BURST_LINES = 256,     /* on their way at a time */
    ROW_LINES = 64,        /* of one row; the hardware's own prefetcher follows through longer ones */
    PREFETCH_LINES = 4096, /* by one rk_table_prefetch */
};

uint32_t rk_table_burst_rows(uint64_t row_bytes)
{
    const uint64_t lines = row_bytes / LINE + 1;
    if (lines >= BURST_LINES / 2)
        return 2;
    return BURST_LINES / lines < BURST_ROWS ? (uint32_t)(BURST_LINES / lines) : BURST_ROWS;
}

static inline uintptr_t address_of(const struct rk_table *table, uint64_t row)
{
    uint32_t shard = 0;
    for (uint32_t above = table->spec->num_shards;
         above - shard > 1;) { /* the last shard that begins at or before row */
        const uint32_t middle = shard + (above - shard) / 2;
        if (table->first_rows[middle] <= row)
            shard = middle;
        else
            above = middle;
    }
    return table->bases[shard] + row * table->row_bytes;
}

/* Where the rows of `count` <= BURST_ROWS ids lie. */
static void locate(const struct rk_table *table, const struct rk_kernels *kernels, const int64_t *ids, size_t count,
                   const void **rows)
{
    uint64_t stored[BURST_ROWS];
    if (table->kept != NULL)
        kernels->kept_rows(table->kept, table->spec->kept.num_rows, ids, count, stored);
    for (size_t i = 0; i < count; i++)
        rows[i] = (const void *)address_of(table, table->kept != NULL ? stored[i] : (uint64_t)ids[i]);
}

static void prefetch_rows(const struct rk_table *table, const void *const *rows, size_t count)
{
    const uint64_t bytes = table->row_bytes < ROW_LINES * LINE ? table->row_bytes : ROW_LINES * LINE;
    for (size_t i = 0; i < count; i++) {
        const uintptr_t first = (uintptr_t)rows[i] / LINE * LINE, end = (uintptr_t)rows[i] + bytes;
        for (uintptr_t line = first; line < end; line += LINE)
            __builtin_prefetch((const void *)line, 0, 2);
    }
}

static void prefetch_blocks(const struct rk_table *table, const int64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(table->kept[(uint64_t)ids[i] / RK_KEPT_BLOCK], 0, 2);
}

static inline size_t at_most(size_t count, size_t most)
{
    return count < most ? count : most;
}

void rk_table_prefetch(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags)
{
    if (table->burst_rows == 0)
        return;
    const size_t first = bags->offsets[0];
    const size_t count =
        at_most(bags->offsets[bags->num_bags] - first, PREFETCH_LINES / BURST_LINES * (size_t)table->burst_rows);
    if (table->kept != NULL)
        prefetch_blocks(table, bags->ids + first, count);
    for (size_t done = 0; done < count; done += table->burst_rows) {
        const void *rows[BURST_ROWS];
        const size_t length = at_most(count - done, table->burst_rows);
        locate(table, kernels, bags->ids + first + done, length, rows);
        prefetch_rows(table, rows, length);
    }
}

void rk_table_pool(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                   float *out, size_t out_stride)
{
    const void *rows[2][BURST_ROWS];
    const uint32_t dim = table->spec->embedding_dim;
    rk_pool_fn *const pool = kernels->pool[table->spec->format];
    const bool fetch = table->burst_rows > 0;
    const size_t burst = fetch ? table->burst_rows : BURST_ROWS, end = bags->offsets[bags->num_bags];
    size_t bag = 0, begin = bags->offsets[0], located = begin; /* ids before `located` have their addresses */
    for (unsigned turn = 0; bag < bags->num_bags; turn++) {
        /* `begin` is where this turn's burst begins; the first turn finds nothing fetched. */
        for (unsigned ahead = turn > 0; ahead < 2 && located < end && located < begin + 2 * burst; ahead++) {
            const size_t length = at_most(end - located, burst);
            const void **next = rows[(turn + ahead) % 2];
            locate(table, kernels, bags->ids + located, length, next);
            if (fetch)
                prefetch_rows(table, next, length);
            if (fetch && table->kept != NULL && located + length < end)
                prefetch_blocks(table, bags->ids + located + length, at_most(end - located - length, burst));
            located += length;
        }
        const size_t stop = at_most(end - begin, burst) + begin;
        for (; bag < bags->num_bags; bag++, out += out_stride) {
            const size_t first = bags->offsets[bag], last = bags->offsets[bag + 1];
            const size_t from = first > begin ? first : begin, to = at_most(last, stop);
            if (from >= stop && from < last)
                break;
            pool(rows[turn % 2] + (from - begin), bags->weights != NULL ? bags->weights + from : NULL,
                 to > from ? to - from : 0, dim, from > first, out);
            if (last > stop)
                break;
            if (bags->mean && last - first > 1) {
                const float scale = (float)(last - first);
                for (uint32_t d = 0; d < dim; d++)
                    out[d] /= scale;
            }
        }
        begin = stop;
    }
}
