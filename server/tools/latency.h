/* How long things took: counts in buckets whose width is at most 1/64 of their value, so that any percentile can be
 * read within 1.6 %. */
#ifndef RANKD_SERVER_TOOLS_LATENCY_H
#define RANKD_SERVER_TOOLS_LATENCY_H

#include <stdint.h>

#define RK_LATENCY_SUB_BITS 6
#define RK_LATENCY_BUCKETS  ((64 - RK_LATENCY_SUB_BITS + 1) << RK_LATENCY_SUB_BITS)

struct rk_latency {
    uint64_t count, sum, max;
    uint64_t buckets[RK_LATENCY_BUCKETS];
};

void rk_latency_add(struct rk_latency *latency, uint64_t value);

/* The upper end of the bucket that holds the given fraction (0.99) of all values, at most the largest value; 0 when
 * there are none. */
uint64_t rk_latency_percentile(const struct rk_latency *latency, double fraction);

#endif
