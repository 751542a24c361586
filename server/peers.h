/* How many connections each address has, so that no one client can take them all. Any thread. */
#ifndef RANKD_SERVER_PEERS_H
#define RANKD_SERVER_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "quant/base/status.h"

struct rk_peers;

#define RK_PEER_NONE UINT32_MAX /* not counted */

/* For at most max_connections at a time, max_per_peer of them from one address; 0: no limit, nothing is counted. */
enum rk_status rk_peers_create(uint32_t max_connections, uint32_t max_per_peer, struct rk_peers **peers,
                               struct rk_error *error);
void rk_peers_destroy(struct rk_peers *peers); /* NULL is allowed */

/* One more connection from there: an IPv4 address, or the first 64 bits of an IPv6 address, which one client has all to
 * itself. Others are not counted. False: it has as many as it may. */
bool rk_peers_enter(struct rk_peers *peers, const struct sockaddr *address, uint32_t *slot);
void rk_peers_leave(struct rk_peers *peers, uint32_t slot);

#endif
