/* A bracket that closes: low and high, and the votes on the rate between. No threads, no clock. */
#include "server/tools/rate_search.h"

#define VOTES     2
#define PRECISION 50 /* the bracket is closed at 1 / 50 of low */

void rk_rate_search_init(struct rk_rate_search *search, uint64_t first, uint64_t most)
{
    *search = (struct rk_rate_search){.rate = first, .most = most};
}

bool rk_rate_search_tell(struct rk_rate_search *search, bool held)
{
    const unsigned votes = held ? ++search->held : ++search->missed;
    if (votes < VOTES)
        return true;
    *(held ? &search->low : &search->high) = search->rate;
    search->held = search->missed = 0;
    if (search->high == 0) {
        search->rate = search->low > search->most / 2 ? search->most : 2 * search->low;
        return search->low < search->most;
    }
    search->rate = search->low + (search->high - search->low) / 2;
    return search->rate > search->low && search->high - search->low > search->low / PRECISION;
}
