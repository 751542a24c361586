/* One walk over the message, which checks and copies at once; protobuf-c takes three, and a fourth checks before it.
 *
 * Only what every stock client sends is taken here: known fields, singular ones once, arrays of numbers packed and in
 * one piece, no oneof. For such messages there is one meaning, so that nothing depends on whose decoder it was; all
 * else, with every kind of damage, is left to the long way (rank_codec.c), which also knows what to say. Pure; any
 * thread. */
#include "proto/wire_decode.h"

#include <stdbool.h>
#include <string.h>

#include "proto/wire.h"

#define MAX_FIELDS 64 /* of a message type: a bit each */
#define MAX_DEPTH  16

/* A message in the making. */
struct making {
    const ProtobufCMessageDescriptor *type;
    ProtobufCMessage *message;
    struct rk_arena *arena;
    const uint8_t *at, *end;
    uint64_t seen; /* fields, bit by bit */
    unsigned next; /* the field that comes next when they come in order */
    int depth;
};

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *type, const uint8_t *at, const uint8_t *end,
                              struct rk_arena *arena, int depth);

static const ProtobufCFieldDescriptor *find_field(struct making *making, uint32_t number)
{
    const ProtobufCFieldDescriptor *fields = making->type->fields, *field;
    if (making->next < making->type->n_fields && fields[making->next].id == number)
        field = &fields[making->next];
    else if (making->next > 0 && fields[making->next - 1].id == number)
        field = &fields[making->next - 1];
    else
        field = protobuf_c_message_descriptor_get_field(making->type, number);
    if (field != NULL)
        making->next = (unsigned)(field - fields) + 1;
    return field;
}

/* ---- numbers ---- */

/* In the struct. 0: no number, or one that no message of ours has. */
static size_t number_bytes(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL:
        return 4;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    default:
        return 0;
    }
}

/* Shorter integers are the low bits; a bool is any bit. */
static void store_varint(ProtobufCType type, size_t bytes, uint64_t value, void *to)
{
    const uint32_t low = type == PROTOBUF_C_TYPE_BOOL ? value != 0 : (uint32_t)value;
    if (bytes == sizeof value)
        memcpy(to, &value, sizeof value);
    else
        memcpy(to, &low, sizeof low);
}

static bool set_number(const ProtobufCFieldDescriptor *field, const struct rk_wire_field *wire, void *member)
{
    const size_t each = number_bytes(field->type);
    if (field->label != PROTOBUF_C_LABEL_NONE || each == 0 || wire->type != rk_wire_type_of(field->type))
        return false;
    if (wire->type == RK_WIRE_VARINT)
        store_varint(field->type, each, wire->value, member);
    else
        memcpy(member, wire->bytes, each);
    return true;
}

static bool read_varints(const ProtobufCFieldDescriptor *field, size_t bytes, const struct rk_wire_field *wire,
                         size_t count, char *to)
{
    const uint8_t *at = wire->bytes, *end = at + wire->value;
    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        if (!rk_wire_varint(&at, end, &value))
            return false;
        store_varint(field->type, bytes, value, to + i * bytes);
    }
    return at == end;
}

static bool set_numbers(const ProtobufCFieldDescriptor *field, const struct rk_wire_field *wire, struct rk_arena *arena,
                        size_t *num, void **member)
{
    const size_t each = number_bytes(field->type);
    const bool varints = rk_wire_type_of(field->type) == RK_WIRE_VARINT;
    if (each == 0 || wire->type != RK_WIRE_LENGTH)
        return false;
    if (wire->value == 0)
        return true;
    size_t count = 0;
    if (varints)
        for (uint64_t i = 0; i < wire->value; i++)
            count += wire->bytes[i] < 0x80;
    else if (wire->value % each == 0)
        count = wire->value / each;
    size_t bytes;
    if (count == 0 || __builtin_mul_overflow(count, each, &bytes))
        return false;
    *member = rk_arena_alloc(arena, bytes);
    if (*member == NULL)
        return false;
    *num = count;
    if (varints)
        return read_varints(field, each, wire, count, *member);
    memcpy(*member, wire->bytes, bytes);
    return true;
}

/* ---- texts, bytes, messages ---- */

static bool is_part(ProtobufCType type)
{
    return type == PROTOBUF_C_TYPE_STRING || type == PROTOBUF_C_TYPE_BYTES || type == PROTOBUF_C_TYPE_MESSAGE;
}

