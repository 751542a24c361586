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
    BURST_LINES = 1152,    /* on their way at a time: a fraction of the second-level cache */
    ROW_LINES = 64,        /* of one row; the hardware's own prefetcher follows through longer ones */
    PREFETCH_LINES = 4608, /* by one rk_table_prefetch */
};

uint32_t rk_table_burst_rows(uint64_t row_bytes)
{
    const uint64_t lines = row_bytes / LINE + 1;
    if (lines >= BURST_LINES / 2)
        return 2;
    return BURST_LINES / lines < BURST_ROWS ? (uint32_t)(BURST_LINES / lines) : BURST_ROWS;
}

/* Of the extent that holds a row, what rows are counted from: the last extent that begins at or before it. */
static inline uintptr_t base_of(const struct rk_table *table, uint64_t row)
{
    uint32_t extent = 0;
    for (uint32_t above = table->num_extents; above - extent > 1;) {
        const uint32_t middle = extent + (above - extent) / 2;
        if (table->first_rows[middle] <= row)
            extent = middle;
        else
            above = middle;
    }
    return table->bases[extent];
}

/* Where the rows of `count` <= BURST_ROWS ids lie. */
static void locate(const struct rk_table *table, const struct rk_kernels *kernels, const int64_t *ids, size_t count,
                   const void **rows)
{
    uint64_t stored[BURST_ROWS];
    const uint64_t *numbers = (const uint64_t *)ids, row_bytes = table->row_bytes;
    if (table->kept != NULL) {
        kernels->kept_rows(table->kept, table->spec->kept.num_rows, ids, count, stored);
        numbers = stored;
    }
    if (table->num_extents == 1) {
        const uintptr_t base = table->bases[0];
        for (size_t i = 0; i < count; i++)
            rows[i] = (const void *)(base + numbers[i] * row_bytes);
        return;
    }
    for (size_t i = 0; i < count; i++)
        rows[i] = (const void *)(base_of(table, numbers[i]) + numbers[i] * row_bytes);
}

static const void *find_row(const struct rk_table *table, const struct rk_kernels *kernels, int64_t id)
{
    const void *row;
    locate(table, kernels, &id, 1, &row);
    return row;
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

static void prefetch(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags)
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

/* ---- pooling ---- */

struct lookup {
    const struct rk_table *table;
    const struct rk_kernels *kernels;
    const int64_t *ids;
    size_t next, end; /* ids before `next` are located */
    size_t burst;
    unsigned fetches;
    const void *rows[2][BURST_ROWS]; /* of the burst that is summed and the one after it */
};

/* Locates and prefetches the next burst, if there is one. */
static void fetch(struct lookup *lookup)
{
    const struct rk_table *table = lookup->table;
    const void **rows = lookup->rows[lookup->fetches++ % 2];
    const size_t count = at_most(lookup->end - lookup->next, lookup->burst);
    locate(table, lookup->kernels, lookup->ids + lookup->next, count, rows);
    lookup->next += count;
    if (table->burst_rows == 0)
        return;
    prefetch_rows(table, rows, count);
    if (table->kept != NULL)
        prefetch_blocks(table, lookup->ids + lookup->next, at_most(lookup->end - lookup->next, lookup->burst));
}

static void divide(float *out, uint32_t dim, size_t count)
{
    const float divisor = (float)count;
    for (uint32_t d = 0; d < dim; d++)
        out[d] /= divisor;
}

static void pool_bags(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                      float *out, size_t out_stride)
{
    const uint32_t dim = table->spec->embedding_dim;
    rk_pool_fn *const pool = kernels->pool[table->spec->format];
    struct lookup lookup;
    lookup.table = table;
    lookup.kernels = kernels;
    lookup.ids = bags->ids;
    lookup.next = bags->offsets[0];
    lookup.end = bags->offsets[bags->num_bags];
    lookup.burst = table->burst_rows > 0 ? table->burst_rows : BURST_ROWS;
    lookup.fetches = 0;
    fetch(&lookup);
    size_t begin = bags->offsets[0], bag = 0;
    for (unsigned turn = 0; bag < bags->num_bags; turn++) {
        const size_t stop = lookup.next; /* the burst that is summed now is ids [begin, stop) */
        fetch(&lookup);
        for (; bag < bags->num_bags; bag++, out += out_stride) {
            const size_t first = bags->offsets[bag], last = bags->offsets[bag + 1];
            if (first == stop && last > stop)
                break;
            const size_t from = first > begin ? first : begin, to = at_most(last, stop);
            pool(lookup.rows[turn % 2] + (from - begin), bags->weights != NULL ? bags->weights + from : NULL, to - from,
                 dim, from > first, out);
            if (last > stop)
                break;
            if (bags->mean && last - first > 1)
                divide(out, dim, last - first);
        }
        begin = stop;
    }
}

const void *rk_table_stored_row(const struct rk_table *table, uint64_t row)
{
    return (const void *)(base_of(table, row) + row * table->row_bytes);
}

const struct rk_row_source rk_memory_rows = {.name = "memory",
                                             .pool = pool_bags,
                                             .prefetch = prefetch,
                                             .row = find_row};
