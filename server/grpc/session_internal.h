/* Inside the protocol layer: the session's state, shared by session.c and call.c. */
#ifndef RANKD_SERVER_GRPC_SESSION_INTERNAL_H
#define RANKD_SERVER_GRPC_SESSION_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "server/grpc/bucket.h"
#include "server/grpc/deadlines.h"
#include "server/grpc/frame_filter.h"
#include "server/grpc/h2_memory.h"
#include "server/grpc/session.h"

#define RK_PREFACE_BYTES 64

/* server/grpc/session_time.c */
struct rk_session_time {
    uint64_t began_us;      /* when its first byte came; 0: not yet */
    uint64_t heard_us;      /* when its last one came */
    uint64_t idle_since_us; /* with num_calls of 0 */
    uint64_t asked_us;      /* our keepalive ping, while `asked` */
    uint64_t pinged_us;     /* the peer's last ping, if `was_pinged` since we sent headers or data */
    uint64_t left_us;       /* while `leaving` */
    uint64_t steady_us;     /* when it was last seen to hold little, or to move enough */
    uint64_t named_us;      /* when the last stream was named, if `named_last` */
    uint8_t ping_strikes, jitter;
    bool settings_known, asked, was_pinged, leaving, named_last, is_old;
};

struct rk_grpc_session {
    const struct rk_grpc_session_config *config;
    struct rk_pool *pool;
    struct rk_h2_memory memory;
    nghttp2_session *h2;
    struct rk_frame_filter filter; /* before h2 */
    void *owner;
    uint64_t now_us; /* as last handed in */

    struct rk_call *calls; /* every open stream's */
    uint32_t num_calls;
    struct rk_deadlines deadlines;
    uint64_t assembly_budget; /* what unfinished messages may still take */
    uint64_t queued_bytes;    /* of outgoing messages */
    uint64_t moved_bytes;     /* of messages, in and out, since the last tick */
    uint64_t metadata_budget; /* what open calls' headers may still take */
    bool some_writable;       /* a call's output has fallen below the mark */

    uint32_t heeded_short_data;  /* frames; it follows filter.short_data */
    uint32_t ignored_short_data; /* that are not counted as a glitch yet */

    struct rk_session_time time;
    const char *why; /* it broke; NULL: nghttp2 knows */

    struct rk_bucket glitches;   /* strange but legal frames */
    struct rk_bucket resets;     /* streams that the peer gives up */
    struct rk_bucket inflation;  /* KiB that compressed messages become beyond what honest ones do */
    struct rk_bucket own_resets; /* streams that the peer makes us give up */

    const uint8_t *chunk; /* what is left of the frame that nghttp2 last handed out */
    size_t chunk_bytes;
    uint8_t *lead; /* a frame of our own that goes before the chunk; a pool block, or NULL */
    size_t lead_bytes, lead_sent;
    uint8_t preface[RK_PREFACE_BYTES]; /* our SETTINGS frame */

    bool receiving; /* inside rk_grpc_session_receive */
    bool broken;    /* the peer broke a rule: say GOAWAY, then close */
    bool dead;      /* nothing can be said any more, not even GOAWAY */
};

/* Ends the connection with GOAWAY, this HTTP/2 error code and a constant text for the peer's log and ours (NULL: none).
 */
void rk_grpc_session_break(struct rk_grpc_session *session, uint32_t http2_error, const char *why);

/* Ends it without a word: an allocation has failed, after which nghttp2 must not be called again. */
void rk_grpc_session_kill(struct rk_grpc_session *session);

/* ---- server/grpc/session_time.c ---- */

void rk_session_time_init(struct rk_grpc_session *session);  /* config and now_us stand */
void rk_session_time_heard(struct rk_grpc_session *session); /* bytes came */
void rk_session_time_sent(struct rk_grpc_session *session);  /* headers or data went */
void rk_session_time_ping(struct rk_grpc_session *session, const nghttp2_ping *ping);

#endif
