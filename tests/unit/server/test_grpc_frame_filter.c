/* The filter before nghttp2: which resets it drops, which frames it stops at, and that every other byte goes on,
 * however the input is cut. */
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
    enum rk_filtered stops; /* at its last frame; RK_FILTERED_BYTES: it does not */
};

static struct talk talk;

static void begin_talk(void)
{
    talk.sent_bytes = talk.expected_bytes = 24;
    talk.dropped = 0;
    talk.stops = RK_FILTERED_BYTES;
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
    enum rk_filtered stopped; /* RK_FILTERED_BYTES: it did not */
};

static struct run run;

static void begin_run(void)
{
    rk_frame_filter_init(&run.filter);
    run.out_bytes = run.copied = 0;
    run.dropped = 0;
    run.stopped = RK_FILTERED_BYTES;
}

static void feed(size_t from, size_t to)
{
    if (run.stopped != RK_FILTERED_BYTES)
        return;
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
        run.stopped = what;
        if (what != RK_FILTERED_BYTES)
            break;
        cr_assert(gt(sz, passed.length, 0));
        if (passed.at < piece || passed.at > piece + (to - from))
            run.copied += passed.length;
        memcpy(run.out + run.out_bytes, passed.at, passed.length);
        run.out_bytes += passed.length;
    }
    cr_assert(run.stopped != RK_FILTERED_BYTES || input.length == 0);
    free(piece);
}

static void expect_filtered(const char *how, size_t detail)
{
    cr_assert(eq(sz, run.out_bytes, talk.expected_bytes), "%s %zu", how, detail);
    cr_assert(memcmp(run.out, talk.expected, talk.expected_bytes) == 0, "%s %zu: other bytes went on", how, detail);
    cr_assert(eq(int, run.dropped, talk.dropped), "%s %zu", how, detail);
    cr_assert(eq(u8, run.filter.held_bytes, 0), "%s %zu", how, detail);
    cr_assert(eq(int, run.stopped, talk.stops), "%s %zu", how, detail);
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

static void add_stop(enum rk_filtered stops, uint8_t type, uint32_t stream_id)
{
    size_t expected_bytes = talk.expected_bytes, at = talk.sent_bytes;
    add_frame(false, type, NGHTTP2_FLAG_END_HEADERS, stream_id, 5);
    if (stops == RK_FILTERED_TOO_LONG)
        memcpy(talk.sent + at, "\x00\x40\x01", 3);
    talk.expected_bytes = expected_bytes;
    talk.stops = stops;
}

Test(grpc_frame_filter, stops_at_frames_on_streams_that_were_ended_or_passed_over)
{
    static const uint8_t types[] = {NGHTTP2_DATA, NGHTTP2_HEADERS};
    for (size_t i = 0; i < sizeof types; i++) {
        for (int how = 0; how < 4; how++) {
            begin_talk();
            add_frame(false, NGHTTP2_SETTINGS, 0, 0, 0);
            add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, 8);
            add_frame(false, NGHTTP2_DATA, 0, 3, 20);
            if (how == 0)
                add_frame(false, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 3, 0);
            else if (how == 1)
                add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_END_HEADERS, 3, 2);
            else if (how == 2)
                add_frame(false, NGHTTP2_RST_STREAM, 0, 3, 4);
            add_frame(false, NGHTTP2_WINDOW_UPDATE, 0, 3, 4); /* these may come at any time */
            add_frame(false, NGHTTP2_PRIORITY, 0, 3, 5);
            add_frame(false, NGHTTP2_PRIORITY, 0, 1, 5);
            add_stop(how == 3 ? RK_FILTERED_PASSED_OVER : RK_FILTERED_ENDED, types[i], how == 3 ? 1 : 3);
            expect_filtered_with_all_cuts();
        }
    }
}

Test(grpc_frame_filter, stops_at_frames_that_are_too_long)
{
    for (uint8_t type = 0; type < 12; type++) {
        begin_talk();
        add_frame(false, NGHTTP2_SETTINGS, 0, 0, 0);
        add_frame(false, NGHTTP2_HEADERS, type == NGHTTP2_CONTINUATION ? 0 : NGHTTP2_FLAG_END_HEADERS, 1, 8);
        add_stop(RK_FILTERED_TOO_LONG, type, 1);
        expect_filtered_with_all_cuts();
    }
}

