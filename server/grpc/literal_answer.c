/* HPACK (RFC 7541) by hand: indexed fields of the static table, and literals that are not indexed and not Huffman-coded
 * (sections 6.1 and 6.2.2). Any thread. */
#include "server/grpc/literal_answer.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <string.h>

#include "server/grpc/text.h"

#define FRAME_HEADER_BYTES  9
#define STATIC_STATUS_200   8 /* places in the static table */
#define STATIC_CONTENT_TYPE 31
#define MAX_MESSAGE_BYTES   4096 /* encoded, it fits the smallest frame limit that a peer may set, 16384 */
#define LENGTH_PREFIX_BITS  7
#define NAME_PREFIX_BITS    4

/* An integer with the given bits free in its first byte (section 5.1). */
static uint8_t *put_integer(uint8_t *to, unsigned prefix_bits, size_t value)
{
    size_t full = ((size_t)1 << prefix_bits) - 1;
    if (value < full) {
        *to++ = (uint8_t)value;
        return to;
    }
    *to++ = (uint8_t)full;
    for (value -= full; value >= 128; value >>= 7)
        *to++ = (uint8_t)(value | 128);
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *put_text(uint8_t *to, const char *text, size_t length)
{
    to = put_integer(to, LENGTH_PREFIX_BITS, length);
    memcpy(to, text, length);
    return to + length;
}

static uint8_t *put_name(uint8_t *to, const char *name)
{
    to = put_integer(to, NAME_PREFIX_BITS, 0);
    return put_text(to, name, strlen(name));
}

static uint8_t *put_message(uint8_t *to, const char *message, size_t length)
{
    /* Encoded where the length would begin if it took no room, then moved behind the length. */
    size_t encoded = rk_percent_encode(message, length, (char *)to);
    uint8_t size[8];
    size_t size_bytes = (size_t)(put_integer(size, LENGTH_PREFIX_BITS, encoded) - size);
    memmove(to + size_bytes, to, encoded);
    memcpy(to, size, size_bytes);
    return to + size_bytes + encoded;
}

size_t rk_literal_answer_print(uint8_t *frame, int32_t stream_id, enum rk_grpc_status status, const char *message)
{
    size_t message_bytes = strlen(message);
    assert(message_bytes <= MAX_MESSAGE_BYTES);
    uint8_t *at = frame + FRAME_HEADER_BYTES;
    *at++ = 0x80 | STATIC_STATUS_200;
    at = put_integer(at, NAME_PREFIX_BITS, STATIC_CONTENT_TYPE);
    at = put_text(at, "application/grpc", strlen("application/grpc"));
    at = put_name(at, "grpc-status");
    const char digits[2] = {(char)('0' + status / 10), (char)('0' + status % 10)};
    at = status < 10 ? put_text(at, digits + 1, 1) : put_text(at, digits, 2);
    at = put_name(at, "grpc-message");
    at = put_message(at, message, message_bytes);

    size_t payload = (size_t)(at - frame) - FRAME_HEADER_BYTES;
    uint32_t id = (uint32_t)stream_id;
    const uint8_t header[FRAME_HEADER_BYTES] = {(uint8_t)(payload >> 16),
                                                (uint8_t)(payload >> 8),
                                                (uint8_t)payload,
                                                NGHTTP2_HEADERS,
                                                NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM,
                                                (uint8_t)(id >> 24),
                                                (uint8_t)(id >> 16),
                                                (uint8_t)(id >> 8),
                                                (uint8_t)id};
    memcpy(frame, header, sizeof header);
    return (size_t)(at - frame);
}
