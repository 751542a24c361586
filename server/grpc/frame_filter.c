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

/* Not the client's, or open before: then a frame does not concern an idle stream of its own. */
static bool is_new(const struct rk_frame_filter *filter, uint32_t stream_id)
{
    return stream_id % 2 == 1 && stream_id > filter->last_stream_id;
}

static bool resets_idle_stream(const struct rk_frame_filter *filter, const uint8_t *header)
{
    return header[3] == NGHTTP2_RST_STREAM && length_of(header) == RESET_CODE_BYTES && !filter->in_header_block &&
           filter->last_stream_id > 0 && is_new(filter, stream_id_of(header));
}

/* How many bytes of the frame that begins here must be seen at once, as far as those that are there tell. */
static size_t needed(const struct rk_frame_filter *filter, const uint8_t *frame, size_t available)
{
    bool reset = available >= FRAME_HEADER_BYTES && resets_idle_stream(filter, frame);
    return reset ? RK_RESET_FRAME_BYTES : FRAME_HEADER_BYTES;
}

/* A frame goes on: what its header says about the frames after it. */
static void begin_frame(struct rk_frame_filter *filter, const uint8_t *header)
{
    filter->passing = length_of(header);
    uint8_t type = header[3];
    if (type == NGHTTP2_HEADERS || type == NGHTTP2_PUSH_PROMISE || type == NGHTTP2_CONTINUATION)
        filter->in_header_block = (header[4] & NGHTTP2_FLAG_END_HEADERS) == 0;
    if (type == NGHTTP2_HEADERS && is_new(filter, stream_id_of(header)))
        filter->last_stream_id = stream_id_of(header);
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
    if (whole == RK_RESET_FRAME_BYTES)
        return RK_FILTERED_RESET;
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
        if (left < FRAME_HEADER_BYTES || resets_idle_stream(filter, input->at + at))
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
    if (input->length >= needed(filter, input->at, input->length)) {
        advance(input, RK_RESET_FRAME_BYTES); /* what goes on, walk has taken */
        return RK_FILTERED_RESET;
    }
    memcpy(filter->held, input->at, input->length);
    filter->held_bytes = (uint8_t)input->length;
    advance(input, input->length);
    return RK_FILTERED_NOTHING;
}
