/* The short way to a message and protobuf-c's agree: on messages of every type that a server decodes, made at random as
 * stock clients write them, then damaged. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/inference.pb-c.h"
#include "proto/predictor.pb-c.h"
#include "proto/rankd.pb-c.h"
#include "proto/wire.h"
#include "proto/wire_check.h"
#include "proto/wire_decode.h"
#include "tests/unit/random.h"

enum { MAX_BYTES = 1 << 16, MAX_DEPTH = 4 };

static const ProtobufCMessageDescriptor *const types[] = {
    &rankd__v1__rank_request__descriptor,
    &rankd__v1__rank_response__descriptor,
    &rankd__v1__rank_stream_request__descriptor,
    &rankd__v1__status_response__descriptor,
    &inference__model_infer_request__descriptor,
    &inference__model_infer_response__descriptor,
    &inference__repository_index_request__descriptor,
    &predictor__prediction_request__descriptor,
};
enum { NUM_TYPES = sizeof types / sizeof *types };

static struct random source;
static struct rk_arena arena;

static void init(void)
{
    source = random_from_seed();
    rk_arena_init(&arena, 4096);
}

static void deinit(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(wire_decode, .init = init, .fini = deinit, .timeout = 60);

/* ---- messages at random ---- */

struct text {
    uint8_t bytes[MAX_BYTES];
    size_t length;
};

