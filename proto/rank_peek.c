/* A walk over tags and lengths. Of a field that is there twice the last one counts, as for every protobuf parser. Pure;
 * any thread. */
#include "proto/rank_peek.h"

#define MAX_FIELDS       64
#define MAX_VARINT_BYTES 10

/* proto/rankd.proto: RankRequest, RankStreamRequest */
enum field { MODEL = 1, NUM_CANDIDATES = 6, PRIORITY = 14 };
enum stream_field { STREAM_ID = 1, STREAM_REQUEST = 2 };
enum wire_type { VARINT = 0, FIXED64 = 1, LENGTH_DELIMITED = 2, FIXED32 = 5 };

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (int i = 0; i < MAX_VARINT_BYTES && *at < end; i++) {
        const uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* A field: what a varint says, or the bytes that follow. */
struct content {
    uint64_t tag, value;
    const uint8_t *bytes; /* [value] of what has a length */
};

/* Passes over the next field; false: it is none. */
static bool next_field(const uint8_t **at, const uint8_t *end, struct content *field)
{
    *field = (struct content){0};
    if (!read_varint(at, end, &field->tag))
        return false;
    const unsigned type = field->tag & 7;
    if ((type == VARINT || type == LENGTH_DELIMITED) && !read_varint(at, end, &field->value))
        return false;
    const uint64_t skip = type == FIXED64 ? 8 : type == FIXED32 ? 4 : type == LENGTH_DELIMITED ? field->value : 0;
    if ((type != VARINT && type != FIXED64 && type != LENGTH_DELIMITED && type != FIXED32) ||
        skip > (uint64_t)(end - *at))
        return false;
    field->bytes = *at;
    *at += skip;
    return true;
}

bool rk_rank_peek(const uint8_t *bytes, size_t length, struct rk_rank_peek *peek)
{
    const uint8_t *at = bytes, *end = bytes + length;
    *peek = (struct rk_rank_peek){0};
    for (int fields = 0; at < end; fields++) {
        struct content field;
        if (fields == MAX_FIELDS || !next_field(&at, end, &field))
            return false;
        if (field.tag == (MODEL << 3 | LENGTH_DELIMITED)) {
            peek->model = field.bytes;
            peek->model_bytes = field.value;
        } else if (field.tag == (PRIORITY << 3 | LENGTH_DELIMITED)) {
            peek->priority = field.bytes;
            peek->priority_bytes = field.value;
        } else if (field.tag == (NUM_CANDIDATES << 3 | VARINT)) {
            peek->num_candidates = (uint32_t)field.value;
        }
    }
    return true;
}

bool rk_rank_stream_peek(const uint8_t *bytes, size_t length, struct rk_rank_stream_peek *peek)
{
    const uint8_t *at = bytes, *end = bytes + length;
    *peek = (struct rk_rank_stream_peek){0};
    for (int fields = 0; at < end; fields++) {
        struct content field;
        if (fields == MAX_FIELDS || !next_field(&at, end, &field))
            return false;
        if (field.tag == (STREAM_ID << 3 | VARINT)) {
            peek->id = field.value;
        } else if (field.tag == (STREAM_REQUEST << 3 | LENGTH_DELIMITED)) {
            peek->request = field.bytes;
            peek->request_bytes = field.value;
        }
    }
    return true;
}