Test(grpc_frame_filter, leaves_a_stream_that_is_open_or_of_long_ago_to_nghttp2)
{
    begin_talk();
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, 8);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, 8);
    add_frame(false, NGHTTP2_DATA, 0, 1, 8);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1,
              8); /* trailers; whether they may be, nghttp2 knows */
    add_frame(false, NGHTTP2_HEADERS, 0, 5, 8);
    add_frame(false, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, 8); /* an error of another kind */
    add_frame(false, NGHTTP2_CONTINUATION, NGHTTP2_FLAG_END_HEADERS, 5, 8);
    add_frame(false, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 5 + 2 * RK_HISTORY_STREAMS, 8);
    add_frame(false, NGHTTP2_DATA, 0, 1, 8);
    add_frame(false, NGHTTP2_DATA, 0, 2, 8);
    expect_filtered_with_all_cuts();
}

/* What the filter is to know of the streams, by other means: all of them, in a list. */
struct known {
    uint32_t ids[1000], last;
    bool ended[1000];
    size_t count;
};

static bool stops_at(const struct known *known, uint8_t type, uint32_t id)
{
    if ((type != NGHTTP2_DATA && type != NGHTTP2_HEADERS) || id % 2 == 0 || id > known->last ||
        known->last - id >= 2 * RK_HISTORY_STREAMS)
        return false;
    for (size_t i = 0; i < known->count; i++) {
        if (known->ids[i] == id)
            return known->ended[i];
    }
    return true;
}

static void learn(struct known *known, uint8_t type, uint8_t flags, uint32_t id)
{
    if (type == NGHTTP2_HEADERS && id % 2 == 1 && id > known->last) {
        known->last = id;
        known->ids[known->count] = id;
        known->ended[known->count++] = false;
    }
    bool ends = type == NGHTTP2_RST_STREAM ||
                ((type == NGHTTP2_HEADERS || type == NGHTTP2_DATA) && (flags & NGHTTP2_FLAG_END_STREAM) != 0);
    for (size_t i = 0; i < known->count; i++) {
        if (known->ids[i] == id && ends && known->last - id < 2 * RK_HISTORY_STREAMS)
            known->ended[i] = true;
    }
}

Test(grpc_frame_filter, keeps_the_bounds_of_random_frames_in_random_pieces)
{
    uint64_t state = test_seed();
    int stops = 0;
    for (int round = 0; round < 300; round++) {
        begin_talk();
        struct known known = {.last = 0};
        bool open_block = false;
        while (talk.sent_bytes < 4000) {
            uint8_t type = (uint8_t)(test_random(&state) % 12), flags = (uint8_t)test_random(&state);
            uint32_t id =
                test_random(&state) % 8 == 0 ? test_random(&state) % 5000 : known.last + test_random(&state) % 7 - 2;
            id &= INT32_MAX;
            if (test_random(&state) % 8 != 0)
                flags |= NGHTTP2_FLAG_END_HEADERS;
            size_t length = test_random(&state) % 2 == 0 ? 4 : test_random(&state) % 600;
            bool own_idle = id % 2 == 1 && id > known.last;
            if (!open_block && stops_at(&known, type, id)) {
                stops++;
                if (test_random(&state) % 8 != 0)
                    continue;
                bool is_known = false;
                for (size_t i = 0; i < known.count; i++)
                    is_known |= known.ids[i] == id;
                add_stop(is_known ? RK_FILTERED_ENDED : RK_FILTERED_PASSED_OVER, type, id);
                break;
            }
            add_frame(type == NGHTTP2_RST_STREAM && length == 4 && own_idle && known.last > 0 && !open_block, type,
                      flags, id, length);
            if (!open_block || type != NGHTTP2_HEADERS || !own_idle)
                learn(&known, type, flags, id);
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
    cr_expect(gt(int, stops, 10));
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
