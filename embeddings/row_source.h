/* The interface between who asks for rows (the engine, through rk_table_pool and its like) and the place where they
 * live. A table has one row source for all its rows.
 *
 * Memory is the first (rk_memory_rows): rows that lie in files' pages or in shards of this process, however many places
 * a table is cut into. All of them can be addressed, so a bag stays one chain of additions in the order of its ids, and
 * its bits do not depend on the placement.
 *
 * What a place that one has to wait for (a disk, an accelerator, another host) finds here: `prefetch` is called with
 * the lists that are about to be pooled, many of them one after the other, and must not wait: there it sends its reads.
 * `pool` is called later for each of the same lists, and waits for what was sent; a list may be pooled without having
 * been prefetched, and prefetched without ever being pooled, so what was prefetched is a cache of bounded size and
 * never a promise. Ids, offsets and weights of a list stay in place in between. A source that adds up parts of a bag
 * elsewhere gives other bits than one chain does and has to state its bound. */
#ifndef RANKD_EMBEDDINGS_ROW_SOURCE_H
#define RANKD_EMBEDDINGS_ROW_SOURCE_H

#include "embeddings/table.h"

struct rk_row_source {
    const char *name;
    /* As rk_table_pool, rk_table_prefetch and rk_table_row. Any thread, several at a time. */
    void (*pool)(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                 float *out, size_t out_stride);
    void (*prefetch)(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags);
    const void *(*row)(const struct rk_table *table, const struct rk_kernels *kernels, int64_t id);
};

extern const struct rk_row_source rk_memory_rows;

#endif
