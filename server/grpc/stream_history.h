/* What a client itself has said about its streams: opened by HEADERS; ended by END_STREAM or RST_STREAM. More frames on
 * a stream that it has ended, or on one that it passed over, are its own fault, whatever became of the stream on our
 * side (RFC 9113, sections 5.1 and 5.1.1). nghttp2 cannot tell these from frames that crossed a reset of ours, and
 * passes over both. Plain data, no allocation; the session's thread. */
#ifndef RANKD_SERVER_GRPC_STREAM_HISTORY_H
#define RANKD_SERVER_GRPC_STREAM_HISTORY_H

#include <stdint.h>

#define RK_HISTORY_STREAMS 1024 /* so many of the highest are known */
#define RK_HISTORY_WORDS   (RK_HISTORY_STREAMS / 64)

struct rk_stream_history {
    uint32_t last_stream_id;           /* the highest that was opened; 0: none */
    uint64_t opened[RK_HISTORY_WORDS]; /* bits by (stream id / 2) % RK_HISTORY_STREAMS */
    uint64_t ended[RK_HISTORY_WORDS];
};

enum rk_stream_past {
    RK_STREAM_UNKNOWN, /* none of the client's, or of long ago */
    RK_STREAM_IDLE,    /* higher than all that were opened */
    RK_STREAM_PASSED_OVER,
    RK_STREAM_OPEN,
    RK_STREAM_ENDED,
};

enum rk_stream_past rk_stream_history_look(const struct rk_stream_history *history, uint32_t stream_id);

/* An idle stream is opened; those below it that were idle are passed over. */
void rk_stream_history_open(struct rk_stream_history *history, uint32_t stream_id);

/* Of streams that are not open it changes nothing. */
void rk_stream_history_end(struct rk_stream_history *history, uint32_t stream_id);

#endif
