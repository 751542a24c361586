/* Where clients come in, and who has come in there. */
#ifndef RANKD_SERVER_ENDPOINT_H
#define RANKD_SERVER_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_tls;
struct rk_tls_stream;

/* What the sockets of a listener have in common. */
struct rk_endpoint {
    struct rk_tls *tls; /* NULL: plaintext */
    bool admin;         /* admin calls may come in here */
};

#define RK_PEER_ADDRESS_BYTES 64

/* An accepted socket on its way to an event loop. */
struct rk_accepted {
    int fd;
    uint32_t peer_slot; /* in server/peers.h */
    const struct rk_endpoint *endpoint;
    uint64_t opened_us;
    struct rk_tls_stream *stream; /* whose handshake is over; NULL: there is none yet */
    uint8_t *early;               /* plain bytes that came with the handshake's last; from malloc, NULL: none */
    size_t early_bytes;
    char address[RK_PEER_ADDRESS_BYTES]; /* "10.1.2.3:40123", "[2001:db8::1]:40123", "unix:uid=1000" */
};

/* Closes the socket and frees what belongs to it. */
void rk_accepted_drop(const struct rk_accepted *accepted);

/* Who is at the other end of a connection. */
struct rk_peer {
    const struct rk_endpoint *endpoint;
    char address[RK_PEER_ADDRESS_BYTES];
    const char *const *names; /* of its verified certificate; NULL: it showed none */
    uint32_t num_names;
};

#endif
