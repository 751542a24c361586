/* A walk over tags and lengths. Of a field that is there twice the last one counts, as for every protobuf parser. Pure;
 * any thread. */
#include "proto/rank_peek.h"

#include "proto/wire.h"

#define MAX_FIELDS 64

/* proto/rankd.proto: RankRequest, RankStreamRequest */
enum field { MODEL = 1, NUM_CANDIDATES = 6, PRIORITY = 14 };
enum stream_field { STREAM_ID = 1, STREAM_REQUEST = 2 };

bool rk_rank_peek(const uint8_t *bytes, size_t length, struct rk_rank_peek *peek)
{
    const uint8_t *at = bytes, *end = bytes + length;
    *peek = (struct rk_rank_peek){0};
    for (int fields = 0; at < end; fields++) {
        struct rk_wire_field field;
        if (fields == MAX_FIELDS || !rk_wire_next(&at, end, &field))
            return false;
        if (field.number == MODEL && field.type == RK_WIRE_LENGTH) {
            peek->model = field.bytes;
            peek->model_bytes = field.value;
        } else if (field.number == PRIORITY && field.type == RK_WIRE_LENGTH) {
            peek->priority = field.bytes;
            peek->priority_bytes = field.value;
        } else if (field.number == NUM_CANDIDATES && field.type == RK_WIRE_VARINT) {
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
        struct rk_wire_field field;
        if (fields == MAX_FIELDS || !rk_wire_next(&at, end, &field))
            return false;
        if (field.number == STREAM_ID && field.type == RK_WIRE_VARINT) {
            peek->id = field.value;
        } else if (field.number == STREAM_REQUEST && field.type == RK_WIRE_LENGTH) {
            peek->request = field.bytes;
            peek->request_bytes = field.value;
        }
    }
    return true;
}
