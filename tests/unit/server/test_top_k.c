/* The choice of the best k against a plain selection. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/top_k.h"

/* The plain way: pick the best of what is left, the earliest of equals. */
static void slow_top_k(const double *scores, uint32_t count, uint32_t k, uint32_t *positions)
{
    char taken[512] = {0};
    for (uint32_t i = 0; i < k; i++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t j = 0; j < count; j++)
            if (!taken[j] && (best == UINT32_MAX || scores[j] > scores[best]))
                best = j;
        taken[best] = 1;
        positions[i] = best;
    }
}

Test(top_k, equals_a_plain_selection_for_random_scores_with_many_ties)
{
    const char *given = getenv("RANKD_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid();
    printf("seed %u\n", seed);
    for (int round = 0; round < 2000; round++) {
        uint32_t count = 1 + (uint32_t)rand_r(&seed) % 200;
        uint32_t k = 1 + (uint32_t)rand_r(&seed) % count, kinds = 1 + (uint32_t)rand_r(&seed) % 50;
        double scores[200];
        uint32_t fast[200], slow[200];
        for (uint32_t i = 0; i < count; i++)
            scores[i] = (double)((uint32_t)rand_r(&seed) % kinds) - 3.5;
        rk_top_k(scores, count, k, fast);
        slow_top_k(scores, count, k, slow);
        for (uint32_t i = 0; i < k; i++)
            cr_assert_eq(fast[i], slow[i], "round %d, count %u, k %u, place %u: position %u, not %u", round, count, k,
                         i, fast[i], slow[i]);
    }
}

Test(top_k, equal_scores_stand_in_the_order_of_the_request)
{
    static const double scores[] = {1, 1, 1, 1, 1, 1, 1};
    uint32_t positions[7];
    rk_top_k(scores, 7, 7, positions);
    for (uint32_t i = 0; i < 7; i++)
        cr_expect_eq(positions[i], i, "place %u has position %u", i, positions[i]);
}

Test(top_k, zeros_of_either_sign_are_equal_and_infinities_are_the_ends)
{
    static const double scores[] = {0.0, -0.0, -1.0 / 0.0, 1e300, 1.0 / 0.0, -0.0, 0.0};
    static const uint32_t expected[] = {4, 3, 0, 1, 5, 6, 2};
    uint32_t positions[7];
    rk_top_k(scores, 7, 7, positions);
    for (uint32_t i = 0; i < 7; i++)
        cr_expect_eq(positions[i], expected[i], "place %u has position %u", i, positions[i]);
}

Test(top_k, none_asked_none_written)
{
    static const double scores[] = {1};
    uint32_t position = 77;
    rk_top_k(scores, 1, 0, &position);
    cr_expect_eq(position, 77);
}
