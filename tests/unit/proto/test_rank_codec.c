/* Requests survive the way there and back, and what they may cost in memory is bounded. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/rank_codec.h"

static struct rk_arena arena;

static void init(void)
{
    rk_arena_init(&arena, 4096);
}

static void deinit(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(rank_codec, .init = init, .fini = deinit);

Test(rank_codec, a_request_goes_there_and_back)
{
    int64_t ids[] = {3, INT64_MIN, INT64_MAX};
    uint32_t lengths[] = {1, 0, 2};
    float weights[] = {0.5f, -1.0f, 2.0f}, dense[] = {1, 2, 3};
    Rankd__V1__JaggedIds jagged = RANKD__V1__JAGGED_IDS__INIT, *features[] = {&jagged};
    jagged.feature = (char *)"gam\xc3\xa9";
    jagged.ids = ids, jagged.n_ids = 3;
    jagged.lengths = lengths, jagged.n_lengths = 3;
    jagged.weights = weights, jagged.n_weights = 3;
    Rankd__V1__Features candidates = RANKD__V1__FEATURES__INIT;
    candidates.dense = dense, candidates.n_dense = 3;
    candidates.ids = features, candidates.n_ids = 1;
    Rankd__V1__RankRequest request = RANKD__V1__RANK_REQUEST__INIT, *decoded;
    request.model = (char *)"steam";
    request.candidates = &candidates;
    request.num_candidates = 3;
    uint8_t *bytes;
    size_t length;
    struct rk_error error = {0};
    cr_assert(eq(int, rk_message_encode(&request.base, &arena, &bytes, &length), RK_OK));
    cr_assert(eq(int, rk_rank_request_decode(bytes, length, &arena, &decoded, &error), RK_OK), "%s", error.text);
    cr_expect(eq(str, decoded->model, "steam"));
    cr_expect(decoded->context == NULL);
    cr_assert(eq(sz, decoded->candidates->n_ids, 1));
    const Rankd__V1__JaggedIds *back = decoded->candidates->ids[0];
    cr_expect(eq(str, back->feature, jagged.feature));
    cr_assert(eq(sz, back->n_ids, 3));
    cr_expect(memcmp(back->ids, ids, sizeof ids) == 0);
    cr_expect(memcmp(back->lengths, lengths, sizeof lengths) == 0);
    cr_expect(memcmp(back->weights, weights, sizeof weights) == 0);
    cr_expect(eq(sz, (uintptr_t)back->ids % 16, 0));
    cr_expect(eq(sz, arena.limit_bytes, SIZE_MAX), "the arena's own limit is back");
}

Test(rank_codec, no_bytes_are_an_empty_request)
{
    Rankd__V1__RankRequest *request;
    struct rk_error error = {0};
    cr_assert(eq(int, rk_rank_request_decode(NULL, 0, &arena, &request, &error), RK_OK), "%s", error.text);
    cr_expect(eq(str, request->model, ""));
}

static void expect_exhausted(const uint8_t *unit, size_t unit_bytes)
{
    size_t count = 1000000, length = count * unit_bytes;
    uint8_t *bytes = malloc(length);
    for (size_t i = 0; i < count; i++)
        memcpy(bytes + i * unit_bytes, unit, unit_bytes);
    Rankd__V1__RankRequest *request;
    struct rk_error error = {0};
    cr_expect(eq(int, rk_rank_request_decode(bytes, length, &arena, &request, &error), RK_EXHAUSTED), "%s", error.text);
    cr_expect(strstr(error.text, "submessages") != NULL, "%s", error.text);
    cr_expect(request == NULL);
    cr_expect(le(sz, arena.used_bytes, RK_DECODE_MEMORY_FACTOR * length + RK_DECODE_MEMORY_BYTES));
    free(bytes);
}

Test(rank_codec, a_million_unknown_fields_are_too_much)
{
    expect_exhausted((const uint8_t *)"\xf8\x07\x01", 3);
}

Test(rank_codec, a_million_empty_submessages_are_too_much)
{
    static uint8_t bytes[2000006] = {0x2a, 0x80, 0x89, 0x7a}; /* candidates of 2,000,000 bytes */
    for (size_t i = 4; i + 1 < 2000004; i += 2)
        bytes[i] = 0x12, bytes[i + 1] = 0;
    Rankd__V1__RankRequest *request;
    struct rk_error error = {0};
    cr_expect(eq(int, rk_rank_request_decode(bytes, 2000004, &arena, &request, &error), RK_EXHAUSTED), "%s",
              error.text);
    cr_expect(le(sz, arena.used_bytes, RK_DECODE_MEMORY_FACTOR * sizeof bytes + RK_DECODE_MEMORY_BYTES));
}

