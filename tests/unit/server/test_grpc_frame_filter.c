/* The filter before nghttp2: which resets it drops, and that every other byte goes on, however the input is cut. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"
#include "server/grpc/frame_filter.h"

#define MAX_BYTES (1 << 16)

/* What a client sends, and what of it is to go on; both are built frame by frame. */
struct talk {
    uint8_t sent[MAX_BYTES], expected[MAX_BYTES];
    size_t sent_bytes, expected_bytes;
    int dropped;
};

static struct talk talk;

static void begin_talk(void)
{
    talk.sent_bytes = talk.expected_bytes = 24;
    talk.dropped = 0;
    memcpy(talk.sent, raw_preface, 24);
    memcpy(talk.expected, raw_preface, 24);
}

static void add_frame(bool dropped, uint8_t type, uint8_t flags, uint32_t stream_id, size_t length)
{
    static const uint8_t payload[1024] = {0, 0, 4, 3, 0, 0, 0, 0, 9, 0, 0, 4, 3, 0, 0, 0, 0, 9}; /* looks like resets */
    size_t bytes = make_frame(talk.sent + talk.sent_bytes, type, flags, stream_id, payload, length);
    if (!dropped) {
        memcpy(talk.expected + talk.expected_bytes, talk.sent + talk.sent_bytes, bytes);
        talk.expected_bytes += bytes;
    }
    talk.sent_bytes += bytes;
    talk.dropped += dropped;
}

/* Feeds talk.sent with the pieces ending at the given places; the output must be talk.expected. */
struct run {
    struct rk_frame_filter filter;
    uint8_t out[MAX_BYTES];
    size_t out_bytes, copied;
    int dropped;
};

static struct run run;

static void begin_run(void)
{
    rk_frame_filter_init(&run.filter);
    run.out_bytes = run.copied = 0;
    run.dropped = 0;
}

static void feed(size_t from, size_t to)
{
    uint8_t *piece = malloc(to - from + 1); /* of its own, so that a sanitizer sees a read past it */
    memcpy(piece, talk.sent + from, to - from);
    struct rk_bytes input = {piece, to - from}, passed;
    for (;;) {
        enum rk_filtered what = rk_frame_filter_next(&run.filter, &input, &passed);
        if (what == RK_FILTERED_NOTHING)
            break;
        if (what == RK_FILTERED_RESET) {
            run.dropped++;
            continue;
        }
        cr_assert(gt(sz, passed.length, 0));
        if (passed.at < piece || passed.at > piece + (to - from))
            run.copied += passed.length;
        memcpy(run.out + run.out_bytes, passed.at, passed.length);
        run.out_bytes += passed.length;
    }
    cr_assert(eq(sz, input.length, 0));
    free(piece);
}

static void expect_filtered(const char *how, size_t detail)
{
    cr_assert(eq(sz, run.out_bytes, talk.expected_bytes), "%s %zu", how, detail);
    cr_assert(memcmp(run.out, talk.expected, talk.expected_bytes) == 0, "%s %zu: other bytes went on", how, detail);
    cr_assert(eq(int, run.dropped, talk.dropped), "%s %zu", how, detail);
    cr_assert(eq(u8, run.filter.held_bytes, 0), "%s %zu", how, detail);
}

static void expect_filtered_with_all_cuts(void)
{
    for (size_t first = 0; first <= talk.sent_bytes; first++) {
        begin_run();
        feed(0, first);
        feed(first, talk.sent_bytes);
        expect_filtered("cut at", first);
        for (size_t second = first; second <= talk.sent_bytes && second <= first + 24; second++) {
            begin_run();
            feed(0, first);
            feed(first, second);
            feed(second, talk.sent_bytes);
            expect_filtered("second cut at", second);
        }
    }
    for (size_t step = 1; step < 40; step++) {
        begin_run();
        for (size_t at = 0; at < talk.sent_bytes; at += step)
            feed(at, at + step < talk.sent_bytes ? at + step : talk.sent_bytes);
        expect_filtered("in pieces of", step);
    }
}

Test(grpc_frame_filter, drops_resets_of_idle_streams_once_one_was_opened)
{
    begin_talk();
    add_frame(false, NGHTTP2_SETTINGS, 0, 0, 0);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, 30);
    add_frame(true, NGHTTP2_RST_STREAM, 0, 3, 4);
    add_frame(true, NGHTTP2_RST_STREAM, 0xff, 0x80000005, 4); /* the bit above the id counts for nothing */
    add_frame(false, NGHTTP2_DATA, 0, 1, 100);
    add_frame(true, NGHTTP2_RST_STREAM, 0, 0x7fffffff, 4);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 1, 4);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 5, 1);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 5, 4);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 3, 4); /* closed by now */
    add_frame(true, NGHTTP2_RST_STREAM, 0, 7, 4);
    expect_filtered_with_all_cuts();
}

