/* Fixed intervals are computed from the count, so that no rounding adds up; a Poisson process has intervals of an
 * exponential distribution. One thread. */
#include "server/tools/arrivals.h"

#include <math.h>

/* -ln(u) / rate, u uniform in (0, 1]: never 0, so never infinite. */
static double interval_us(struct rk_arrivals *arrivals)
{
    const double u = (double)((rk_random_next(&arrivals->random) >> 11) + 1) * 0x1p-53;
    return -log(u) * 1e6 / arrivals->rate;
}

void rk_arrivals_init(struct rk_arrivals *arrivals, uint64_t rate, bool poisson, uint64_t seed)
{
    *arrivals = (struct rk_arrivals){.rate = (double)rate, .poisson = poisson, .random = {seed}};
    if (poisson)
        arrivals->next_us = interval_us(arrivals);
}

uint64_t rk_arrivals_next_us(const struct rk_arrivals *arrivals)
{
    return (uint64_t)arrivals->next_us;
}

void rk_arrivals_pass(struct rk_arrivals *arrivals)
{
    arrivals->count++;
    arrivals->next_us =
        arrivals->poisson ? arrivals->next_us + interval_us(arrivals) : (double)arrivals->count * 1e6 / arrivals->rate;
}
