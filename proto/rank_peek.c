/* A walk over tags and lengths. Of a field that is there twice the last one counts, as for every protobuf parser. Pure;
 * any thread. */
#include "proto/rank_peek.h"

#define MAX_FIELDS       64
#define MAX_VARINT_BYTES 10

enum field { MODEL = 1, NUM_CANDIDATES = 6, PRIORITY = 14 }; /* proto/rankd.proto: RankRequest */
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

bool rk_rank_peek(const uint8_t *bytes, size_t length, struct rk_rank_peek *peek)
{
    const uint8_t *at = bytes, *end = bytes + length;
    *peek = (struct rk_rank_peek){0};
    for (int fields = 0; at < end; fields++) {
        uint64_t tag, value = 0;
        if (fields == MAX_FIELDS || !read_varint(&at, end, &tag))
            return false;
        const unsigned type = tag & 7;
        if ((type == VARINT || type == LENGTH_DELIMITED) && !read_varint(&at, end, &value))
            return false;
        const uint64_t skip = type == FIXED64 ? 8 : type == FIXED32 ? 4 : type == LENGTH_DELIMITED ? value : 0;
        if ((type != VARINT && type != FIXED64 && type != LENGTH_DELIMITED && type != FIXED32) ||
            skip > (uint64_t)(end - at))
            return false;
        if (tag == (MODEL << 3 | LENGTH_DELIMITED)) {
            peek->model = at;
            peek->model_bytes = value;
        } else if (tag == (PRIORITY << 3 | LENGTH_DELIMITED)) {
            peek->priority = at;
            peek->priority_bytes = value;
        } else if (tag == (NUM_CANDIDATES << 3 | VARINT)) {
            peek->num_candidates = (uint32_t)value;
        }
        at += skip;
    }
    return true;
}
