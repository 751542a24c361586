/* Looks at the frames that a client sends before nghttp2 sees them, for what nghttp2 takes too hard or too lightly.
 *
 * Too hard: RST_STREAM for a stream that was never opened. RFC 9113 (5.1) makes such a frame an error of the
 * connection. But gRPC's C core sends one when a call's deadline passes before its HEADERS left: the reset overtakes
 * them. Every other call on that connection would be lost for it. So a reset of a stream of the client's (odd) that is
 * still idle, on a connection that has opened one before, is dropped; whoever feeds the filter counts it. Everything
 * else goes on as it is, among it the resets that only a broken client sends: before any stream, of stream 0 or an even
 * one, of another size, and inside a header block.
 *
 * Too lightly: DATA or HEADERS on a stream that the client has ended or passed over, which nghttp2 drops. They are the
 * errors of the connection that RFC 9113 names (5.1, 5.1.1), see stream_history.h. And frames longer than we allow: of
 * CONTINUATION nghttp2 takes any. */
#ifndef RANKD_SERVER_GRPC_FRAME_FILTER_H
#define RANKD_SERVER_GRPC_FRAME_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/grpc/stream_history.h"

#define RK_RESET_FRAME_BYTES 13
#define RK_MAX_FRAME_BYTES   16384 /* of payload: RFC 9113's SETTINGS_MAX_FRAME_SIZE, where none is announced */

#define RK_SHORT_DATA_BYTES 1024

struct rk_frame_filter {
    uint32_t short_data; /* DATA frames of less than RK_SHORT_DATA_BYTES that went on; wraps */
    uint32_t passing;    /* bytes of the preface or of a payload that are still to come */
    struct rk_stream_history history;
    bool in_header_block;               /* HEADERS without END_HEADERS came: only CONTINUATION may follow */
    uint8_t held[RK_RESET_FRAME_BYTES]; /* a frame header that the input cut, and then a reset's code */
    uint8_t held_bytes;
};

struct rk_bytes {
    const uint8_t *at;
    size_t length;
};

enum rk_filtered {
    RK_FILTERED_NOTHING,     /* all input was taken */
    RK_FILTERED_BYTES,       /* *passed goes on: a part of the input, or of the filter; valid until the next call */
    RK_FILTERED_RESET,       /* a reset of an idle stream was dropped */
    RK_FILTERED_ENDED,       /* a frame begins on a stream that the client has ended: STREAM_CLOSED, nothing goes on */
    RK_FILTERED_TOO_LONG,    /* a frame begins that is longer than RK_MAX_FRAME_BYTES: FRAME_SIZE_ERROR, likewise */
    RK_FILTERED_PASSED_OVER, /* or on one that it never opened: PROTOCOL_ERROR, likewise */
};

/* At the first byte of the connection preface. */
void rk_frame_filter_init(struct rk_frame_filter *filter);

/* Takes bytes off the front of *input; call it until it says NOTHING. */
enum rk_filtered rk_frame_filter_next(struct rk_frame_filter *filter, struct rk_bytes *input, struct rk_bytes *passed);

#endif
