/* Whose turn it is: leads of clients and of their connections, by a clock of our own. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "server/shares.h"

#define START_US  1000000000u
#define MEMORY_US 100000u
#define MS        1000u

static struct rk_shares *create(void)
{
    struct rk_shares *shares = calloc(1, sizeof *shares);
    cr_assert(shares != NULL);
    shares->memory_us = MEMORY_US;
    return shares;
}

/* A request that keeps the workers busy for work_us is taken; returns the lead with which it came. */
static uint64_t take(struct rk_shares *shares, uint64_t client, uint64_t connection, uint64_t work_us, uint64_t now_us)
{
    const uint64_t lead_us = rk_shares_lead_us(shares, client, connection, now_us);
    rk_shares_charge(shares, client, connection, 1000 * work_us, 0, now_us);
    return lead_us;
}

Test(shares, who_is_alone_is_never_ahead)
{
    struct rk_shares *shares = create();
    for (uint32_t i = 0; i < 1000; i++)
        cr_assert_eq(take(shares, 1, 10, 5 * MS, START_US + i * MS), 0, "request %u", i);
    free(shares);
}

Test(shares, a_lead_is_the_time_in_which_an_even_share_makes_up_for_what_was_had)
{
    struct rk_shares *shares = create();
    cr_expect_eq(take(shares, 1, 10, MS, START_US), 0);
    cr_expect_eq(take(shares, 2, 20, MS, START_US), 0);
    /* Alone it was charged 1 ms; of two, each has half of the time, so that 4 ms are caught up with in 8. */
    cr_expect_eq(take(shares, 1, 10, 4 * MS, START_US), MS);
    cr_expect_eq(rk_shares_lead_us(shares, 1, 10, START_US), 9 * MS);
    cr_expect_eq(rk_shares_lead_us(shares, 2, 20, START_US), 2 * MS, "the other had 1 ms, one of two");
    cr_expect_eq(rk_shares_lead_us(shares, 1, 10, START_US + 5 * MS), 4 * MS, "time passes");
    cr_expect_eq(rk_shares_lead_us(shares, 1, 10, START_US + 20 * MS), 0);
    free(shares);
}

Test(shares, who_asks_for_no_more_than_its_share_is_never_ahead)
{
    struct rk_shares *shares = create();
    for (uint32_t i = 0; i < 400; i++) {
        const uint64_t now_us = START_US + i * 4 * MS;
        const uint64_t modest_us = take(shares, 1, 10, MS, now_us); /* a quarter of the time, of two clients' */
        cr_assert_eq(modest_us, 0, "request %u", i);
        const uint64_t greedy_us = take(shares, 2, 20, 6 * MS, now_us);
        cr_assert(i < 10 || greedy_us > 20 * MS, "request %u: a lead of %lu us", i, (unsigned long)greedy_us);
    }
    free(shares);
}

Test(shares, what_nobody_else_wanted_is_forgotten)
{
    struct rk_shares *shares = create();
    for (uint32_t i = 0; i < 1000; i++)
        take(shares, 1, 10, 100 * MS, START_US);
    rk_shares_lead_us(shares, 2, 20, START_US);
    const uint64_t lead_us = rk_shares_lead_us(shares, 1, 10, START_US);
    cr_expect(lead_us > 0 && lead_us <= 4 * MEMORY_US, "a lead of %lu us", (unsigned long)lead_us);
    cr_expect_eq(rk_shares_lead_us(shares, 1, 10, START_US + 4 * MEMORY_US), 0);
    free(shares);
}

Test(shares, connections_share_what_their_client_has)
{
    struct rk_shares *shares = create();
    rk_shares_lead_us(shares, 1, 10, START_US);
    rk_shares_lead_us(shares, 1, 11, START_US);
    take(shares, 1, 10, 4 * MS, START_US);
    cr_expect_eq(rk_shares_lead_us(shares, 1, 10, START_US), 8 * MS, "one of two connections of the only client");
    cr_expect_eq(rk_shares_lead_us(shares, 1, 11, START_US), 0);
    rk_shares_lead_us(shares, 2, 20, START_US);
    take(shares, 1, 11, 2 * MS, START_US);
    cr_expect_eq(rk_shares_lead_us(shares, 1, 11, START_US), 8 * MS, "one of two connections of one of two clients");
    free(shares);
}

Test(shares, who_went_away_shares_no_more)
{
    struct rk_shares *shares = create();
    for (uint64_t client = 1; client <= 8; client++)
        rk_shares_lead_us(shares, client, 10 * client, START_US);
    cr_expect_eq(shares->num_clients, 8);
    rk_shares_lead_us(shares, 1, 10, START_US + 2 * MEMORY_US);
    cr_expect_eq(shares->num_clients, 1);
    free(shares);
}
