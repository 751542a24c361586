/* For the tests of the protocol layer: a client (nghttp2's client side) and a session in one process, with bytes
 * carried between them in pieces of a chosen size, and four methods whose calls the tests can look at. */
#ifndef RANKD_TESTS_UNIT_SERVER_GRPC_PEER_H
#define RANKD_TESTS_UNIT_SERVER_GRPC_PEER_H

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/grpc/pool.h"
#include "server/grpc/session.h"

#define MAX_REPLIES 256

struct reply {
    char http_status[8], grpc_status[8], message[4096], accept_encoding[32], encoding[32], retry_hint[32], allow[8];
    uint8_t *body;
    size_t body_bytes, body_capacity;
    bool closed;
    uint32_t reset_code; /* once closed */
};

struct upload;

struct peer {
    struct rk_pool *pool;
    struct rk_method methods[4];
    struct rk_grpc_session_config config;
    struct rk_grpc_session *session;
    struct upload *uploads;  /* the client's request bodies */
    nghttp2_session *client; /* NULL: the test speaks in raw bytes */
    size_t cut;              /* bytes carried at once */
    size_t data_frame_bytes; /* the client's DATA frames carry at most this many */
    size_t padding;          /* of the client's DATA frames */
    uint64_t now_us;
    bool session_ok; /* what receive last returned */

    uint8_t raw_out[1 << 16]; /* in raw mode: what the session wrote */
    size_t raw_out_bytes;

    struct reply replies[MAX_REPLIES]; /* by stream id / 2 */

    /* What the methods saw. */
    int num_messages, num_cancelled, num_half_closes;
    size_t last_message_bytes;
    struct rk_call *waiting[MAX_REPLIES]; /* calls of /test.T/Later */
    size_t num_waiting;
};

struct request {
    const char *path;                                       /* NULL: /test.T/Echo */
    const char *method, *content_type, *timeout, *encoding; /* NULL: POST, application/grpc, none, none */
    const uint8_t *body;                                    /* gRPC framing included */
    size_t body_bytes;
    const char *extra_name, *extra_value; /* one more header, NULL: none */
    bool keep_open;                       /* no END_STREAM after the body */
};

/* limits may be NULL. raw: no client. */
void peer_init(struct peer *peer, const struct rk_grpc_limits *limits, bool raw);
void peer_deinit(struct peer *peer);

/* Starts a call; the reply comes in replies[id / 2] once peer_carry has run. */
int32_t peer_start(struct peer *peer, const struct request *request);
struct reply *peer_reply(struct peer *peer, int32_t stream_id);

/* Carries bytes both ways until neither side has any. */
void peer_carry(struct peer *peer);

/* Feeds raw bytes to the session and collects what it writes. */
void peer_feed(struct peer *peer, const void *bytes, size_t length);

/* Puts a gRPC prefix before a message; the result is static. */
const uint8_t *framed(const char *message, size_t length, size_t *framed_bytes);

/* One frame into `out`, which has room; returns its size. */
size_t make_frame(uint8_t *out, uint8_t type, uint8_t flags, uint32_t stream_id, const void *payload, size_t length);

/* The last error code of a GOAWAY among the session's raw output, -1 for none. */
int64_t raw_goaway_code(const struct peer *peer);
/* How many frames of this type are in the raw output. */
int raw_count(const struct peer *peer, uint8_t type);

extern const char raw_preface[]; /* the client's magic and an empty SETTINGS frame */
extern const size_t raw_preface_bytes;

uint64_t test_seed(void); /* RANKD_SEED or the time; printed */
uint32_t test_random(uint64_t *state);

#endif
