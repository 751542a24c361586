/* Inside the protocol layer: a call, from its first header until its stream is closed. session.c tells it what arrives,
 * call.c checks it and calls the method, call_output.c answers.
 *
 *   opened --headers--> known to its method --messages--> answered --trailers sent--> closed
 *
 * The owner's handle ends when the call is `ended`; the memory lives on until nghttp2 closes the stream. */
#ifndef RANKD_SERVER_GRPC_CALL_H
#define RANKD_SERVER_GRPC_CALL_H

#include <nghttp2/nghttp2.h>

#include "server/grpc/deadlines.h"
#include "server/grpc/deframer.h"
#include "server/grpc/headers.h"
#include "server/grpc/session.h"

#define RK_MAX_EXTRA_HEADERS  4
#define RK_MAX_EXTRA_TRAILERS 4

struct rk_outgoing; /* a message that waits for the peer's window */
struct rk_extra_header;

enum rk_compression { RK_COMPRESSION_BY_SIZE, RK_COMPRESSION_ON, RK_COMPRESSION_OFF };

struct rk_call {
    struct rk_grpc_session *session;
    struct rk_call *next, *previous; /* in the session's list */
    int32_t stream_id;
    const struct rk_method *method; /* NULL until the headers are whole */
    void *data;
    uint64_t start_us, deadline_us;
    size_t deadline_index;

    struct rk_request_headers headers;
    struct rk_deframer deframer;
    bool has_message; /* a unary call's only message is whole in the deframer and waits for the half-close */
    bool half_closed;
    bool paused;
    bool feeding;  /* inside rk_call_feed */
    uint8_t *held; /* what arrived while it was paused; a pool block, or NULL */
    size_t held_bytes, held_fed, held_capacity;
    size_t unconsumed;   /* bytes for which the peer has not got its window back */
    bool was_compressed; /* the message that the method has, or last had */
    bool known;          /* the method has been called */
    bool ended;          /* answered or cancelled: the owner's handle is gone */

    bool response_begun; /* the response's headers are submitted, its messages flow */
    bool trailers_ready; /* status and trailers stand: they follow the last message */
    struct rk_outgoing *first_out, *last_out;
    size_t queued_bytes; /* in that list, less what was sent */
    uint64_t waiting_us; /* since when its first message waits */
    bool over_mark;      /* they have reached RK_CALL_OUTPUT_MARK: the method may wait for `writable` */
    char *client;        /* pool block, or NULL */
    const char *subject; /* what the method noted */
    uint64_t amount, received_bytes, sent_bytes;
    enum rk_grpc_status status;
    char *message; /* percent-encoded, pool block, or NULL */
    size_t message_bytes;
    struct rk_extra_header *extra_headers, *trailers;
    enum rk_compression compression; /* of the messages that follow */
    bool may_compress;               /* the response's headers said gzip */
};

/* NULL when there is no memory. Adds it to the session. */
struct rk_call *rk_call_open(struct rk_grpc_session *session, int32_t stream_id);

/* The stream is gone: tells the method, if it still waits for this call, and frees everything. */
void rk_call_close(struct rk_call *call);

void rk_call_headers_done(struct rk_call *call);

/* nghttp2 resets the stream because of its headers. When they still say whom to answer what, this ends the call and
 * returns the frame that belongs before the reset, a pool block; else NULL. */
uint8_t *rk_call_answer_before_reset(struct rk_call *call, size_t *bytes);
void rk_call_half_close(struct rk_call *call);

/* Hands on messages until the input is used up, or the call paused or ended; returns how much it took. */
size_t rk_call_feed(struct rk_call *call, const uint8_t *bytes, size_t length);
/* The peer has half-closed, and all that it sent was handed on. */
void rk_call_end_input(struct rk_call *call);
/* Ends a call that breaks a rule or a limit. */
void rk_call_fail(struct rk_call *call, enum rk_grpc_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- server/grpc/call_flow.c ---- */

/* Bytes of the stream came: hands them on or keeps them, and gives the peer its window back. False: nghttp2 is out of
 * memory. */
bool rk_call_take(struct rk_call *call, const uint8_t *bytes, size_t length);
void rk_call_drop_held(struct rk_call *call);
/* Tells the methods of calls whose output has fallen below the mark. */
void rk_call_tell_writable(struct rk_grpc_session *session);

/* ---- server/grpc/call_output.c ---- */

/* The end of the answer: trailers after the messages that wait, or trailers alone. `ended` is set already. */
void rk_call_submit_status(struct rk_call *call, enum rk_grpc_status status, const char *message, bool names_encodings);
/* The whole answer to what is not gRPC. */
void rk_call_submit_http_status(struct rk_call *call, const char *http_status);
void rk_call_drop_output(struct rk_call *call);

/* ---- server/grpc/call.c ---- */

/* Tells the method `leaving`, if the call has one and has not ended. */
void rk_call_leaving(struct rk_call *call);

/* Tells the method `cancelled` if it still waits for this call, and answers DEADLINE_EXCEEDED. */
void rk_call_expire(struct rk_call *call);

#endif
