/* The one clock that deadlines and timers use: monotonic, so that changes of the wall clock move nothing. */
#ifndef RANKD_SERVER_CLOCK_H
#define RANKD_SERVER_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t rk_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t rk_clock_us(void)
{
    return rk_clock_ns() / 1000u;
}

#endif
