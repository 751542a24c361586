/* One server side of a gRPC connection: HTTP/2 (nghttp2), gRPC framing, calls. It does no I/O and reads no clock: bytes
 * go in, bytes come out, the time is handed in. One thread at a time; the owner is server/connection.c, which has the
 * socket.
 *
 *   bytes -> rk_grpc_session_receive -> method callbacks -> rk_call_send / rk_call_finish -> rk_grpc_session_output ->
 * bytes
 *
 * The session knows messages, not requests: unary, server-streaming and bidirectional methods are the same callbacks
 * with different rules on how many messages may pass. TLS sits below (bytes), limits beside (rk_grpc_limits). */
#ifndef RANKD_SERVER_GRPC_SESSION_H
#define RANKD_SERVER_GRPC_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/grpc/status.h"

struct rk_grpc_session;
struct rk_call;
struct rk_pool; /* server/grpc/pool.h: recycled memory blocks of one event loop */

struct rk_grpc_limits {
    uint32_t max_streams; /* concurrent calls per connection; more are refused (REFUSED_STREAM) */
    uint32_t max_header_count, max_header_bytes; /* per request: 64, 8 KiB; past them the stream is refused */
    uint64_t max_message_bytes;       /* of one request message: RESOURCE_EXHAUSTED past it, before allocating */
    uint64_t max_queued_output_bytes; /* control frames and answers that wait for the socket; past it the connection is
                                         closed */
    uint32_t max_glitches; /* strange but legal frames per connection before ENHANCE_YOUR_CALM (a bucket, refilled per
                              second) */
    uint64_t min_compressed_bytes; /* answers as long are compressed for peers that take gzip; 0: none */
    uint32_t max_resets_per_s;     /* RST_STREAM from the peer: honest clients reset when deadlines expire */
};
#define RK_GRPC_LIMITS_DEFAULT                                                                                         \
    ((struct rk_grpc_limits){.max_streams = 1024,                                                                      \
                             .max_header_count = 64,                                                                   \
                             .max_header_bytes = 8192,                                                                 \
                             .max_message_bytes = 4u << 20,                                                            \
                             .max_queued_output_bytes = 16u << 20,                                                     \
                             .max_glitches = 1000,                                                                     \
                             .max_resets_per_s = 1000})

/* How long things may take, kept to the second; 0: for ever. */
struct rk_grpc_times {
    uint64_t settings_us;      /* until our SETTINGS are acknowledged */
    uint64_t ping_interval_us; /* the third ping in a row that follows another sooner, while nothing is
                                  sent, ends the connection (too_many_pings) */
    uint64_t keepalive_us, keepalive_timeout_us; /* silence until we ping, and until the peer counts as gone then */
    uint64_t stall_us;                           /* an answer waits for its peer's window; then the stream is reset */
    uint64_t slow_us;                  /* much memory is held for a peer that hardly sends or takes anything */
    uint64_t idle_us;                  /* no call is open: the connection is drained */
    uint64_t max_age_us, age_grace_us; /* drained then, give or take a tenth; open calls are cut off after the grace */
};
#define RK_GRPC_TIMES_DEFAULT                                                                                          \
    ((struct rk_grpc_times){.settings_us = 10000000,                                                                   \
                            .ping_interval_us = 5000000,                                                               \
                            .keepalive_us = 120000000,                                                                 \
                            .keepalive_timeout_us = 20000000,                                                          \
                            .stall_us = 60000000,                                                                      \
                            .slow_us = 5000000,                                                                        \
                            .idle_us = 300000000})

enum rk_method_kind { RK_METHOD_UNARY, RK_METHOD_SERVER_STREAM, RK_METHOD_BIDI };

/* A method's callbacks, all on the session's thread. After `cancelled`, or after rk_call_finish returned, the call
 * handle is gone. */
struct rk_method {
    const char *path; /* "/rankd.v1.Ranking/Rank" */
    enum rk_method_kind kind;
    /* One whole message; `bytes` are valid until it returns. Unary: called exactly once, after the peer has
     * half-closed, so the session has already answered INTERNAL for none or two messages. */
    void (*message)(void *service, struct rk_call *call, const uint8_t *bytes, size_t length);
    void (*half_close)(void *service, struct rk_call *call); /* not for unary; may be NULL */
    void (*cancelled)(void *service, struct rk_call *call);  /* the peer or the connection went away; may be NULL */
    /* Its queued answers fell to half of RK_CALL_OUTPUT_MARK or below, after they had reached it; may be NULL. */
    void (*writable)(void *service, struct rk_call *call);
    /* The connection takes no new calls. A call that has no end of its own is to end soon; others finish as they would;
     * may be NULL. */
    void (*leaving)(void *service, struct rk_call *call);
    void *service;
};

struct rk_grpc_session_config {
    const struct rk_method *methods;
    size_t num_methods;
    struct rk_grpc_limits limits;
    struct rk_grpc_times times;
    struct rk_pool *pool;

    /* May this call be made? Asked once for each, when its headers are whole and its method is known, before any
     * message. RK_GRPC_OK lets it pass, else it ends with that status and the message. NULL: all pass. */
    enum rk_grpc_status (*authorize)(void *access, struct rk_call *call, char *message, size_t capacity);
    void *access;

    /* Once for each call that had a method, when it ends, while it can still be looked at; NULL: nobody wants to know.
     */
    void (*finished)(void *access_log, const struct rk_call *call, enum rk_grpc_status status);
    void *access_log;
};

