/* When the calls of an open loop are due: at fixed intervals, or as a Poisson process, that is independently of each
 * other, as the calls of many users are. */
#ifndef RANKD_SERVER_TOOLS_ARRIVALS_H
#define RANKD_SERVER_TOOLS_ARRIVALS_H

#include <stdbool.h>
#include <stdint.h>

#include "model/traffic.h"

struct rk_arrivals {
    double rate; /* a second, above 0 */
    bool poisson;
    struct rk_random random;
    uint64_t count; /* arrivals so far */
    double next_us; /* since the start */
};

/* Equal seeds give equal arrivals. */
void rk_arrivals_init(struct rk_arrivals *arrivals, uint64_t rate, bool poisson, uint64_t seed);

/* When the next one is due, in microseconds since the start; the same until rk_arrivals_pass. */
uint64_t rk_arrivals_next_us(const struct rk_arrivals *arrivals);
void rk_arrivals_pass(struct rk_arrivals *arrivals);

#endif
