/* Bucket = position of the highest bit, then the RK_LATENCY_SUB_BITS bits after it; values below 2^RK_LATENCY_SUB_BITS
 * have one each. */
#include "server/tools/latency.h"

#include <math.h>

#define SUBS (1u << RK_LATENCY_SUB_BITS)

static uint32_t bucket_of(uint64_t value)
{
    if (value < SUBS)
        return (uint32_t)value;
    uint32_t shift = 63 - (uint32_t)__builtin_clzll(value) - RK_LATENCY_SUB_BITS;
    return ((shift + 1) << RK_LATENCY_SUB_BITS) + (uint32_t)((value >> shift) & (SUBS - 1));
}

static uint64_t largest_in(uint32_t bucket)
{
    if (bucket < SUBS)
        return bucket;
    uint32_t shift = (bucket >> RK_LATENCY_SUB_BITS) - 1;
    return (((uint64_t)SUBS + (bucket & (SUBS - 1))) << shift) + (((uint64_t)1 << shift) - 1);
}

void rk_latency_add(struct rk_latency *latency, uint64_t value)
{
    latency->count++;
    latency->sum += value;
    latency->max = value > latency->max ? value : latency->max;
    latency->buckets[bucket_of(value)]++;
}

uint64_t rk_latency_percentile(const struct rk_latency *latency, double fraction)
{
    uint64_t wanted = (uint64_t)ceil(fraction * (double)latency->count), seen = 0;
    for (uint32_t bucket = 0; bucket < RK_LATENCY_BUCKETS; bucket++) {
        seen += latency->buckets[bucket];
        if (seen >= wanted && seen > 0) {
            uint64_t value = largest_in(bucket);
            return value < latency->max ? value : latency->max;
        }
    }
    return 0;
}