/* Of one call's answers that wait for its peer: methods that send more than one had better stop there. */
#define RK_CALL_OUTPUT_MARK ((size_t)256 << 10)

/* The config must outlive the session. now_us: monotonic microseconds. */
enum rk_status rk_grpc_session_create(const struct rk_grpc_session_config *config, uint64_t now_us,
                                      struct rk_grpc_session **session);
/* Cancels every call that is still open. */
void rk_grpc_session_destroy(struct rk_grpc_session *session);

/* Feeds what was read. Returns false when the connection is beyond repair: write what rk_grpc_session_output still has
 * (a GOAWAY), then close. */
bool rk_grpc_session_receive(struct rk_grpc_session *session, const uint8_t *bytes, size_t length, uint64_t now_us);

/* The next bytes to write, up to `capacity`, copied to `buffer`; returns how many, 0 when there is nothing now. */
size_t rk_grpc_session_output(struct rk_grpc_session *session, uint8_t *buffer, size_t capacity);
bool rk_grpc_session_wants_output(const struct rk_grpc_session *session);

/* True when nothing will ever come any more: close the socket. */
bool rk_grpc_session_finished(const struct rk_grpc_session *session);

/* Announces that no new calls are taken (GOAWAY); open ones finish. Once more does nothing. */
void rk_grpc_session_drain(struct rk_grpc_session *session);

/* Once a second: what rk_grpc_times ask for. False as rk_grpc_session_receive. */
bool rk_grpc_session_tick(struct rk_grpc_session *session, uint64_t now_us);

/* Why it is beyond repair, as far as it is known: "too_many_pings". */
const char *rk_grpc_session_why(const struct rk_grpc_session *session);

uint32_t rk_grpc_session_open_calls(const struct rk_grpc_session *session);

/* Answers DEADLINE_EXCEEDED on every call whose deadline has passed (after telling it `cancelled`). Returns the
 * earliest deadline that is still ahead, UINT64_MAX for none: the owner sets its timer to it. */
uint64_t rk_grpc_session_expire(struct rk_grpc_session *session, uint64_t now_us);

/* The owner's handle, e.g. the connection; set once after create. */
void rk_grpc_session_set_owner(struct rk_grpc_session *session, void *owner);
void *rk_grpc_session_owner(const struct rk_grpc_session *session);

/* ---- calls ---- */

struct rk_grpc_session *rk_call_session(const struct rk_call *call);
uint64_t rk_call_deadline_us(const struct rk_call *call); /* monotonic; UINT64_MAX: none */
uint64_t rk_call_start_us(const struct rk_call *call);    /* when its headers were read */
const char *rk_call_path(const struct rk_call *call);     /* its method's */

/* A request header's value, NUL-terminated, valid until the call ends; NULL: there is none. `name` is in lower case;
 * -bin values stay base64, as they were sent. Not for what gRPC itself uses (te, content-type, grpc-timeout, ...). */
const char *rk_call_metadata(const struct rk_call *call, const char *name);

/* Who calls, as `authorize` found out; the name is copied. NULL: it found nothing out, or had no memory. */
void rk_call_set_client(struct rk_call *call, const char *name);
const char *rk_call_client(const struct rk_call *call);

void rk_call_set_data(struct rk_call *call, void *data);
void *rk_call_data(const struct rk_call *call);

/* Initial metadata, before the first rk_call_send; both strings are copied. At most 4. An answer without messages has
 * it among its trailers. */
void rk_call_add_header(struct rk_call *call, const char *name, const char *value);

bool rk_call_message_was_compressed(const struct rk_call *call); /* that which is being handed over */

/* Whether the messages that follow are compressed, if the peer takes gzip, and min_compressed_bytes is set or this is
 * said before the first one. Without it, their size decides. */
void rk_call_compress(struct rk_call *call, bool on);

/* Queues one message (copied). RK_EXHAUSTED when the peer does not read and the output limit is reached. */
enum rk_status rk_call_send(struct rk_call *call, const uint8_t *bytes, size_t length);

/* Ends the call. `message` may be NULL; it is percent-encoded as gRPC asks. */
void rk_call_finish(struct rk_call *call, enum rk_grpc_status status, const char *message);

size_t rk_call_queued_bytes(const struct rk_call *call); /* of answers that the peer has not taken */

/* Bidirectional calls: no more messages until resumed. The peer's window closes; what it had sent by then is kept,
 * within the session's bound for unfinished messages. rk_call_resume may hand over messages, and the half-close, before
 * it returns. */
void rk_call_pause(struct rk_call *call);
void rk_call_resume(struct rk_call *call);

/* What the call is about, for the access log: a name that outlives the session, and how much of it; amounts add up. */
void rk_call_note(struct rk_call *call, const char *subject, uint64_t amount);
const char *rk_call_subject(const struct rk_call *call); /* NULL: nothing was noted */
uint64_t rk_call_amount(const struct rk_call *call);
uint64_t rk_call_received_bytes(const struct rk_call *call); /* of messages, so far */
uint64_t rk_call_sent_bytes(const struct rk_call *call);

/* Extra trailing metadata for rk_call_finish, e.g. a retry hint; both strings are copied. At most 4. */
void rk_call_add_trailer(struct rk_call *call, const char *name, const char *value);

#endif
