/* TLS on one connection, without I/O: bytes from the socket go in, plain bytes come out, and the other way round. One
 * thread at a time. */
#ifndef RANKD_SERVER_TLS_STREAM_H
#define RANKD_SERVER_TLS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

struct rk_tls;
struct rk_tls_stream;

/* What a record that lay half in the stream may add to the plain bytes of what is received. */
#define RK_TLS_RECORD_BYTES (16u << 10)

/* Appended to; what does not fit breaks the stream. */
struct rk_tls_output {
    uint8_t *bytes;
    size_t length, capacity;
};

/* NULL when there is no memory. */
struct rk_tls_stream *rk_tls_stream_create(struct rk_tls *tls, uint64_t now_us);
void rk_tls_stream_destroy(struct rk_tls_stream *stream); /* NULL is allowed */

/* Takes `length` bytes from the peer. Returns how many plain bytes were in them, at most length + RK_TLS_RECORD_BYTES,
 * which `plain` must have room for; -1 when the stream is broken or its peer has closed it. What the peer has to be
 * told, an alert included, is in `output`. */
ptrdiff_t rk_tls_stream_receive(struct rk_tls_stream *stream, const uint8_t *bytes, size_t length, uint8_t *plain,
                                uint64_t now_us, struct rk_tls_output *output);

/* The handshake is over and nothing is broken: plain bytes may be sent. */
bool rk_tls_stream_ready(const struct rk_tls_stream *stream);

/* False when the stream is broken. */
bool rk_tls_stream_send(struct rk_tls_stream *stream, const uint8_t *plain, size_t length,
                        struct rk_tls_output *output);

/* Says goodbye, if there is somebody to hear it. */
void rk_tls_stream_end(struct rk_tls_stream *stream, struct rk_tls_output *output);

/* Why rk_tls_stream_receive failed; NULL: the peer closed it in good order. */
const char *rk_tls_stream_why(const struct rk_tls_stream *stream);

/* The names in the client's certificate, verified, once the stream is ready: those for DNS and URIs, then its subject's
 * common name. *names is NULL when it showed none. Valid as long as the stream. */
uint32_t rk_tls_stream_names(const struct rk_tls_stream *stream, const char *const **names);

#endif
