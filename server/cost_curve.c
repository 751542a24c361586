/* Arithmetic on a cost curve: a handful of points, read by any thread. Times are integers in nanoseconds; a piece is
 * read off with 64-bit products, which hold an hour times a million candidates. */
#include "server/cost_curve.h"

#include <inttypes.h>
#include <stdio.h>

#define FULL_RATE    0.97
#define LEAST_RATE   0.5
#define TAKE_NS      2000u  /* what a batch costs besides its run */
#define HAND_OVER_NS 30000u /* waking another worker, and a share of the wait until it runs */

static uint32_t last_of(const struct rk_cost_curve *curve)
{
    return curve->candidates[curve->num_points - 1];
}

static double rate(const struct rk_cost_curve *curve, uint32_t num_candidates)
{
    return (double)num_candidates / (double)(rk_cost_curve_ns(curve, num_candidates) + TAKE_NS);
}

/* The smallest batch with at least this rate, which some point has. */
static uint32_t smallest_with(const struct rk_cost_curve *curve, double wanted)
{
    uint32_t i = 0;
    while (i + 1 < curve->num_points && rate(curve, curve->candidates[i]) < wanted)
        i++;
    uint32_t low = i > 0 ? curve->candidates[i - 1] : 0, high = curve->candidates[i];
    while (high - low > 1) { /* low is too slow, high is not: along a straight piece the rate only rises or falls */
        const uint32_t middle = low + (high - low) / 2;
        if (rate(curve, middle) < wanted)
            low = middle;
        else
            high = middle;
    }
    return high;
}

void rk_cost_curve_finish(struct rk_cost_curve *curve)
{
    double best = 0;
    for (uint32_t i = curve->num_points; i-- > 0;) {
        if (i + 1 < curve->num_points && curve->ns[i] > curve->ns[i + 1])
            curve->ns[i] = curve->ns[i + 1];
        if (curve->ns[i] == 0)
            curve->ns[i] = 1;
    }
    for (uint32_t i = 0; i < curve->num_points; i++)
        if (rate(curve, curve->candidates[i]) > best)
            best = rate(curve, curve->candidates[i]);
    curve->full = smallest_with(curve, FULL_RATE * best);
    curve->least = smallest_with(curve, LEAST_RATE * best);
}

uint64_t rk_cost_curve_ns(const struct rk_cost_curve *curve, uint32_t num_candidates)
{
    const uint32_t last = last_of(curve);
    uint64_t ns = num_candidates / last * curve->ns[curve->num_points - 1];
    const uint32_t rest = num_candidates % last;
    if (rest == 0)
        return ns;
    uint32_t i = 0;
    while (curve->candidates[i] < rest)
        i++;
    if (curve->candidates[i] == rest)
        return ns + curve->ns[i];
    const uint32_t from = curve->candidates[i - 1], width = curve->candidates[i] - from;
    return ns + curve->ns[i - 1] + (curve->ns[i] - curve->ns[i - 1]) * (rest - from) / width;
}

uint32_t rk_cost_curve_parts(const struct rk_cost_curve *curve, uint32_t num_candidates, uint32_t num_workers)
{
    uint32_t parts = 1;
    uint64_t ns = rk_cost_curve_ns(curve, num_candidates);
    while (parts < num_workers && parts < num_candidates) {
        const uint32_t part = (num_candidates - 1) / (parts + 1) + 1;
        const uint64_t less_ns = rk_cost_curve_ns(curve, part);
        if (num_candidates / (parts + 1) < curve->least || less_ns + HAND_OVER_NS > ns)
            break;
        ns = less_ns;
        parts++;
    }
    return parts;
}

int rk_cost_curve_format(const struct rk_cost_curve *curve, char *text, size_t capacity)
{
    size_t end = 0;
    for (uint32_t i = 0; i < curve->num_points; i++) {
        const double us = (double)curve->ns[i] / 1e3;
        end += (size_t)snprintf(end < capacity ? text + end : NULL, end < capacity ? capacity - end : 0,
                                "%s %s%" PRIu32 " %.*f", i == 0 ? "us by candidates:" : ",",
                                i < curve->num_measured ? "" : "~", curve->candidates[i], us < 100 ? 1 : 0, us);
    }
    end += (size_t)snprintf(end < capacity ? text + end : NULL, end < capacity ? capacity - end : 0,
                            "; full at %" PRIu32 " (%.0f candidates/s), a further request %.1f", curve->full,
                            (double)curve->full / (double)rk_cost_curve_ns(curve, curve->full) * 1e9,
                            (double)curve->request_ns / 1e3);
    return (int)end;
}
