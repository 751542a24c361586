/* Fields as they lie in an encoded message. Source: https://protobuf.dev/programming-guides/encoding/ */
#ifndef RANKD_PROTO_WIRE_H
#define RANKD_PROTO_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RK_WIRE_MAX_VARINT_BYTES 10
#define RK_WIRE_MAX_LENGTH_BYTES 5 /* of tags and lengths, as other parsers have it */

enum rk_wire_type { RK_WIRE_VARINT = 0, RK_WIRE_FIXED64 = 1, RK_WIRE_LENGTH = 2, RK_WIRE_FIXED32 = 5 };

struct rk_wire_field {
    uint32_t number; /* at least 1 */
    enum rk_wire_type type;
    uint64_t value;       /* of a varint; else the length of */
    const uint8_t *bytes; /* NULL of a varint */
};

/* Moves *at behind a varint; false where it is cut off or longer than 64 bits, and *at may be anywhere in it then. */
static inline bool rk_wire_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    if (*at < end && **at < 0x80) {
        *value = *(*at)++;
        return true;
    }
    *value = 0;
    for (int i = 0; i < RK_WIRE_MAX_VARINT_BYTES && *at < end; i++) {
        const uint8_t byte = *(*at)++;
        if (i == RK_WIRE_MAX_VARINT_BYTES - 1 && byte > 1)
            return false; /* past 64 bits */
        *value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* Likewise, of a tag or a length. */
static inline bool rk_wire_length(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    if (end - *at > RK_WIRE_MAX_LENGTH_BYTES)
        end = *at + RK_WIRE_MAX_LENGTH_BYTES;
    return rk_wire_varint(at, end, value) && *value <= UINT32_MAX;
}

/* Moves *at behind the next field, all of which lies before `end`; false: there is none that is well formed. */
static inline bool rk_wire_next(const uint8_t **at, const uint8_t *end, struct rk_wire_field *field)
{
    uint64_t tag;
    if (!rk_wire_length(at, end, &tag) || tag >> 3 == 0)
        return false;
    *field = (struct rk_wire_field){.number = (uint32_t)(tag >> 3), .type = (enum rk_wire_type)(tag & 7)};
    switch (field->type) {
    case RK_WIRE_VARINT:
        return rk_wire_varint(at, end, &field->value);
    case RK_WIRE_LENGTH:
        if (!rk_wire_length(at, end, &field->value))
            return false;
        break;
    case RK_WIRE_FIXED64:
        field->value = 8;
        break;
    case RK_WIRE_FIXED32:
        field->value = 4;
        break;
    default:
        return false;
    }
    if (field->value > (uint64_t)(end - *at))
        return false;
    field->bytes = *at;
    *at += field->value;
    return true;
}

/* How one value of a field of this type lies there; several numbers may lie packed in one RK_WIRE_LENGTH. */
static inline enum rk_wire_type rk_wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return RK_WIRE_FIXED32;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return RK_WIRE_FIXED64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return RK_WIRE_LENGTH;
    default:
        return RK_WIRE_VARINT;
    }
}

/* What is wrong with a string's content, NULL for nothing. */
const char *rk_wire_text_wrong(const uint8_t *text, size_t length);

#endif
