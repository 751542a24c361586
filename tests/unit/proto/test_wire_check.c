/* What the check before decoding refuses, and how it names the place. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "proto/rankd.pb-c.h"
#include "proto/wire_check.h"

#define CHECK(...)                                                                                                     \
    static const uint8_t bytes[] = {__VA_ARGS__};                                                                      \
    struct rk_error error = {0};                                                                                       \
    enum rk_status status = rk_wire_check(&rankd__v1__rank_request__descriptor, bytes, sizeof bytes, &error)

#define EXPECT_REFUSED(part)                                                                                           \
    do {                                                                                                               \
        cr_expect(eq(int, status, RK_INVALID));                                                                        \
        cr_expect(strstr(error.text, part) != NULL, "'%s' is not in '%s'", part, error.text);                          \
    } while (0)

Test(wire_check, accepts_an_empty_message_and_unknown_fields)
{
    CHECK(0xf8, 0x07, 0x01, 0xfa, 0x07, 0x03, 'a', 'b', 'c', 0xfd, 0x07, 0, 0, 0, 0, 0xf9, 0x07, 0, 0, 0, 0, 0, 0, 0,
          0);
    cr_expect(eq(int, status, RK_OK));
    cr_expect(eq(int, rk_wire_check(&rankd__v1__rank_request__descriptor, NULL, 0, &error), RK_OK));
}

Test(wire_check, refuses_an_11_byte_varint)
{
    CHECK(0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01);
    EXPECT_REFUSED("version has a varint");
}

Test(wire_check, refuses_a_varint_past_64_bits)
{
    CHECK(0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02);
    EXPECT_REFUSED("version has a varint");
}

Test(wire_check, accepts_minus_one)
{
    CHECK(0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
    cr_expect(eq(int, status, RK_OK));
}

Test(wire_check, refuses_field_number_0)
{
    CHECK(0x08 | 2, 0x00, 0x00, 0x01);
    EXPECT_REFUSED("field number 0");
    EXPECT_REFUSED("byte 2");
}

Test(wire_check, refuses_groups)
{
    CHECK(0xfb, 0x07, 0xfc, 0x07);
    EXPECT_REFUSED("is a group");
}

Test(wire_check, refuses_wire_types_that_do_not_exist)
{
    CHECK(0xfe, 0x07);
    EXPECT_REFUSED("unknown wire type");
}

Test(wire_check, refuses_a_known_field_with_another_wire_type)
{
    CHECK(0x08, 0x01); /* model as a varint */
    EXPECT_REFUSED("model has the wrong wire type");
}

Test(wire_check, refuses_a_length_past_the_end)
{
    CHECK(0x0a, 0x05, 'a', 'b');
    EXPECT_REFUSED("model is longer than what is left");
}

Test(wire_check, refuses_a_huge_length)
{
    CHECK(0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
    EXPECT_REFUSED("model is longer than what is left");
}

Test(wire_check, names_the_place_of_bad_text_in_nested_messages)
{
    /* candidates { ids {} ids { feature: "\xff" } } */
    CHECK(0x2a, 0x07, 0x12, 0x00, 0x12, 0x03, 0x0a, 0x01, 0xff);
    EXPECT_REFUSED("candidates.ids[1].feature is not valid UTF-8");
}

Test(wire_check, refuses_nul_in_text)
{
    CHECK(0x0a, 0x03, 'a', 0x00, 'b');
    EXPECT_REFUSED("model contains a NUL byte");
}

Test(wire_check, refuses_a_packed_array_that_ends_inside_an_element)
{
    CHECK(0x3a, 0x07, 1, 2, 3, 4, 5, 6, 7); /* candidate_ids */
    EXPECT_REFUSED("candidate_ids has a length that is no multiple");
}

Test(wire_check, knows_utf8_at_its_edges)
{
    static const char *const good[] = {"\x7f",         "\xc2\x80",         "\xdf\xbf",
                                       "\xe0\xa0\x80", "\xed\x9f\xbf",     "\xee\x80\x80",
                                       "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xe2\x82",
                                      "\xc2",
                                      "\xc2\x41",
                                      "\xff"};
    for (size_t i = 0; i < sizeof good / sizeof *good + sizeof bad / sizeof *bad; i++) {
        bool is_good = i < sizeof good / sizeof *good;
        const char *text = is_good ? good[i] : bad[i - sizeof good / sizeof *good];
        uint8_t bytes[16] = {0x0a, (uint8_t)strlen(text)};
        memcpy(bytes + 2, text, strlen(text));
        struct rk_error error = {0};
        enum rk_status status = rk_wire_check(&rankd__v1__rank_request__descriptor, bytes, 2 + strlen(text), &error);
        cr_expect(eq(int, status, is_good ? RK_OK : RK_INVALID), "text %zu", i);
    }
}
