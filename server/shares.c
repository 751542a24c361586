/* Two tables of slots, found by hash. Who still counts is counted anew every quarter of `memory_us`, by a look at all
 * slots, which takes some microseconds; who is new is added at once. */
#include "server/shares.h"

#include <stdbool.h>

#define COUNTS_PER_MEMORY 4
#define MOST_REMEMBERED   4 /* times memory_us, or the queue's length */

static uint32_t slot_of(uint64_t hash, uint32_t num_slots)
{
    return (uint32_t)(hash * 0x9e3779b97f4a7c15u >> 32) & (num_slots - 1);
}

static struct rk_client_share *client_of(struct rk_shares *shares, uint64_t client)
{
    return &shares->clients[slot_of(client, RK_CLIENT_SLOTS)];
}

static struct rk_connection_share *connection_of(struct rk_shares *shares, uint64_t connection)
{
    return &shares->connections[slot_of(connection, RK_CONNECTION_SLOTS)];
}

static bool counts(const struct rk_shares *shares, uint64_t seen_us, uint64_t now_us)
{
    return seen_us != 0 && now_us - seen_us <= shares->memory_us;
}

static void count(struct rk_shares *shares, uint64_t now_us)
{
    shares->counted_us = now_us;
    shares->num_clients = 0;
    for (uint32_t i = 0; i < RK_CLIENT_SLOTS; i++) {
        shares->num_clients += counts(shares, shares->clients[i].seen_us, now_us);
        shares->clients[i].num_connections = 0;
    }
    for (uint32_t i = 0; i < RK_CONNECTION_SLOTS; i++)
        if (counts(shares, shares->connections[i].seen_us, now_us))
            shares->clients[shares->connections[i].client].num_connections++;
}

static uint64_t ahead_us(uint64_t even_ns, uint64_t now_us)
{
    return even_ns > now_us * 1000u ? even_ns / 1000u - now_us : 0;
}

uint64_t rk_shares_lead_us(struct rk_shares *shares, uint64_t client, uint64_t connection, uint64_t now_us)
{
    struct rk_client_share *its_client = client_of(shares, client);
    struct rk_connection_share *its_connection = connection_of(shares, connection);
    if (now_us - shares->counted_us >= shares->memory_us / COUNTS_PER_MEMORY)
        count(shares, now_us);
    shares->num_clients += !counts(shares, its_client->seen_us, now_us);
    its_client->num_connections += !counts(shares, its_connection->seen_us, now_us);
    its_client->seen_us = its_connection->seen_us = now_us;
    its_connection->client = (uint32_t)(its_client - shares->clients);
    uint64_t lead_us = 0;
    if (shares->num_clients > 1)
        lead_us = ahead_us(its_client->even_ns, now_us);
    if (its_client->num_connections > 1 && ahead_us(its_connection->even_ns, now_us) > lead_us)
        lead_us = ahead_us(its_connection->even_ns, now_us);
    return lead_us;
}

static uint64_t moved(uint64_t even_ns, uint64_t by_ns, uint64_t most_us, uint64_t now_us)
{
    const uint64_t from_ns = even_ns > now_us * 1000u ? even_ns : now_us * 1000u;
    const uint64_t most_ns = (now_us + most_us) * 1000u;
    return by_ns < most_ns - from_ns && from_ns < most_ns ? from_ns + by_ns : most_ns;
}

void rk_shares_charge(struct rk_shares *shares, uint64_t client, uint64_t connection, uint64_t work_ns,
                      uint64_t wait_us, uint64_t now_us)
{
    struct rk_client_share *its_client = client_of(shares, client);
    struct rk_connection_share *its_connection = connection_of(shares, connection);
    const uint64_t most_us = MOST_REMEMBERED * (wait_us > shares->memory_us ? wait_us : shares->memory_us);
    const uint64_t for_client_ns = work_ns * shares->num_clients;
    its_client->even_ns = moved(its_client->even_ns, for_client_ns, most_us, now_us);
    its_connection->even_ns =
        moved(its_connection->even_ns, for_client_ns * its_client->num_connections, most_us, now_us);
}
