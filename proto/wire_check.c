/* Walks the fields of a message in the order in which they arrived, and into the messages among them. Where the walk
 * stands is a chain of places on the stack, printed only when something is wrong. Pure; any thread. */
#include "proto/wire_check.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "proto/wire.h"

#define MAX_FIELDS 64 /* of one of our message types */
#define MAX_DEPTH  16 /* none of our types contains itself; this only holds future ones to that */
#define NAME_BYTES 200

/* Where a message stands in the one around it. */
struct place {
    const struct place *parent; /* NULL: the outermost message */
    const char *field;
    bool repeated;
    uint32_t index;
    int depth;
};

struct cursor {
    const uint8_t *start, *at, *end; /* start: of the outermost message */
    struct rk_error *error;
};

static size_t append(char *text, size_t used, const char *format, const char *name, uint32_t index)
{
    if (used >= NAME_BYTES)
        return used;
    int written = snprintf(text + used, NAME_BYTES - used, format, name, (unsigned)index);
    return written < 0 ? used : used + (size_t)written;
}

static size_t print_place(const struct place *place, char *text)
{
    if (place->parent == NULL)
        return 0;
    size_t used = print_place(place->parent, text);
    return append(text, used, place->repeated ? "%s[%u]." : "%s.", place->field, place->index);
}

static enum rk_status bad(const struct cursor *cursor, const struct place *place, const char *field, const char *what)
{
    char name[NAME_BYTES] = "";
    size_t used = print_place(place, name);
    append(name, used, "%s", field, 0);
    return rk_error_set(cursor->error, RK_INVALID, "%s %s (byte %zu of the message)", name, what,
                        (size_t)(cursor->at - cursor->start));
}

static bool read_varint(struct cursor *cursor, uint64_t *value)
{
    return rk_wire_varint(&cursor->at, cursor->end, value);
}

/* The length of the UTF-8 sequence at the start of text, 0 when there is none (RFC 3629: shortest form, no surrogates).
 */
static size_t utf8_sequence(const uint8_t *text, size_t length)
{
    uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || length < bytes)
        return 0;
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < bytes; i++) {
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    }
    return bytes;
}

/* Eight characters at a time, as long as all are of one byte: none has the highest bit, and where one is zero,
 * subtracting 1 from each sets it. */
static size_t plain_text(const uint8_t *text, size_t length)
{
    size_t i = 0;
    for (uint64_t word; length - i >= sizeof word; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        if (((word | (word - 0x0101010101010101)) & 0x8080808080808080) != 0)
            break;
    }
    return i;
}

const char *rk_wire_text_wrong(const uint8_t *text, size_t length)
{
    for (size_t i = plain_text(text, length); i < length;) {
        if (text[i] == 0)
            return "contains a NUL byte";
        size_t bytes = utf8_sequence(text + i, length - i);
        if (bytes == 0)
            return "is not valid UTF-8";
        i += bytes;
    }
    return NULL;
}

static enum rk_status check_packed(const struct cursor *cursor, const struct place *place,
                                   const ProtobufCFieldDescriptor *field)
{
    size_t length = (size_t)(cursor->end - cursor->at);
    enum rk_wire_type element = rk_wire_type_of(field->type);
    size_t element_bytes = element == RK_WIRE_FIXED32 ? 4 : element == RK_WIRE_FIXED64 ? 8 : 1;
    if (length % element_bytes != 0)
        return bad(cursor, place, field->name, "has a length that is no multiple of its element's");
    if (element != RK_WIRE_VARINT)
        return RK_OK;
    struct cursor values = *cursor;
    while (values.at < values.end) {
        uint64_t value;
        if (!read_varint(&values, &value))
            return bad(&values, place, field->name, "has a varint that is cut off or longer than 64 bits");
    }
    return RK_OK;
}

static enum rk_status check_message(const ProtobufCMessageDescriptor *type, struct cursor *cursor,
                                    const struct place *place);

/* cursor spans the field's content. */
static enum rk_status check_content(struct cursor *cursor, const struct place *place,
                                    const ProtobufCFieldDescriptor *field, uint32_t index)
{
    const char *wrong;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        wrong = rk_wire_text_wrong(cursor->at, (size_t)(cursor->end - cursor->at));
        return wrong == NULL ? RK_OK : bad(cursor, place, field->name, wrong);
    case PROTOBUF_C_TYPE_BYTES:
        return RK_OK;
    case PROTOBUF_C_TYPE_MESSAGE: {
        struct place inner = {place, field->name, field->label == PROTOBUF_C_LABEL_REPEATED, index, place->depth + 1};
        if (inner.depth > MAX_DEPTH)
            return bad(cursor, place, field->name, "is nested too deep");
        return check_message(field->descriptor, cursor, &inner);
    }
    default:
        return check_packed(cursor, place, field);
    }
}

/* Passes over a field's content, which `content` then spans. */
static const char *skip_content(struct cursor *cursor, unsigned wire_type, struct cursor *content)
{
    uint64_t length;
    *content = *cursor;
    switch (wire_type) {
    case RK_WIRE_VARINT:
        if (!read_varint(cursor, &length))
            return "has a varint that is cut off or longer than 64 bits";
        return NULL;
    case RK_WIRE_FIXED64:
        length = 8;
        break;
    case RK_WIRE_FIXED32:
        length = 4;
        break;
    case RK_WIRE_LENGTH:
        if (!read_varint(cursor, &length))
            return "has a length that is cut off or longer than 64 bits";
        break;
    default:
        return wire_type == 3 || wire_type == 4 ? "is a group, which proto3 does not have" : "has an unknown wire type";
    }
    if (length > (uint64_t)(cursor->end - cursor->at))
        return "is longer than what is left of its message";
    content->at = cursor->at;
    cursor->at += length;
    content->end = cursor->at;
    return NULL;
}

static enum rk_status check_message(const ProtobufCMessageDescriptor *type, struct cursor *cursor,
                                    const struct place *place)
{
    uint32_t seen[MAX_FIELDS] = {0};
    while (cursor->at < cursor->end) {
        struct cursor start = *cursor;
        uint64_t tag;
        if (!read_varint(cursor, &tag) || tag > UINT32_MAX)
            return bad(&start, place, "a field's tag", "is cut off or too long");
        if (tag >> 3 == 0)
            return bad(&start, place, "field number 0", "is not allowed");
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
        const char *name = field != NULL ? field->name : "an unknown field";
        unsigned wire_type = (unsigned)(tag & 7);
        struct cursor content;
        const char *wrong = skip_content(cursor, wire_type, &content);
        if (wrong != NULL)
            return bad(&start, place, name, wrong);
        if (field == NULL)
            continue;
        unsigned expected = rk_wire_type_of(field->type);
        bool packed = wire_type == RK_WIRE_LENGTH && field->label == PROTOBUF_C_LABEL_REPEATED;
        if (wire_type != expected && !packed)
            return bad(&start, place, name, "has the wrong wire type: the caller was built from another rankd.proto");
        if (wire_type != RK_WIRE_LENGTH)
            continue;
        size_t slot = (size_t)(field - type->fields) % MAX_FIELDS;
        enum rk_status status = check_content(&content, place, field, seen[slot]++);
        if (status != RK_OK)
            return status;
    }
    return RK_OK;
}

enum rk_status rk_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                             struct rk_error *error)
{
    static const uint8_t nothing;
    if (length == 0)
        bytes = &nothing;
    struct cursor cursor = {.start = bytes, .at = bytes, .end = bytes + length, .error = error};
    const struct place outermost = {0};
    return check_message(type, &cursor, &outermost);
}
