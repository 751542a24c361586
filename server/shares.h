/* Whose turn is it among the clients of a priority class? What each has had of the workers' time lately, against an
 * even share for each client, and an even part of that for each of its connections (after Zhang's virtual clocks,
 * 1990).
 *
 * A client's lead is how long its even share would still take to make up for the work that was taken from it. It has
 * none while it asks for less than its share, and it is forgotten after a moment, so that nobody is punished for having
 * used what nobody else wanted. Only those that sent something lately share. Its owner locks. */
#ifndef RANKD_SERVER_SHARES_H
#define RANKD_SERVER_SHARES_H

#include <stdint.h>

/* Powers of two. Two clients that fall into one slot share a share: unlikely, and harmless to all others. */
#define RK_CLIENT_SLOTS     256u
#define RK_CONNECTION_SLOTS 1024u

struct rk_shares {
    uint64_t memory_us; /* set by the owner, all else zero: how long a client counts after its last request */
    uint64_t counted_us;
    uint32_t num_clients; /* that counted then */
    struct rk_client_share {
        uint64_t even_ns, seen_us; /* when its share will have caught up with it; its last request */
        uint32_t num_connections;
    } clients[RK_CLIENT_SLOTS];
    struct rk_connection_share {
        uint64_t even_ns, seen_us;
        uint32_t client; /* whose it is */
    } connections[RK_CONNECTION_SLOTS];
};

/* A request has come from this client, on this connection (hashes, whatever their spread). Returns the client's lead or
 * its connection's, whichever is more; 0 for one that is alone. */
uint64_t rk_shares_lead_us(struct rk_shares *shares, uint64_t client, uint64_t connection, uint64_t now_us);

/* It was taken, and will keep all workers together busy for so long. wait_us: how long the queue is; so far at least
 * leads are remembered. After rk_shares_lead_us, at the same time. */
void rk_shares_charge(struct rk_shares *shares, uint64_t client, uint64_t connection, uint64_t work_ns,
                      uint64_t wait_us, uint64_t now_us);

#endif
