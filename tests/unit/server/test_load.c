/* What the load generator counts with: arrivals are as many and as irregular as they should be, and percentiles are
 * those of the values that went in. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "server/tools/arrivals.h"
#include "server/tools/latency.h"
#include "tests/unit/random.h"

Test(load, constant_arrivals_do_not_drift)
{
    struct rk_arrivals arrivals;
    rk_arrivals_init(&arrivals, 3, false, 1); /* a third of a second is no whole number of microseconds */
    for (uint64_t i = 0; i < 3000000; i++) {
        if (i % 3 == 0)
            cr_assert_eq(rk_arrivals_next_us(&arrivals), i / 3 * 1000000, "arrival %llu", (unsigned long long)i);
        rk_arrivals_pass(&arrivals);
    }
}

/* Counts in windows have the mean rate * window and, for a Poisson process alone, a variance equal to it. */
Test(load, poisson_arrivals_have_the_rate_and_the_variance)
{
    enum { RATE = 10000, WINDOW_US = 1000, WINDOWS = 40000 };
    struct rk_arrivals arrivals;
    rk_arrivals_init(&arrivals, RATE, true, 42);
    double sum = 0, squares = 0;
    uint64_t before = 0;
    for (uint64_t window = 1; window <= WINDOWS; window++) {
        double count = 0;
        while (rk_arrivals_next_us(&arrivals) < window * WINDOW_US) {
            cr_assert_geq(rk_arrivals_next_us(&arrivals), before);
            before = rk_arrivals_next_us(&arrivals);
            rk_arrivals_pass(&arrivals);
            count++;
        }
        sum += count;
        squares += count * count;
    }
    const double mean = sum / WINDOWS, variance = squares / WINDOWS - mean * mean;
    cr_expect(fabs(mean - 10) < 0.1);     /* the standard error is 0.016 */
    cr_expect(fabs(variance - 10) < 0.5); /* and here 0.07 */
}

Test(load, the_same_seed_gives_the_same_arrivals_and_another_one_others)
{
    struct rk_arrivals one, same, other;
    rk_arrivals_init(&one, 1000, true, 7);
    rk_arrivals_init(&same, 1000, true, 7);
    rk_arrivals_init(&other, 1000, true, 8);
    unsigned differ = 0;
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert_eq(rk_arrivals_next_us(&one), rk_arrivals_next_us(&same));
        differ += rk_arrivals_next_us(&one) != rk_arrivals_next_us(&other);
        rk_arrivals_pass(&one);
        rk_arrivals_pass(&same);
        rk_arrivals_pass(&other);
    }
    cr_expect(differ > 900);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

Test(load, percentiles_are_within_a_64th_of_the_sorted_values)
{
    enum { COUNT = 100000 };
    static struct rk_latency latency;
    static uint64_t values[COUNT];
    struct random random = {1};
    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = random_next(&random) >> (random_next(&random) % 50 + 14);
        rk_latency_add(&latency, values[i]);
    }
    qsort(values, COUNT, sizeof *values, by_value);
    static const double fractions[] = {0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    for (unsigned i = 0; i < sizeof fractions / sizeof *fractions; i++) {
        const uint64_t exact = values[(uint64_t)ceil(fractions[i] * COUNT) - 1];
        const uint64_t found = rk_latency_percentile(&latency, fractions[i]);
        cr_expect(found >= exact && found <= exact + exact / 64, "%g: %llu, not %llu", fractions[i],
                  (unsigned long long)found, (unsigned long long)exact);
    }
    cr_expect_eq(latency.max, values[COUNT - 1]);
}
