/* What a batch of a model costs: its time over its candidates, as a rising curve of straight pieces between sizes that
 * were measured (server/cost_measure.h). Plain numbers: no clock, no lock. */
#ifndef RANKD_SERVER_COST_CURVE_H
#define RANKD_SERVER_COST_CURVE_H

#include <stddef.h>
#include <stdint.h>

#define RK_COST_TEXT_BYTES 512
#define RK_COST_MAX_POINTS 18 /* 1, 2, 4 ... 65536, and a largest batch that is no power of two */

/* The measured request's rows were in cache; a row from memory, with others on their way beside it, costs this more. */
#define RK_COST_COLD_ROW_NS 30u

struct rk_cost_curve {
    uint32_t num_points;                     /* at least 1 */
    uint32_t candidates[RK_COST_MAX_POINTS]; /* rising from 1; the last is the largest batch */
    uint64_t ns[RK_COST_MAX_POINTS];         /* of one request with so many; at least 1, never falling */
    uint32_t num_measured;                   /* the points after these were extrapolated */
    uint64_t request_ns;                     /* what every further request in the batch adds: its context */
    /* Rates count what it costs to take a batch from the queue and to settle it, too. */
    uint32_t full;  /* the smallest batch whose rate is within 3% of the best of all: more candidates gain nothing */
    uint32_t least; /* the smallest whose rate is half the best: a smaller part of a request wastes more than it does */
};

/* Puts a measured curve in order: a time that is above a larger batch's was disturbed and is lowered to it. Sets `full`
 * and `least`. */
void rk_cost_curve_finish(struct rk_cost_curve *curve);

/* The time of that many candidates of one request, in as many batches as it takes; 0 for none. */
uint64_t rk_cost_curve_ns(const struct rk_cost_curve *curve, uint32_t num_candidates);

/* Over how many of num_workers (at least 1) waiting workers so many candidates are best spread: every further one must
 * save more than it costs to wake it. */
uint32_t rk_cost_curve_parts(const struct rk_cost_curve *curve, uint32_t num_candidates, uint32_t num_workers);

/* One line: "us by candidates: 1 2.1, 2 2.6, ... 512 243; full at 96 (2160000 candidates/s), a further request 0.4". A
 * size with '~' was extrapolated. Returns the length as snprintf does. */
int rk_cost_curve_format(const struct rk_cost_curve *curve, char *text, size_t capacity);

#endif
