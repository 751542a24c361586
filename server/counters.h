/* Counters: each belongs to one thread, which adds to it; others read it whenever they like. So adding needs no locked
 * instruction. */
#ifndef RANKD_SERVER_COUNTERS_H
#define RANKD_SERVER_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t rk_counter;

static inline void rk_counter_add(rk_counter *counter, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

static inline uint64_t rk_counter_read(const rk_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct rk_model_counters { /* one per model in each event loop */
    rk_counter requests, candidates, out_of_range_ids;
};

struct rk_loop_counters {
    rk_counter requests, request_errors, computed_late, degraded, refused_for_memory;
};

struct rk_scorer_counters {
    rk_counter batches, slices, candidates;
};

#endif
