/* What a call's request headers say, collected one by one, and whether they make a gRPC call. */
#ifndef RANKD_SERVER_GRPC_HEADERS_H
#define RANKD_SERVER_GRPC_HEADERS_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/grpc/session.h"

struct rk_request_headers {
    uint32_t count;
    uint64_t bytes;      /* names, values and 32 for each, as HTTP/2 counts them */
    nghttp2_rcbuf *path; /* references, given back by rk_request_headers_deinit */
    nghttp2_rcbuf *timeout;
    nghttp2_rcbuf *encoding;
    nghttp2_rcbuf *not_binary; /* the name of the last "-bin" header whose value is not base64 */
    bool is_post, is_grpc;
    bool takes_gzip;               /* grpc-accept-encoding names it */
    struct rk_metadatum *metadata; /* [num_metadata] all that is the caller's own; a pool block, or NULL */
    uint32_t num_metadata, max_metadata;
    uint64_t metadata_bytes;
};

struct rk_metadatum {
    nghttp2_rcbuf *name, *value;
};

/* False when the headers are past the limits, or past *metadata_budget, which is what all calls of the session may
 * keep. */
bool rk_request_headers_add(struct rk_request_headers *headers, const struct rk_grpc_limits *limits,
                            struct rk_pool *pool, uint64_t *metadata_budget, nghttp2_rcbuf *name, nghttp2_rcbuf *value);
void rk_request_headers_deinit(struct rk_request_headers *headers, struct rk_pool *pool, uint64_t *metadata_budget);

/* NULL: there is none of that name. */
const char *rk_request_headers_find(const struct rk_request_headers *headers, const char *name);

/* The request's messages may be compressed. */
bool rk_request_headers_say_gzip(const struct rk_request_headers *headers);

/* True for a :path that is there and does not begin with '/', "*" included. nghttp2 refuses it, once all headers are
 * in, as RFC 9113 (8.3.1) says. */
bool rk_request_headers_path_lacks_slash(const struct rk_request_headers *headers);

/* What to tell a caller whose headers do not make a call that we serve. */
struct rk_header_refusal {
    const char *http_status; /* "200": it is gRPC, and the next two count */
    enum rk_grpc_status status;
    bool names_encodings; /* adds grpc-accept-encoding */
    char message[320];
};

/* Finds the method and the timeout (UINT64_MAX: none). False when the call is to be refused. */
bool rk_request_headers_check(const struct rk_request_headers *headers, const struct rk_grpc_session_config *config,
                              const struct rk_method **method, uint64_t *timeout_us, struct rk_header_refusal *refusal);

#endif
