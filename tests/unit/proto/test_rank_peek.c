/* What is read of a message without decoding it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "proto/rank_peek.h"

/* RankStreamRequest {id: 300, request: {model: "ab", num_candidates: 7, priority: "batch"}, timeout_us: 1} */
static const uint8_t whole[] = "\x08\xac\x02\x12\x0d\x0a\x02"
                               "ab"
                               "\x30\x07\x72\x05"
                               "batch"
                               "\x18\x01";
#define WHOLE_BYTES (sizeof whole - 1)

Test(rank_peek, a_stream_s_request_and_what_is_in_it)
{
    struct rk_rank_stream_peek outer;
    struct rk_rank_peek inner;
    cr_assert(rk_rank_stream_peek(whole, WHOLE_BYTES, &outer));
    cr_expect_eq(outer.id, 300);
    cr_assert_eq(outer.request_bytes, 13);
    cr_assert(rk_rank_peek(outer.request, outer.request_bytes, &inner));
    cr_expect(inner.model_bytes == 2 && memcmp(inner.model, "ab", 2) == 0);
    cr_expect(inner.priority_bytes == 5 && memcmp(inner.priority, "batch", 5) == 0);
    cr_expect_eq(inner.num_candidates, 7);
}

Test(rank_peek, what_is_not_given_is_nothing)
{
    struct rk_rank_stream_peek outer;
    struct rk_rank_peek inner;
    cr_assert(rk_rank_stream_peek(whole, 0, &outer));
    cr_expect(outer.id == 0 && outer.request == NULL);
    cr_assert(rk_rank_peek(whole, 0, &inner));
    cr_expect(inner.model == NULL && inner.priority == NULL && inner.num_candidates == 0);
}

Test(rank_peek, a_message_that_is_cut_within_a_field_is_none_and_is_not_read_past_its_end)
{
    for (size_t length = 1; length < WHOLE_BYTES; length++) {
        uint8_t *cut = malloc(length); /* an allocation of its own, so that a sanitizer sees its end */
        struct rk_rank_stream_peek outer;
        memcpy(cut, whole, length);
        const bool between_fields = length == 3 || length == 18;
        cr_expect_eq(rk_rank_stream_peek(cut, length, &outer), between_fields, "cut after %zu bytes", length);
        free(cut);
    }
}

Test(rank_peek, groups_long_varints_and_too_many_fields_are_left_to_the_decoder)
{
    static const uint8_t group[] = {0x0b, 0x0c},
                         long_varint[] = {0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1};
    uint8_t many[2 * 65];
    struct rk_rank_stream_peek outer;
    for (size_t i = 0; i < sizeof many; i++)
        many[i] = i % 2 == 0 ? 0x18 : 1;
    cr_expect(!rk_rank_stream_peek(group, sizeof group, &outer));
    cr_expect(!rk_rank_stream_peek(long_varint, sizeof long_varint, &outer));
    cr_expect(!rk_rank_stream_peek(many, sizeof many, &outer));
    cr_expect(rk_rank_stream_peek(many, sizeof many - 2, &outer));
}