Test(rank_codec, repeated_contexts_cannot_grow_without_end)
{
    /* protobuf-c merges them and copies what it has each time. */
    enum { PART = 6 + 4096, COUNT = 400 };
    uint8_t *bytes = calloc(COUNT, PART);
    for (size_t i = 0; i < COUNT; i++) {
        const uint8_t head[] = {0x22, 0x83, 0x20, 0x0a, 0x80, 0x20}; /* context { dense: [1024] } */
        memcpy(bytes + i * PART, head, sizeof head);
    }
    Rankd__V1__RankRequest *request;
    struct rk_error error = {0};
    cr_expect(eq(int, rk_rank_request_decode(bytes, (size_t)COUNT * PART, &arena, &request, &error), RK_EXHAUSTED),
              "%s", error.text);
    free(bytes);
}

Test(rank_codec, thousands_of_tiny_features_fit)
{
    Rankd__V1__Features context = RANKD__V1__FEATURES__INIT;
    enum { COUNT = 4096 };
    static Rankd__V1__JaggedIds jagged[COUNT], *features[COUNT];
    static char names[COUNT][16];
    int64_t id = 7;
    for (int f = 0; f < COUNT; f++) {
        rankd__v1__jagged_ids__init(&jagged[f]);
        snprintf(names[f], sizeof names[f], "f%d", f);
        jagged[f].feature = names[f];
        jagged[f].ids = &id, jagged[f].n_ids = 1;
        features[f] = &jagged[f];
    }
    context.ids = features, context.n_ids = COUNT;
    Rankd__V1__RankRequest request = RANKD__V1__RANK_REQUEST__INIT, *decoded;
    request.context = &context;
    uint8_t *bytes;
    size_t length;
    struct rk_error error = {0};
    cr_assert(eq(int, rk_message_encode(&request.base, &arena, &bytes, &length), RK_OK));
    cr_expect(eq(int, rk_rank_request_decode(bytes, length, &arena, &decoded, &error), RK_OK), "%s", error.text);
}

Test(rank_codec, every_prefix_and_every_flipped_bit_is_harmless)
{
    static const uint8_t good[] = {0x0a, 0x01, 'm', 0x10, 0x02, 0x2a, 0x1b, 0x0a, 0x08, 0,    0,    0x80,
                                   0x3f, 0,    0,   0,    0x40, 0x12, 0x0f, 0x0a, 0x01, 'g',  0x12, 0x08,
                                   1,    0,    0,   0,    0,    0,    0,    0,    0x1a, 0x00, 0x30, 0x01};
    for (size_t length = 0; length <= sizeof good; length++) {
        for (size_t bit = 0; bit < 8 * length; bit++) {
            uint8_t *bytes = malloc(length); /* of exactly this size */
            memcpy(bytes, good, length);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            Rankd__V1__RankRequest *request;
            struct rk_error error = {0};
            enum rk_status status = rk_rank_request_decode(bytes, length, &arena, &request, &error);
            cr_assert(eq(int, status == RK_OK, request != NULL));
            cr_assert(eq(int, status == RK_OK, strlen(error.text) == 0), "%s", error.text);
            free(bytes);
            rk_arena_reset(&arena, SIZE_MAX);
        }
    }
}