static void put(struct text *text, const void *bytes, size_t length)
{
    if (length > MAX_BYTES - text->length)
        length = MAX_BYTES - text->length; /* cut off: damage of its own kind */
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

static void put_varint(struct text *text, uint64_t value)
{
    do {
        const uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        put(text, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static uint64_t some_value(void)
{
    return random_next(&source) >> random_below(&source, 64);
}

static void put_number(struct text *text, enum rk_wire_type type)
{
    const uint64_t value = some_value();
    if (type == RK_WIRE_VARINT)
        put_varint(text, value);
    else
        put(text, &value, type == RK_WIRE_FIXED32 ? 4 : 8);
}

static void put_message(struct text *text, const ProtobufCMessageDescriptor *type, int depth, bool stock);

static void put_part(struct text *text, const ProtobufCFieldDescriptor *field, int depth, bool stock)
{
    static const char *const texts[] = {"", "a", "gam\xc3\xa9", "feature_12", "eight888", "\xe2\x82\xac and more text"};
    struct text *inner = calloc(1, sizeof *inner);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE && depth < MAX_DEPTH) {
        put_message(inner, field->descriptor, depth + 1, stock);
    } else if (field->type != PROTOBUF_C_TYPE_MESSAGE) {
        const char *words = texts[random_below(&source, sizeof texts / sizeof *texts)];
        put(inner, words, strlen(words));
    }
    put_varint(text, inner->length);
    put(text, inner->bytes, inner->length);
    free(inner);
}

static void put_field(struct text *text, const ProtobufCFieldDescriptor *field, int depth, bool stock)
{
    const enum rk_wire_type type = rk_wire_type_of(field->type);
    const bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    uint64_t count = repeated ? random_below(&source, 5) : 1;
    if (!stock && random_below(&source, 20) == 0)
        count = 2;
    if (repeated && type != RK_WIRE_LENGTH && (stock || random_below(&source, 20) > 0)) {
        struct text *array = calloc(1, sizeof *array);
        for (; count > 0; count--)
            put_number(array, type);
        put_varint(text, (uint64_t)field->id << 3 | RK_WIRE_LENGTH);
        put_varint(text, array->length);
        put(text, array->bytes, array->length);
        free(array);
        return;
    }
    for (; count > 0; count--) {
        put_varint(text, (uint64_t)field->id << 3 | type);
        if (type == RK_WIRE_LENGTH)
            put_part(text, field, depth, stock);
        else
            put_number(text, type);
    }
}

/* `stock`: as every client writes it. Else once in a while fields come twice, arrays in pieces, or unknown fields. */
static void put_message(struct text *text, const ProtobufCMessageDescriptor *type, int depth, bool stock)
{
    for (unsigned f = 0; f < type->n_fields; f++) {
        const ProtobufCFieldDescriptor *field = &type->fields[f];
        if (random_below(&source, 3) == 0 || (stock && (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0))
            continue;
        put_field(text, field, depth, stock);
        if (!stock && random_below(&source, 30) == 0) {
            put_varint(text, random_between(&source, 1, 40) << 3 | RK_WIRE_VARINT);
            put_varint(text, some_value());
        }
    }
}

/* ---- both ways ---- */

/* True when the short way was taken. */
static bool compare(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length)
{
    uint8_t *exact = malloc(length); /* of its size, for sanitizers */
    if (length > 0)
        memcpy(exact, bytes, length);
    rk_arena_reset(&arena, SIZE_MAX);
    ProtobufCMessage *ours = rk_wire_decode(type, exact, length, &arena);
    if (ours != NULL) {
        struct rk_error error = {0};
        cr_assert(eq(int, rk_wire_check(type, exact, length, &error), RK_OK), "%s: taken, though %s", type->name,
                  error.text);
        ProtobufCMessage *theirs = protobuf_c_message_unpack(type, NULL, length, exact);
        cr_assert(theirs != NULL, "%s: taken, though protobuf-c refuses it", type->name);
        const size_t packed = protobuf_c_message_get_packed_size(theirs);
        cr_assert(eq(sz, protobuf_c_message_get_packed_size(ours), packed), "%s", type->name);
        uint8_t *mine = malloc(packed + 1), *reference = malloc(packed + 1);
        protobuf_c_message_pack(ours, mine);
        protobuf_c_message_pack(theirs, reference);
        cr_assert(memcmp(mine, reference, packed) == 0, "%s: another message came out", type->name);
        free(mine);
        free(reference);
        protobuf_c_message_free_unpacked(theirs, NULL);
    }
    free(exact);
    return ours != NULL;
}

Test(wire_decode, what_stock_clients_write_takes_the_short_way)
{
    struct text *text = malloc(sizeof *text);
    for (int round = 0; round < 400; round++) {
        const ProtobufCMessageDescriptor *type = types[round % NUM_TYPES];
        text->length = 0;
        put_message(text, type, 0, true);
        cr_assert(compare(type, text->bytes, text->length), "%s of %zu bytes did not take it", type->name,
                  text->length);
    }
    cr_assert(compare(types[0], NULL, 0), "nor did an empty one");
    free(text);
}

Test(wire_decode, what_is_odd_or_damaged_is_never_taken_for_something_else)
{
    struct text *text = malloc(sizeof *text);
    uint64_t taken = 0, left = 0;
    for (int round = 0; round < 4000; round++) {
        const ProtobufCMessageDescriptor *type = types[round % NUM_TYPES];
        text->length = 0;
        put_message(text, type, 0, random_below(&source, 2) == 0);
        for (uint64_t n = random_below(&source, 3); n > 0 && text->length > 0; n--)
            text->bytes[random_below(&source, text->length)] ^= (uint8_t)(1u << random_below(&source, 8));
        if (random_below(&source, 4) == 0)
            text->length = random_below(&source, text->length + 1);
        *(compare(type, text->bytes, text->length) ? &taken : &left) += 1;
    }
    cr_expect(gt(u64, taken, 100), "hardly any message was taken: the comparison says little");
    cr_expect(gt(u64, left, 100), "hardly any message was left");
    free(text);
}

Test(wire_decode, what_other_parsers_refuse_is_left_to_the_long_way)
{
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        {"\x90\x80\x80\x80\x80\x00\x01", 7},  /* version: 1, its tag in 6 bytes */
        {"\x0a\x81\x80\x80\x80\x80\x00m", 8}, /* model: "m", its length likewise */
        {"\x10\x01\x10\x01", 4},              /* version twice */
        {"\xf8\x07\x01", 3},                  /* a field that there is not */
        {"\x0a\x01\x00", 3},                  /* NUL in a text */
        {"\x0a\x02\xc3\x28", 4},              /* no UTF-8 */
        {"\x0b\x0c", 2},                      /* a group */
        {"\x39\1\0\0\0\0\0\0\0", 9},          /* candidate_ids: 1, not packed */
        {"\x3a\x07\0\0\0\0\0\0\0", 9},        /* candidate_ids of seven bytes */
        {"\x22\x00\x22\x00", 4},              /* context twice */
        {"\x2a\x03\x12\x02\x0a", 5},          /* a message that ends in a field */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect(not(compare(types[0], (const uint8_t *)cases[i].bytes, cases[i].length)), "case %zu", i);
}

Test(wire_decode, memory_that_ends_anywhere_is_no_message)
{
    struct text *text = malloc(sizeof *text);
    put_message((text->length = 0, text), types[0], 0, true);
    cr_assert(compare(types[0], text->bytes, text->length));
    const size_t needed = arena.used_bytes;
    for (size_t limit = 0; limit < needed; limit += 16) {
        rk_arena_reset(&arena, SIZE_MAX);
        rk_arena_limit(&arena, limit);
        cr_assert(rk_wire_decode(types[0], text->bytes, text->length, &arena) == NULL, "%zu of %zu bytes were enough",
                  limit, needed);
    }
    free(text);
}
