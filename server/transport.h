/* What carries a connection's bytes: a socket, and TLS on it or not. One thread at a time: its event loop's. */
#ifndef RANKD_SERVER_TRANSPORT_H
#define RANKD_SERVER_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "quant/base/status.h"

struct rk_pool;
struct rk_tls;
struct rk_tls_stream;

/* What one read may bring, and one write may take. */
#define RK_TRANSPORT_BYTES (256u << 10)

/* What the transports of one event loop share. */
struct rk_transport_memory {
    struct rk_pool *pool; /* of output that sockets did not take */
    uint8_t *records;     /* encrypted bytes on their way in or out; NULL: TLS cannot be used */
};

struct rk_transport {
    const struct rk_transport_memory *memory;
    int fd;
    struct rk_tls_stream *tls; /* NULL: plain */
    uint8_t *pending;          /* output that the socket did not take; from the pool */
    uint32_t pending_bytes, pending_sent;
};

/* False when the system has no memory. `records` is freed by rk_transport_memory_deinit, the pool is not. */
bool rk_transport_memory_init(struct rk_transport_memory *memory, struct rk_pool *pool);
void rk_transport_memory_deinit(struct rk_transport_memory *memory);

/* Takes the socket over when it succeeds; `tls` NULL: plain bytes. RK_NO_MEMORY. */
enum rk_status rk_transport_open(struct rk_transport *transport, const struct rk_transport_memory *memory, int fd,
                                 struct rk_tls *tls, uint64_t now_us);
/* The same with a stream whose handshake another transport has done. */
void rk_transport_open_ready(struct rk_transport *transport, const struct rk_transport_memory *memory, int fd,
                             struct rk_tls_stream *stream);
/* Gives socket and stream away: closing closes neither. Nothing may be pending. */
struct rk_tls_stream *rk_transport_give_away(struct rk_transport *transport);
/* At once. */
void rk_transport_close(struct rk_transport *transport);

#define RK_TRANSPORT_GONE   (-1) /* the peer has closed it, or the network has */
#define RK_TRANSPORT_BROKEN (-2) /* its peer broke TLS or a rule of ours: rk_transport_why */

/* Reads once. Returns how many plain bytes came, at most RK_TRANSPORT_BYTES, which `buffer` holds; 0 when none are
 * there yet; or one of the above. *more: the socket had more than could be taken. */
ssize_t rk_transport_receive(struct rk_transport *transport, uint8_t *buffer, uint64_t now_us, bool *more);

/* Reads and forgets. False when there will be nothing any more. */
bool rk_transport_discard(struct rk_transport *transport, uint8_t *buffer);
const char *rk_transport_why(const struct rk_transport *transport);

/* The handshake is over, if there is one, and nothing is broken. */
bool rk_transport_ready(const struct rk_transport *transport);

/* Sends up to RK_TRANSPORT_BYTES, once ready and with nothing pending; keeps what the socket does not take. False when
 * the connection is gone. */
bool rk_transport_send(struct rk_transport *transport, const uint8_t *bytes, size_t length);

/* Sends more of what is pending. *moved: some of it went. False when the connection is gone. */
bool rk_transport_flush(struct rk_transport *transport, bool *moved);
bool rk_transport_pending(const struct rk_transport *transport);

/* No more will be sent: says so to the peer, which may still send. Forgets what is pending. False when the connection
 * is gone. */
bool rk_transport_end(struct rk_transport *transport);

/* As rk_tls_stream_names. */
uint32_t rk_transport_names(const struct rk_transport *transport, const char *const **names);

#endif
