/* Does more work come than can be done? The judgement on one class's queue, without the queue; its owner locks.
 *
 * A queue that is empty now and then only evens out bursts. One that stands, interval after interval, does nothing but
 * make everybody wait (Nichols, Jacobson: Controlling Delay, 2012). It is an overload when in four intervals running
 * the queue never came near empty and clearly more work came than was served; then what waits is bounded by the target
 * instead of by deadlines, and stays so until in ten intervals running the queue emptied and all that came was served.
 *
 * A queue that stands though no more comes than leaves is made by clients that wait for their answers, each with a
 * number of requests in flight: it bounds itself and is let be. */
#ifndef RANKD_SERVER_OVERLOAD_H
#define RANKD_SERVER_OVERLOAD_H

#include <stdbool.h>
#include <stdint.h>

struct rk_overload {
    uint64_t target_us, interval_us; /* set by the owner, all else zero; target 0: never overloaded */
    bool active;
    bool emptied;                 /* in this window */
    uint32_t num_bad, num_good;   /* windows running in which the queue stood and grew; did neither */
    uint64_t window_us;           /* when this window began; 0: none has */
    double unit_ns;               /* the size of the pieces that work comes in, about */
    double offered_ns, served_ns; /* in this window */
    double excess;                /* offered over served in the last window, at least 1 */
};

/* A piece of work came, taken or not; unit_ns: what it keeps a worker busy for, at least. */
void rk_overload_offer(struct rk_overload *overload, uint64_t work_ns, uint64_t unit_ns);

/* Work was given to a worker. */
void rk_overload_serve(struct rk_overload *overload, uint64_t work_ns);

/* So long would a request that comes now wait. Whenever something comes or goes. */
void rk_overload_observe(struct rk_overload *overload, uint64_t wait_us, uint64_t now_us);

/* How long a request may have to wait while the overload lasts: the target, or as long as a few pieces of work take,
 * without which workers would run dry. */
uint64_t rk_overload_bound_us(const struct rk_overload *overload);

#endif
