/* Connections are counted by address, under any order of coming and going. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "server/peers.h"
#include "tests/unit/random.h"

static struct rk_peers *create(uint32_t connections, uint32_t per_peer)
{
    struct rk_peers *peers;
    struct rk_error error = {0};
    cr_assert_eq(rk_peers_create(connections, per_peer, &peers, &error), RK_OK, "%s", error.text);
    return peers;
}

static struct sockaddr_in v4(uint32_t address)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
}

static struct sockaddr_in6 v6(const char *text)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    cr_assert_eq(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
    return address;
}

static bool enter6(struct rk_peers *peers, const char *text)
{
    struct sockaddr_in6 address = v6(text);
    uint32_t slot;
    return rk_peers_enter(peers, (struct sockaddr *)&address, &slot);
}

Test(peers, an_address_has_its_share_and_others_have_theirs)
{
    struct rk_peers *peers = create(100, 2);
    struct sockaddr_in one = v4(0x0a000001), two = v4(0x0a000002);
    uint32_t slots[3];
    cr_expect(rk_peers_enter(peers, (struct sockaddr *)&one, &slots[0]));
    cr_expect(rk_peers_enter(peers, (struct sockaddr *)&one, &slots[1]));
    cr_expect(!rk_peers_enter(peers, (struct sockaddr *)&one, &slots[2]));
    cr_expect_eq(slots[2], RK_PEER_NONE);
    cr_expect(rk_peers_enter(peers, (struct sockaddr *)&two, &slots[2]));
    rk_peers_leave(peers, slots[0]);
    cr_expect(rk_peers_enter(peers, (struct sockaddr *)&one, &slots[0]));
    rk_peers_destroy(peers);
}

Test(peers, ipv6_counts_by_what_one_client_owns_and_mapped_ipv4_as_ipv4)
{
    struct rk_peers *peers = create(100, 2);
    cr_expect(enter6(peers, "2001:db8:0:1::1"));
    cr_expect(enter6(peers, "2001:db8:0:1:ffff:ffff:ffff:ffff"));
    cr_expect(!enter6(peers, "2001:db8:0:1::2"), "one /64 is one client");
    cr_expect(enter6(peers, "2001:db8:0:2::1"));
    struct sockaddr_in one = v4(0x0a000001);
    uint32_t slot;
    cr_expect(enter6(peers, "::ffff:10.0.0.1"));
    cr_expect(rk_peers_enter(peers, (struct sockaddr *)&one, &slot));
    cr_expect(!rk_peers_enter(peers, (struct sockaddr *)&one, &slot));
    cr_expect(enter6(peers, "::ffff:10.0.0.2"));
    rk_peers_destroy(peers);
}

Test(peers, without_a_limit_and_on_unix_sockets_nothing_is_counted)
{
    struct rk_peers *unlimited = create(2, 0), *limited = create(2, 1);
    struct sockaddr_in address = v4(1);
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    for (int i = 0; i < 10; i++) {
        uint32_t slot;
        cr_expect(rk_peers_enter(unlimited, (struct sockaddr *)&address, &slot));
        cr_expect_eq(slot, RK_PEER_NONE);
        rk_peers_leave(unlimited, slot);
        cr_expect(rk_peers_enter(limited, (struct sockaddr *)&local, &slot));
        cr_expect_eq(slot, RK_PEER_NONE);
    }
    rk_peers_destroy(unlimited);
    rk_peers_destroy(limited);
}

Test(peers, random_comings_and_goings_agree_with_a_plain_count)
{
    enum { ADDRESSES = 50, CONNECTIONS = 120, MOST = 4 };
    struct random random = random_from_seed();
    struct rk_peers *peers = create(CONNECTIONS, MOST);
    struct {
        uint32_t slot, address;
    } open[CONNECTIONS];
    uint32_t counts[ADDRESSES] = {0}, num_open = 0;
    for (int step = 0; step < 100000; step++) {
        if (num_open == CONNECTIONS || (num_open > 0 && random_below(&random, 2) == 0)) {
            uint32_t which = (uint32_t)random_below(&random, num_open);
            rk_peers_leave(peers, open[which].slot);
            counts[open[which].address]--;
            open[which] = open[--num_open];
            continue;
        }
        uint32_t at = (uint32_t)random_below(&random, ADDRESSES), slot;
        struct sockaddr_in address = v4(at * 65536);
        bool allowed = rk_peers_enter(peers, (struct sockaddr *)&address, &slot);
        cr_assert_eq(allowed, counts[at] < MOST, "step %d: address %u has %u", step, at, counts[at]);
        if (allowed) {
            open[num_open].slot = slot;
            open[num_open++].address = at;
            counts[at]++;
        }
    }
    rk_peers_destroy(peers);
}
