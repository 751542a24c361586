/* Cost curves: read off, put in order, described, and what they say about spreading work; and that measuring gives one.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "server/cost_curve.h"
#include "tests/unit/random.h"

/* A batch costs fixed_ns and each_ns for every candidate. */
static struct rk_cost_curve straight(uint64_t fixed_ns, uint64_t each_ns, uint32_t max_batch)
{
    struct rk_cost_curve curve = {0};
    for (uint32_t size = 1;; size = size < max_batch - size ? 2 * size : max_batch) {
        curve.candidates[curve.num_points] = size;
        curve.ns[curve.num_points++] = fixed_ns + each_ns * size;
        if (size == max_batch)
            break;
    }
    curve.num_measured = curve.num_points;
    rk_cost_curve_finish(&curve);
    return curve;
}

Test(cost_curve, times_between_and_beyond_the_points_are_those_of_the_straight_line)
{
    const struct rk_cost_curve curve = straight(5000, 100, 100);
    cr_expect_eq(rk_cost_curve_ns(&curve, 0), 0);
    for (uint32_t n = 1; n <= 100; n++)
        cr_expect_eq(rk_cost_curve_ns(&curve, n), 5000 + 100 * n, "%u candidates", n);
    cr_expect_eq(rk_cost_curve_ns(&curve, 100 * 1000 + 7), 1000 * 15000 + 5700); /* a thousand batches and one */
    cr_expect_eq(rk_cost_curve_ns(&curve, UINT32_MAX), UINT32_MAX / 100 * UINT64_C(15000) + 5000 + 9500);
}

Test(cost_curve, a_batch_is_full_where_more_candidates_gain_little)
{
    /* With 2 us to take it, rate = n / (5000 + 100 n); at 512 it is 512 / 56200. A rate q is reached at
     * n = 5000 q / (1 - 100 q). */
    const double wanted = 0.97 * 512 / 56200.0, half = 0.5 * 512 / 56200.0;
    const struct rk_cost_curve curve = straight(3000, 100, 512);
    cr_expect_eq(curve.full, (uint32_t)(5000 * wanted / (1 - 100 * wanted)) + 1, "%u", curve.full);
    cr_expect_eq(curve.least, (uint32_t)(5000 * half / (1 - 100 * half)) + 1, "%u", curve.least);
    cr_expect_eq(straight(0, 1000000, 512).full, 1);
    cr_expect_eq(straight(5000, 0, 512).full, 497); /* 97% of 512 */
    cr_expect_eq(straight(5000, 100, 1).full, 1);
}

Test(cost_curve, whatever_was_measured_becomes_a_rising_curve)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 1000; round++) {
        const uint32_t max_batch = (uint32_t)random_between(&random, 1, 300);
        struct rk_cost_curve curve = straight(1, 1, max_batch);
        for (uint32_t i = 0; i < curve.num_points; i++)
            curve.ns[i] = 1000 * random_below(&random, random_below(&random, 2) ? 10 : 1000000);
        rk_cost_curve_finish(&curve);
        uint64_t before = 0;
        double best = 0, at_full = 0;
        for (uint32_t n = 1; n <= max_batch; n++) {
            const uint64_t ns = rk_cost_curve_ns(&curve, n);
            cr_assert(ns >= before && ns > 0, "%u candidates take %lu ns", n, (unsigned long)ns);
            before = ns;
            const double rate = (double)n / (double)(ns + 2000);
            best = rate > best ? rate : best;
            at_full = n == curve.full ? rate : at_full;
        }
        cr_assert(at_full >= 0.96 * best, "full at %u of %u", curve.full, max_batch);
        cr_assert(curve.least >= 1 && curve.least <= curve.full);
    }
}

Test(cost_curve, work_is_spread_as_long_as_each_further_worker_saves_a_hand_over)
{
    const struct rk_cost_curve curve = straight(10000, 1000, 512);
    cr_expect_eq(rk_cost_curve_parts(&curve, 270, 1), 1);
    cr_expect_eq(rk_cost_curve_parts(&curve, 1, 64), 1);
    cr_expect_eq(rk_cost_curve_parts(&curve, 40, 64), 1, "20 us less, for a hand-over of 30");
    cr_expect_eq(rk_cost_curve_parts(&curve, 270, 2), 2);
    /* 280, 145, 100, 78 (77.5): the fourth saves too little */
    cr_expect_eq(rk_cost_curve_parts(&curve, 270, 64), 3, "%u", rk_cost_curve_parts(&curve, 270, 64));
    /* Where the context is nearly all of it, a part of the request costs as much as the whole. */
    const struct rk_cost_curve contextual = straight(1000000, 10, 512);
    cr_expect_eq(rk_cost_curve_parts(&contextual, 512, 64), 1);
}

Test(cost_curve, a_line_describes_it_and_is_cut_where_there_is_no_room)
{
    char text[RK_COST_TEXT_BYTES], small[20];
    struct rk_cost_curve curve = straight(5000, 100, 6);
    curve.num_measured = 3;
    curve.request_ns = 450;
    const int length = rk_cost_curve_format(&curve, text, sizeof text);
    cr_expect_str_eq(text, "us by candidates: 1 5.1, 2 5.2, 4 5.4, ~6 5.6; full at 6 (1071429 candidates/s), a further "
                           "request 0.5");
    cr_expect_eq(length, (int)strlen(text));
    cr_expect_eq(rk_cost_curve_format(&curve, small, sizeof small), length);
    cr_expect_eq(strncmp(small, text, sizeof small - 1), 0);
    cr_expect_eq(small[sizeof small - 1], '\0');
    for (uint32_t i = 0; i < RK_COST_MAX_POINTS; i++) { /* the longest fits */
        curve.candidates[i] = i < RK_COST_MAX_POINTS - 1 ? 1u << i : 65537;
        curve.ns[i] = 900000000000;
    }
    curve.num_points = RK_COST_MAX_POINTS;
    cr_expect(rk_cost_curve_format(&curve, text, sizeof text) < (int)sizeof text);
}
