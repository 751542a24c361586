/* The search for the highest rate that still holds a bound: doubling until one misses it, then halving what lies
 * between. Measurements are noisy, so that a rate is decided by two equal outcomes, of three at most. */
#ifndef RANKD_SERVER_TOOLS_RATE_SEARCH_H
#define RANKD_SERVER_TOOLS_RATE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

struct rk_rate_search {
    uint64_t rate;      /* to measure next, a second */
    uint64_t low, high; /* the highest that held, 0: none yet; the lowest that missed, 0: none yet */
    uint64_t most;
    unsigned held, missed; /* outcomes at `rate` */
};

/* first: where to begin, from 1 to most. */
void rk_rate_search_init(struct rk_rate_search *search, uint64_t first, uint64_t most);

/* What came of `rate`. True as long as there is more to measure; then `low` is the answer, within 2 % of `high`, or
 * `most` where that holds; 0 when even 1 a second misses the bound. */
bool rk_rate_search_tell(struct rk_rate_search *search, bool held);

#endif
