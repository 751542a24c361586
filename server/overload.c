/* Counting by windows of an interval. The work of a window is compared in the same measure on both sides, so that
 * nothing depends on how good predictions are. */
#include "server/overload.h"

#define REMEMBERED   16   /* about so many pieces of work make the unit */
#define BOUND_UNITS  4    /* pieces that may wait for each worker */
#define EMPTY_PART   8    /* a queue below 1/8 of its bound is as good as empty */
#define NOISE_UNITS  3    /* what is just being handed over is no excess */
#define EXCESS       1.05 /* offered over served */
#define BAD_WINDOWS  4
#define MOST_EXCESS  100.0
#define GOOD_WINDOWS 10
#define BOUND_WINDOW 4 /* a window is at least so many bounds */

void rk_overload_offer(struct rk_overload *overload, uint64_t work_ns, uint64_t unit_ns)
{
    const double larger = (double)(work_ns > unit_ns ? work_ns : unit_ns);
    overload->unit_ns += overload->unit_ns > 0 ? (larger - overload->unit_ns) / REMEMBERED : larger;
    overload->offered_ns += (double)work_ns;
}

void rk_overload_serve(struct rk_overload *overload, uint64_t work_ns)
{
    overload->served_ns += (double)work_ns;
}

uint64_t rk_overload_bound_us(const struct rk_overload *overload)
{
    const uint64_t units_us = (uint64_t)(BOUND_UNITS * overload->unit_ns / 1000.0);
    return units_us > overload->target_us ? units_us : overload->target_us;
}

static void close_window(struct rk_overload *overload)
{
    const bool grew = overload->offered_ns > EXCESS * overload->served_ns + NOISE_UNITS * overload->unit_ns;
    const bool stood = !overload->emptied;
    overload->num_bad = stood && grew ? overload->num_bad + 1 : 0;
    overload->num_good = !stood && !grew ? overload->num_good + 1 : 0;
    overload->excess = 1.0;
    if (grew)
        overload->excess = overload->served_ns > overload->offered_ns / MOST_EXCESS
                               ? overload->offered_ns / overload->served_ns
                               : MOST_EXCESS;
    if (overload->num_bad >= BAD_WINDOWS)
        overload->active = true;
    else if (overload->num_good >= GOOD_WINDOWS)
        overload->active = false;
}

void rk_overload_observe(struct rk_overload *overload, uint64_t wait_us, uint64_t now_us)
{
    if (overload->target_us == 0)
        return;
    const uint64_t bound_us = rk_overload_bound_us(overload);
    const uint64_t least_us = BOUND_WINDOW * bound_us;
    const uint64_t length_us = overload->interval_us > least_us ? overload->interval_us : least_us;
    if (overload->window_us == 0 || now_us - overload->window_us >= length_us) {
        if (overload->window_us != 0)
            close_window(overload);
        overload->window_us = now_us;
        overload->offered_ns = overload->served_ns = 0;
        overload->emptied = false;
    }
    if (wait_us <= bound_us / EMPTY_PART)
        overload->emptied = true;
}