static size_t part_bytes(ProtobufCType type)
{
    return type == PROTOBUF_C_TYPE_BYTES ? sizeof(ProtobufCBinaryData) : sizeof(void *);
}

static bool set_text(const struct rk_wire_field *wire, struct rk_arena *arena, void *member)
{
    if (rk_wire_text_wrong(wire->bytes, wire->value) != NULL)
        return false;
    char *text = rk_arena_string(arena, (const char *)wire->bytes, wire->value);
    memcpy(member, &text, sizeof text);
    return text != NULL;
}

static bool set_bytes(const struct rk_wire_field *wire, struct rk_arena *arena, void *member)
{
    ProtobufCBinaryData data = {.len = wire->value};
    if (data.len > 0) {
        data.data = rk_arena_alloc(arena, data.len);
        if (data.data == NULL)
            return false;
        memcpy(data.data, wire->bytes, data.len);
    }
    memcpy(member, &data, sizeof data);
    return true;
}

static bool set_message(const struct making *making, const ProtobufCFieldDescriptor *field,
                        const struct rk_wire_field *wire, void *member)
{
    ProtobufCMessage *message =
        making->depth < MAX_DEPTH
            ? make(field->descriptor, wire->bytes, wire->bytes + wire->value, making->arena, making->depth + 1)
            : NULL;
    memcpy(member, &message, sizeof message);
    return message != NULL;
}

static bool set_part(const struct making *making, const ProtobufCFieldDescriptor *field,
                     const struct rk_wire_field *wire, void *member)
{
    if (wire->type != RK_WIRE_LENGTH)
        return false;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return set_text(wire, making->arena, member);
    case PROTOBUF_C_TYPE_BYTES:
        return set_bytes(wire, making->arena, member);
    default:
        return set_message(making, field, wire, member);
    }
}

/* From the one at hand on. */
static size_t count_parts(const struct making *making, uint32_t number)
{
    const uint8_t *at = making->at;
    struct rk_wire_field wire;
    size_t count = 1;
    while (rk_wire_next(&at, making->end, &wire))
        count += wire.number == number;
    return count;
}

/* The first one makes room for all. */
static bool add_part(const struct making *making, const ProtobufCFieldDescriptor *field,
                     const struct rk_wire_field *wire, bool first, size_t *num, void **member)
{
    const size_t bytes = part_bytes(field->type);
    if (first)
        *member = rk_arena_array(making->arena, count_parts(making, field->id), bytes);
    if (*member == NULL || !set_part(making, field, wire, (char *)*member + *num * bytes))
        return false;
    ++*num;
    return true;
}

/* ---- the message ---- */

static bool take_field(struct making *making, const struct rk_wire_field *wire)
{
    const ProtobufCFieldDescriptor *field = find_field(making, wire->number);
    if (field == NULL || (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
        return false;
    const uint64_t bit = (uint64_t)1 << (field - making->type->fields);
    const bool first = (making->seen & bit) == 0;
    making->seen |= bit;
    char *start = (char *)making->message, *member = start + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t *num = (size_t *)(void *)(start + field->quantifier_offset);
        void **array = (void **)(void *)member;
        return is_part(field->type) ? add_part(making, field, wire, first, num, array)
                                    : first && set_numbers(field, wire, making->arena, num, array);
    }
    if (!first)
        return false;
    if (!is_part(field->type))
        return set_number(field, wire, member);
    return (field->label == PROTOBUF_C_LABEL_NONE || field->type == PROTOBUF_C_TYPE_MESSAGE) &&
           set_part(making, field, wire, member);
}

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *type, const uint8_t *at, const uint8_t *end,
                              struct rk_arena *arena, int depth)
{
    struct making making = {.type = type, .arena = arena, .at = at, .end = end, .depth = depth};
    if (type->n_fields > MAX_FIELDS || type->message_init == NULL)
        return NULL;
    making.message = rk_arena_alloc(arena, type->sizeof_message);
    if (making.message == NULL)
        return NULL;
    type->message_init(making.message);
    while (making.at < end) {
        struct rk_wire_field wire;
        if (!rk_wire_next(&making.at, end, &wire) || !take_field(&making, &wire))
            return NULL;
    }
    return making.message;
}

ProtobufCMessage *rk_wire_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                                 struct rk_arena *arena)
{
    static const uint8_t nothing;
    if (length == 0)
        bytes = &nothing;
    return make(type, bytes, bytes + length, arena, 0);
}
