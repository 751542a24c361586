/* The stream of bytes is [preface: 24] ([length: 3][type: 1][flags: 1][stream id: 4][payload: length]) ..., cut
 * anywhere. As many whole frames as there are go on in one piece; only a frame header that a cut splits is copied, and
 * held back until it is whole: nghttp2 could do nothing with a part of it, either. The session's thread. */
#include "server/grpc/frame_filter.h"

#include <nghttp2/nghttp2.h>
#include <string.h>

#define FRAME_HEADER_BYTES 9
#define RESET_CODE_BYTES   (RK_RESET_FRAME_BYTES - FRAME_HEADER_BYTES)

void rk_frame_filter_init(struct rk_frame_filter *filter)
{
    *filter = (struct rk_frame_filter){.passing = NGHTTP2_CLIENT_MAGIC_LEN};
}

static uint32_t length_of(const uint8_t *header)
{
    return (uint32_t)header[0] << 16 | (uint32_t)header[1] << 8 | header[2];
}

static uint32_t stream_id_of(const uint8_t *header)
{
    return ((uint32_t)header[5] << 24 | (uint32_t)header[6] << 16 | (uint32_t)header[7] << 8 | header[8]) & INT32_MAX;
}

/* What is to happen to the frame with this header. Inside a header block nghttp2 allows nothing but its continuation.
 */
static enum rk_filtered judge(const struct rk_frame_filter *filter, const uint8_t *header)
{
    uint8_t type = header[3];
    if (length_of(header) > RK_MAX_FRAME_BYTES)
        return RK_FILTERED_TOO_LONG;
    if (filter->in_header_block || (type != NGHTTP2_DATA && type != NGHTTP2_HEADERS && type != NGHTTP2_RST_STREAM))
        return RK_FILTERED_BYTES;
    enum rk_stream_past past = rk_stream_history_look(&filter->history, stream_id_of(header));
    if (type == NGHTTP2_RST_STREAM) {
        bool drop =
            past == RK_STREAM_IDLE && filter->history.last_stream_id > 0 && length_of(header) == RESET_CODE_BYTES;
        return drop ? RK_FILTERED_RESET : RK_FILTERED_BYTES;
    }
    return past == RK_STREAM_ENDED         ? RK_FILTERED_ENDED
           : past == RK_STREAM_PASSED_OVER ? RK_FILTERED_PASSED_OVER
                                           : RK_FILTERED_BYTES;
}

/* How many bytes of the frame that begins here must be seen at once, as far as those that are there tell. */
static size_t needed(const struct rk_frame_filter *filter, const uint8_t *frame, size_t available)
{
    bool reset = available >= FRAME_HEADER_BYTES && judge(filter, frame) == RK_FILTERED_RESET;
    return reset ? RK_RESET_FRAME_BYTES : FRAME_HEADER_BYTES;
}

/* A frame goes on: what its header says about the frames after it. */
static void begin_frame(struct rk_frame_filter *filter, const uint8_t *header)
{
    filter->passing = length_of(header);
    const uint8_t type = header[3], flags = header[4];
    const uint32_t stream_id = stream_id_of(header);
    if (type == NGHTTP2_HEADERS && !filter->in_header_block &&
        rk_stream_history_look(&filter->history, stream_id) == RK_STREAM_IDLE)
        rk_stream_history_open(&filter->history, stream_id);
    filter->short_data += type == NGHTTP2_DATA && filter->passing < RK_SHORT_DATA_BYTES;
    bool may_end = type == NGHTTP2_HEADERS || type == NGHTTP2_DATA;
    if (type == NGHTTP2_RST_STREAM || (may_end && (flags & NGHTTP2_FLAG_END_STREAM) != 0))
        rk_stream_history_end(&filter->history, stream_id);
    if (type == NGHTTP2_HEADERS || type == NGHTTP2_PUSH_PROMISE || type == NGHTTP2_CONTINUATION)
        filter->in_header_block = (flags & NGHTTP2_FLAG_END_HEADERS) == 0;
}

static void advance(struct rk_bytes *input, size_t length)
{
    input->at += length;
    input->length -= length;
}

static enum rk_filtered complete_held(struct rk_frame_filter *filter, struct rk_bytes *input, struct rk_bytes *passed)
{
    size_t whole;
    while (filter->held_bytes < (whole = needed(filter, filter->held, filter->held_bytes))) {
        if (input->length == 0)
            return RK_FILTERED_NOTHING;
        filter->held[filter->held_bytes++] = input->at[0];
        advance(input, 1);
    }
    filter->held_bytes = 0;
    enum rk_filtered verdict = judge(filter, filter->held);
    if (verdict != RK_FILTERED_BYTES)
        return verdict;
    begin_frame(filter, filter->held);
    *passed = (struct rk_bytes){filter->held, FRAME_HEADER_BYTES};
    return RK_FILTERED_BYTES;
}

/* Walks over the frames that go on; returns how many bytes of the input that is. */
static size_t walk(struct rk_frame_filter *filter, const struct rk_bytes *input)
{
    size_t at = 0;
    while (at < input->length) {
        size_t left = input->length - at;
        if (filter->passing > 0) {
            size_t part = left < filter->passing ? left : filter->passing;
            filter->passing -= (uint32_t)part;
            at += part;
            continue;
        }
        if (left < FRAME_HEADER_BYTES || judge(filter, input->at + at) != RK_FILTERED_BYTES)
            break;
        begin_frame(filter, input->at + at);
        at += FRAME_HEADER_BYTES;
    }
    return at;
}

enum rk_filtered rk_frame_filter_next(struct rk_frame_filter *filter, struct rk_bytes *input, struct rk_bytes *passed)
{
    if (filter->held_bytes > 0)
        return complete_held(filter, input, passed);
    *passed = (struct rk_bytes){input->at, walk(filter, input)};
    if (passed->length > 0) {
        advance(input, passed->length);
        return RK_FILTERED_BYTES;
    }
    if (input->length == 0)
        return RK_FILTERED_NOTHING;
    size_t whole = needed(filter, input->at, input->length);
    if (input->length >= whole) { /* what goes on, walk has taken */
        enum rk_filtered verdict = judge(filter, input->at);
        advance(input, whole);
        return verdict;
    }
    memcpy(filter->held, input->at, input->length);
    filter->held_bytes = (uint8_t)input->length;
    advance(input, input->length);
    return RK_FILTERED_NOTHING;
}
