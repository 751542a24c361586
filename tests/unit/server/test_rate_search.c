/* The search for a rate ends near the true one, whichever it is and wherever it begins, also when measurements lie. */
#include <criterion/criterion.h>

#include "server/tools/rate_search.h"

enum { MOST = 10000000 };

/* limit: what the server can do. lie: every how many measurements one is wrong, 0: none. Returns the rate found. */
static uint64_t find(uint64_t first, uint64_t limit, unsigned lie)
{
    struct rk_rate_search search;
    rk_rate_search_init(&search, first, MOST);
    unsigned count = 0;
    bool held;
    do {
        cr_assert_lt(count++, 200, "from %llu to %llu", (unsigned long long)first, (unsigned long long)limit);
        cr_assert(search.rate >= 1 && search.rate <= MOST);
        held = search.rate <= limit;
        if (lie != 0 && count % lie == 0)
            held = !held;
    } while (rk_rate_search_tell(&search, held));
    return search.low;
}

Test(rate_search, ends_within_two_percent_below_the_limit)
{
    static const uint64_t firsts[] = {1, 7, 100, 50000, MOST},
                          limits[] = {1, 2, 3, 99, 100, 101, 777, 123456, MOST - 1};
    for (unsigned i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        for (unsigned j = 0; j < sizeof limits / sizeof *limits; j++) {
            const uint64_t found = find(firsts[i], limits[j], 0);
            cr_expect(found <= limits[j] && limits[j] <= found + found / 50, "from %llu, limit %llu: %llu",
                      (unsigned long long)firsts[i], (unsigned long long)limits[j], (unsigned long long)found);
        }
    }
}

Test(rate_search, knows_when_nothing_or_everything_holds)
{
    cr_assert_eq(find(100, 0, 0), 0);
    cr_assert_eq(find(100, MOST, 0), MOST);
    cr_assert_eq(find(MOST, MOST, 0), MOST);
}

Test(rate_search, one_wrong_measurement_in_three_or_more_changes_nothing)
{
    for (unsigned lie = 3; lie < 20; lie++)
        cr_expect_eq(find(100, 4321, lie), find(100, 4321, 0), "every %u-th", lie);
}