Test(grpc_frame_filter, leaves_every_other_reset_to_nghttp2)
{
    begin_talk();
    add_frame(false, NGHTTP2_RST_STREAM, 0, 1, 4); /* before any stream */
    add_frame(false, NGHTTP2_SETTINGS, 0, 0, 6);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 3, 4);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, 3); /* opens nothing */
    add_frame(false, NGHTTP2_RST_STREAM, 0, 5, 4);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, 3);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 0, 4);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 4, 4);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 5, 3);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 5, 5);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 5, 0);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 5, 260); /* 4 only in its last byte */
    add_frame(false, NGHTTP2_PRIORITY, 0, 5, 4);
    expect_filtered_with_all_cuts();
}

Test(grpc_frame_filter, drops_nothing_inside_a_header_block)
{
    begin_talk();
    add_frame(false, NGHTTP2_SETTINGS, 0, 0, 0);
    add_frame(false, NGHTTP2_HEADERS, 0, 1, 30);
    add_frame(false, NGHTTP2_RST_STREAM, 0, 3, 4);
    add_frame(false, NGHTTP2_CONTINUATION, 0, 1, 10);
    add_frame(false, NGHTTP2_RST_STREAM, NGHTTP2_FLAG_END_HEADERS, 3, 4);
    add_frame(false, NGHTTP2_CONTINUATION, NGHTTP2_FLAG_END_HEADERS, 1, 0);
    add_frame(true, NGHTTP2_RST_STREAM, 0, 3, 4);
    expect_filtered_with_all_cuts();
}

Test(grpc_frame_filter, keeps_the_bounds_of_random_frames_in_random_pieces)
{
    uint64_t state = test_seed();
    for (int round = 0; round < 300; round++) {
        begin_talk();
        uint32_t opened = 0;
        bool open_block = false;
        while (talk.sent_bytes < 4000) {
            uint8_t type = (uint8_t)(test_random(&state) % 12), flags = (uint8_t)test_random(&state);
            uint32_t id = test_random(&state) % 4 == 0 ? test_random(&state) : opened + test_random(&state) % 5;
            size_t length = test_random(&state) % 2 == 0 ? 4 : test_random(&state) % 600;
            bool own_idle = (id & INT32_MAX) % 2 == 1 && (id & INT32_MAX) > opened;
            add_frame(type == NGHTTP2_RST_STREAM && length == 4 && own_idle && opened > 0 && !open_block, type, flags,
                      id, length);
            if (type == NGHTTP2_HEADERS && own_idle)
                opened = id & INT32_MAX;
            if (type == NGHTTP2_HEADERS || type == NGHTTP2_PUSH_PROMISE || type == NGHTTP2_CONTINUATION)
                open_block = (flags & NGHTTP2_FLAG_END_HEADERS) == 0;
        }
        begin_run();
        for (size_t at = 0, part; at < talk.sent_bytes; at += part) {
            part = 1 + test_random(&state) % (round % 3 == 0 ? 20 : 1000);
            part = part < talk.sent_bytes - at ? part : talk.sent_bytes - at;
            feed(at, at + part);
            cr_assert(lt(u8, run.filter.held_bytes, RK_RESET_FRAME_BYTES));
        }
        expect_filtered("round", (size_t)round);
    }
}

Test(grpc_frame_filter, copies_nothing_of_frames_that_arrive_whole)
{
    begin_talk();
    add_frame(false, NGHTTP2_SETTINGS, 0, 0, 0);
    for (uint32_t id = 1; id < 40; id += 2) {
        add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, id, 30);
        add_frame(false, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, id, 1000);
    }
    begin_run();
    struct rk_bytes input = {talk.sent, talk.sent_bytes}, passed = {0};
    cr_expect(eq(int, rk_frame_filter_next(&run.filter, &input, &passed), RK_FILTERED_BYTES));
    cr_expect(eq(ptr, (void *)passed.at, talk.sent));
    cr_expect(eq(sz, passed.length, talk.sent_bytes)); /* in one piece */
    cr_expect(eq(int, rk_frame_filter_next(&run.filter, &input, &passed), RK_FILTERED_NOTHING));
    begin_run();
    feed(0, talk.sent_bytes / 2); /* in the middle of a payload */
    feed(talk.sent_bytes / 2, talk.sent_bytes);
    expect_filtered("in halves", 0);
    cr_expect(eq(sz, run.copied, 0));
}
