/* Random numbers for tests: RANKD_SEED sets the seed, and the seed is printed, so that a failure can be had again. */
#ifndef RANKD_TESTS_UNIT_RANDOM_H
#define RANKD_TESTS_UNIT_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random) /* splitmix64 */
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* At least 0, below `below`. */
static inline uint64_t random_below(struct random *random, uint64_t below)
{
    return random_next(random) % below;
}

static inline uint64_t random_between(struct random *random, uint64_t least, uint64_t most)
{
    return least + random_below(random, most - least + 1);
}

/* In [-1, 1). */
static inline float random_float(struct random *random)
{
    return (float)(random_next(random) >> 40) / (float)(1 << 23) - 1.0f;
}

static inline struct random random_from_seed(void)
{
    const char *given = getenv("RANKD_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20;
    fprintf(stderr, "RANKD_SEED=%llu\n", (unsigned long long)seed);
    return (struct random){seed};
}

#endif
