/* What a hostile client gets: raw frames that break HTTP/2 or flood it. Bounded memory, GOAWAY with the right code, and
 * never a crash. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

static struct peer peer;

static void deinit(void)
{
    peer_deinit(&peer);
}

static void init(void)
{
    peer_init(&peer, NULL, true);
    peer_feed(&peer, raw_preface, raw_preface_bytes);
    cr_assert(peer.session_ok);
}

TestSuite(grpc_limits, .init = init, .fini = deinit);

static void restart(const struct rk_grpc_limits *limits, bool raw)
{
    peer_deinit(&peer);
    peer_init(&peer, limits, raw);
}

static void feed_frame(uint8_t type, uint8_t flags, uint32_t stream_id, const void *payload, size_t length)
{
    static uint8_t frame[1 << 17];
    size_t bytes = make_frame(frame, type, flags, stream_id, payload, length);
    peer_feed(&peer, frame, bytes);
}

/* :method POST, :scheme http, :path /test.T/Echo, content-type application/grpc; literals, so that every block stands
 * alone. */
static size_t header_block(uint8_t *out, const char *path)
{
    size_t at = 0;
    out[at++] = 0x83;
    out[at++] = 0x86;
    out[at++] = 0x04;
    out[at++] = (uint8_t)strlen(path);
    memcpy(out + at, path, strlen(path));
    at += strlen(path);
    out[at++] = 0x01; /* :authority */
    out[at++] = 1;
    out[at++] = 'h';
    out[at++] = 0x0f;
    out[at++] = 0x10; /* content-type: static index 31 */
    out[at++] = 16;
    memcpy(out + at, "application/grpc", 16);
    return at + 16;
}

static void feed_request(uint32_t stream_id, const char *path, uint8_t flags)
{
    uint8_t block[256];
    size_t length = header_block(block, path);
    feed_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | flags, stream_id, block, length);
}

static void feed_echo(uint32_t stream_id)
{
    static const uint8_t body[] = {0, 0, 0, 0, 1, 'x'};
    feed_request(stream_id, "/test.T/Echo", 0);
    feed_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, stream_id, body, sizeof body);
}

static void expect_closed(uint32_t code)
{
    cr_expect(eq(i64, raw_goaway_code(&peer), code));
    cr_expect(rk_grpc_session_finished(peer.session));
    cr_expect(not(rk_grpc_session_wants_output(peer.session)));
    cr_expect(not(rk_grpc_session_receive(peer.session, (const uint8_t *)"x", 1, peer.now_us)));
}

Test(grpc_limits, serves_raw_frames)
{
    feed_echo(1);
    cr_expect(eq(int, peer.num_messages, 1));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_HEADERS), 2));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_DATA), 1));
    cr_expect(peer.session_ok);
}

Test(grpc_limits, closes_on_what_is_not_http2)
{
    const char *const firsts[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
                                  "\x16\x03\x01\x02", "POST /x HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"};
    for (size_t i = 0; i < 4; i++) {
        restart(NULL, true);
        peer_feed(&peer, firsts[i], strlen(firsts[i]));
        cr_expect(not(peer.session_ok), "after '%s'", firsts[i]);
        cr_expect(rk_grpc_session_finished(peer.session));
    }
}

/* The payload of the first frame of this type on this stream; NULL for none. */
static const uint8_t *find_frame(uint8_t type, uint32_t stream_id, size_t *place, size_t *length)
{
    for (size_t at = 0; at + 9 <= peer.raw_out_bytes; at += 9 + *length) {
        const uint8_t *frame = peer.raw_out + at;
        *length = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        *place = at;
        if (frame[3] == type && frame[8] == stream_id)
            return frame + 9;
    }
    return NULL;
}

Test(grpc_limits, sends_the_status_of_a_path_without_slash_before_the_reset)
{
    feed_request(1, "x.Y/Z", 0);
    size_t headers_at = 0, reset_at = 0, length = 0, reset_bytes = 0;
    const uint8_t *block = find_frame(NGHTTP2_HEADERS, 1, &headers_at, &length);
    const uint8_t *reset = find_frame(NGHTTP2_RST_STREAM, 1, &reset_at, &reset_bytes);
    cr_assert(block != NULL && reset != NULL);
    cr_expect(lt(sz, headers_at, reset_at));
    cr_expect(eq(u8, peer.raw_out[headers_at + 4], NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM));
    cr_expect(eq(u8, reset[3], NGHTTP2_PROTOCOL_ERROR));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_HEADERS), 1));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 1));
    static const uint8_t body[] = {0, 0, 0, 0, 1, 'x'};
    feed_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, body, sizeof body); /* was on its way */
    feed_echo(3);
    cr_expect(eq(int, peer.num_messages, 1));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 1));
    cr_expect(peer.session_ok);
}

Test(grpc_limits, only_resets_what_is_no_grpc_or_comes_with_a_small_header_table)
{
    feed_request(1, "", 0);
    static const uint8_t no_table[6] = {0, NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 0, 0, 0, 0};
    feed_frame(NGHTTP2_SETTINGS, 0, 0, no_table, sizeof no_table);
    feed_request(3, "x", 0);
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_HEADERS), 0));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 2));
    feed_echo(5);
    cr_expect(eq(int, peer.num_messages, 1));
    cr_expect(peer.session_ok);
}

Test(grpc_limits, forgets_the_answer_to_a_refused_path_when_the_peer_resets_it_or_reads_nothing)
{
    uint8_t out[512], block[256];
    size_t length = header_block(block, "x");
    size_t bytes = make_frame(out, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, block, length);
    bytes += make_frame(out + bytes, NGHTTP2_RST_STREAM, 0, 1, "\0\0\0\10", 4);
    peer_feed(&peer, out, bytes);
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_HEADERS), 0));
    cr_expect(peer.session_ok);
    bytes = make_frame(out, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, block, length);
    rk_grpc_session_receive(peer.session, out, bytes, peer.now_us);
    cr_expect(
        eq(sz, rk_grpc_session_output(peer.session, out, 20), 20)); /* part of it; the rest goes with the session */
}

Test(grpc_limits, announces_its_limits)
{
    struct rk_grpc_limits limits = RK_GRPC_LIMITS_DEFAULT;
    limits.max_streams = 77;
    restart(&limits, true);
    peer_feed(&peer, raw_preface, raw_preface_bytes);
    static const uint8_t expected[] = {0, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0, 0, 0, 77};
    cr_expect(memmem(peer.raw_out, 64, expected, sizeof expected) != NULL);
}

Test(grpc_limits, answers_protocol_errors_with_the_error_that_the_rfc_names)
{
    static const uint8_t zeros[20000];
    const struct {
        const char *what;
        uint8_t type, flags;
        uint32_t stream_id;
        size_t length;
        uint32_t code;
    } cases[] = {
        {"DATA on stream 0", NGHTTP2_DATA, 0, 0, 1, NGHTTP2_PROTOCOL_ERROR},
        {"DATA on an idle stream", NGHTTP2_DATA, 0, 5, 1, NGHTTP2_PROTOCOL_ERROR},
        {"a frame over the limit", NGHTTP2_DATA, 0, 1, 16385, NGHTTP2_FRAME_SIZE_ERROR},
        {"HEADERS on an even stream", NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, 0, NGHTTP2_PROTOCOL_ERROR},
        {"SETTINGS of 5 bytes", NGHTTP2_SETTINGS, 0, 0, 5, NGHTTP2_FRAME_SIZE_ERROR},
        {"PING of 7 bytes", NGHTTP2_PING, 0, 0, 7, NGHTTP2_FRAME_SIZE_ERROR},
        {"RST_STREAM on an idle stream", NGHTTP2_RST_STREAM, 0, 9, 4, NGHTTP2_PROTOCOL_ERROR},
        {"PRIORITY of stream 0", NGHTTP2_PRIORITY, 0, 0, 5, NGHTTP2_PROTOCOL_ERROR},
        {"WINDOW_UPDATE of 0", NGHTTP2_WINDOW_UPDATE, 0, 0, 4, NGHTTP2_PROTOCOL_ERROR},
        {"CONTINUATION alone", NGHTTP2_CONTINUATION, 0, 1, 1, NGHTTP2_PROTOCOL_ERROR},
        {"PUSH_PROMISE from a client", NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, 4, NGHTTP2_PROTOCOL_ERROR},
        {"HPACK index 0", NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, 0, NGHTTP2_COMPRESSION_ERROR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        restart(NULL, true);
        peer_feed(&peer, raw_preface, raw_preface_bytes);
        bool hpack = cases[i].code == NGHTTP2_COMPRESSION_ERROR;
        feed_frame(cases[i].type, cases[i].flags, cases[i].stream_id, hpack ? (const void *)"\x80" : zeros,
                   hpack ? 1 : cases[i].length);
        cr_expect(eq(i64, raw_goaway_code(&peer), cases[i].code), "%s", cases[i].what);
        cr_expect(rk_grpc_session_finished(peer.session), "%s", cases[i].what);
    }
}

Test(grpc_limits, closes_on_frames_of_streams_that_the_client_has_ended_or_passed_over)
{
    static const uint8_t body[5];
    static const struct {
        const char *what;
        uint8_t type, flags;
        uint32_t stream_id, code;
    } cases[] = {
        {"DATA after END_STREAM", NGHTTP2_DATA, 0, 5, NGHTTP2_STREAM_CLOSED},
        {"HEADERS after END_STREAM", NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 5, NGHTTP2_STREAM_CLOSED},
        {"DATA on a stream passed over", NGHTTP2_DATA, 0, 3, NGHTTP2_PROTOCOL_ERROR},
        {"HEADERS on a stream passed over", NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 3, NGHTTP2_PROTOCOL_ERROR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        restart(NULL, true);
        peer_feed(&peer, raw_preface, raw_preface_bytes);
        feed_echo(5);
        cr_assert(peer.session_ok);
        feed_frame(cases[i].type, cases[i].flags, cases[i].stream_id, body, sizeof body);
        cr_expect(eq(i64, raw_goaway_code(&peer), cases[i].code), "%s", cases[i].what);
        cr_expect(eq(int, peer.num_messages, 1), "%s", cases[i].what);
    }
}

Test(grpc_limits, passes_over_what_crosses_a_reset_of_its_own)
{
    static const uint8_t body[5], much[4] = {0x7f, 0xff, 0xff, 0xff};
    feed_request(1, "/test.T/Later", 0);
    feed_frame(NGHTTP2_WINDOW_UPDATE, 0, 1, much, sizeof much); /* for which the stream is reset */
    cr_assert(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 1));
    feed_frame(NGHTTP2_DATA, 0, 1, body, sizeof body);
    feed_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, body, sizeof body);
    cr_expect(peer.session_ok);
    cr_expect(eq(i64, raw_goaway_code(&peer), -1));
}

Test(grpc_limits, survives_resets_that_overtook_the_headers_of_their_stream)
{
    static const uint8_t cancel[4] = {0, 0, 0, NGHTTP2_CANCEL};
    feed_echo(1);
    feed_request(3, "/test.T/Later", 0);
    feed_frame(NGHTTP2_RST_STREAM, 0, 7, cancel, sizeof cancel);
    feed_frame(NGHTTP2_RST_STREAM, 0, 5, cancel, sizeof cancel);
    cr_assert(peer.session_ok);
    static const uint8_t body[] = {0, 0, 0, 0, 1, 'x'};
    feed_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 3, body, sizeof body);
    cr_expect(eq(sz, peer.num_waiting, 1)); /* the call that was open goes on */
    feed_echo(5);                           /* and a stream whose reset came first is a stream like any other */
    feed_echo(9);
    cr_expect(eq(int, peer.num_messages, 4));
    cr_expect(peer.session_ok);
    cr_expect(eq(i64, raw_goaway_code(&peer), -1));
    feed_frame(NGHTTP2_RST_STREAM, 0, 3, cancel, sizeof cancel); /* of an open one, it still works */
    cr_expect(eq(int, peer.num_cancelled, 1));
}

Test(grpc_limits, closes_on_resets_that_no_honest_client_sends)
{
    static const uint8_t cancel[5] = {0, 0, 0, NGHTTP2_CANCEL};
    const struct {
        const char *what;
        uint32_t stream_id;
        size_t length;
        uint32_t code;
        bool in_header_block;
    } cases[] = {
        {"of stream 0", 0, 4, NGHTTP2_PROTOCOL_ERROR, false},
        {"of an even stream", 2, 4, NGHTTP2_PROTOCOL_ERROR, false},
        {"of 3 bytes", 5, 3, NGHTTP2_FRAME_SIZE_ERROR, false},
        {"of 5 bytes", 5, 5, NGHTTP2_FRAME_SIZE_ERROR, false},
        {"inside a header block", 5, 4, NGHTTP2_PROTOCOL_ERROR, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        restart(NULL, true);
        peer_feed(&peer, raw_preface, raw_preface_bytes);
        feed_echo(1);
        if (cases[i].in_header_block)
            feed_frame(NGHTTP2_HEADERS, 0, 3, "\x83", 1);
        cr_assert(peer.session_ok);
        feed_frame(NGHTTP2_RST_STREAM, 0, cases[i].stream_id, cancel, cases[i].length);
        cr_expect(eq(i64, raw_goaway_code(&peer), cases[i].code), "a reset %s", cases[i].what);
    }
}

Test(grpc_limits, stops_a_flood_of_resets_of_idle_streams)
{
    static const uint8_t cancel[4] = {0, 0, 0, NGHTTP2_CANCEL};
    feed_echo(1);
    uint32_t sent = 0;
    while (peer.session_ok && sent < 5000)
        feed_frame(NGHTTP2_RST_STREAM, 0, 3 + 2 * sent++, cancel, sizeof cancel);
    cr_expect(eq(u32, sent, peer.config.limits.max_resets_per_s + 1));
    expect_closed(NGHTTP2_ENHANCE_YOUR_CALM);
}

Test(grpc_limits, stops_floods_of_useless_frames)
{
    static const uint8_t ping[8], priority[5] = {0, 0, 0, 0, 1}, window[4] = {0, 0, 0, 1}, padding[2] = {1, 0};
    const struct {
        const char *what;
        uint8_t type, flags;
        uint32_t stream_id;
        const void *payload;
        size_t length;
    } floods[] = {
        {"PING", NGHTTP2_PING, 0, 0, ping, 8},
        {"PING acknowledgements", NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, ping, 8},
        {"SETTINGS", NGHTTP2_SETTINGS, 0, 0, NULL, 0},
        {"PRIORITY", NGHTTP2_PRIORITY, 0, 3, priority, 5},
        {"WINDOW_UPDATE", NGHTTP2_WINDOW_UPDATE, 0, 0, window, 4},
        {"WINDOW_UPDATE on a stream", NGHTTP2_WINDOW_UPDATE, 0, 1, window, 4},
        {"unknown frames", 0xbb, 0, 0, ping, 8},
        {"empty DATA", NGHTTP2_DATA, 0, 1, NULL, 0},
        {"padding only", NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, padding, 2},
    };
    for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
        restart(NULL, true);
        peer_feed(&peer, raw_preface, raw_preface_bytes);
        feed_request(1, "/test.T/Echo", 0);
        int sent = 0;
        for (; sent < 5000 && !rk_grpc_session_finished(peer.session); sent++) {
            peer.raw_out_bytes = 0;
            feed_frame(floods[i].type, floods[i].flags, floods[i].stream_id, floods[i].payload, floods[i].length);
        }
        cr_expect(all(gt(int, sent, 500), lt(int, sent, 1100)), "%s: %d were accepted", floods[i].what, sent);
        expect_closed(NGHTTP2_ENHANCE_YOUR_CALM);
    }
}

Test(grpc_limits, stops_data_of_a_call_that_is_over_but_not_what_was_on_its_way)
{
    static const uint8_t past_all[4] = {0x7f, 0xff, 0xff, 0xff}, byte[1];
    feed_request(1, "/test.T/Echo", 0);
    feed_frame(NGHTTP2_WINDOW_UPDATE, 0, 1, past_all, sizeof past_all); /* 2^31-1 more than it was: it is reset */
    int sent = 0;
    for (; sent < 50000 && peer.session_ok; sent++) {
        peer.raw_out_bytes = 0;
        feed_frame(NGHTTP2_DATA, 0, 1, byte, sizeof byte);
    }
    cr_expect(all(gt(int, sent, 15000), lt(int, sent, 17000)), "%d were accepted", sent);
    expect_closed(NGHTTP2_ENHANCE_YOUR_CALM);
}

Test(grpc_limits, does_not_keep_hundreds_of_calls_that_are_begun_and_not_ended)
{
    static const struct {
        uint32_t calls;
        bool lasts;
    } cases[] = {{100, true}, {300, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        restart(NULL, true);
        peer.config.times.slow_us = 5000000;
        peer_feed(&peer, raw_preface, raw_preface_bytes);
        for (uint32_t call = 0; call < cases[i].calls; call++)
            feed_request(2 * call + 1, "/test.T/Echo", 0);
        cr_assert(eq(u32, rk_grpc_session_open_calls(peer.session), cases[i].calls));
        bool lasts = true;
        for (int second = 0; second < 8 && lasts; second++)
            lasts = rk_grpc_session_tick(peer.session, peer.now_us += 1000000);
        cr_expect(eq(int, lasts, cases[i].lasts), "%u calls", cases[i].calls);
    }
}

Test(grpc_limits, lets_honest_window_updates_and_pings_pass)
{
    static const uint8_t window[4] = {0, 0, 0, 6}, ping[8];
    for (uint32_t call = 0; call < 20000; call++) {
        peer.raw_out_bytes = 0;
        feed_echo(2 * call + 1);
        feed_frame(NGHTTP2_WINDOW_UPDATE, 0, 0, window, 4);
        feed_frame(NGHTTP2_PING, 0, 0, ping, 8);
        cr_assert(peer.session_ok, "closed at call %u", call);
    }
    cr_expect(eq(int, peer.num_messages, 20000));
}

Test(grpc_limits, stops_rapid_resets_and_computes_nothing_of_them)
{
    static const uint8_t cancel[4] = {0, 0, 0, NGHTTP2_CANCEL};
    int sent = 0;
    for (uint32_t id = 1; sent < 5000 && !rk_grpc_session_finished(peer.session); id += 2, sent++) {
        peer.raw_out_bytes = 0;
        feed_request(id, "/test.T/Echo", 0);
        feed_frame(NGHTTP2_RST_STREAM, 0, id, cancel, 4);
    }
    cr_expect(all(ge(int, sent, 1000), le(int, sent, 1010)), "%d were accepted", sent);
    cr_expect(eq(int, peer.num_messages, 0));
    expect_closed(NGHTTP2_ENHANCE_YOUR_CALM);
}

Test(grpc_limits, lets_resets_within_the_rate_pass)
{
    static const uint8_t cancel[4] = {0, 0, 0, NGHTTP2_CANCEL};
    for (uint32_t id = 1; id < 10000; id += 2) { /* 900 a second */
        peer.raw_out_bytes = 0;
        peer.now_us += 1111;
        feed_request(id, "/test.T/Later", 0);
        feed_frame(NGHTTP2_RST_STREAM, 0, id, cancel, 4);
        cr_assert(peer.session_ok, "closed at stream %u", id);
    }
}

Test(grpc_limits, stops_resets_that_the_peer_provokes)
{
    static const uint8_t overflow[4] = {0x7f, 0xff, 0xff, 0xff};
    int sent = 0;
    for (uint32_t id = 1; sent < 5000 && !rk_grpc_session_finished(peer.session); id += 2, sent++) {
        peer.raw_out_bytes = 0;
        feed_request(id, "/test.T/Later", 0);
        feed_frame(NGHTTP2_WINDOW_UPDATE, 0, id, overflow, 4);
    }
    cr_expect(all(ge(int, sent, 90), le(int, sent, 110)), "%d were accepted", sent);
    expect_closed(NGHTTP2_ENHANCE_YOUR_CALM);
}

Test(grpc_limits, refuses_streams_over_the_limit_and_goes_on)
{
    struct rk_grpc_limits limits = RK_GRPC_LIMITS_DEFAULT;
    limits.max_streams = 3;
    restart(&limits, true);
    peer_feed(&peer, raw_preface, raw_preface_bytes);
    feed_frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0); /* the peer knows the limit */
    for (uint32_t id = 1; id < 2 * 10; id += 2)
        feed_request(id, "/test.T/Echo", 0);
    cr_expect(peer.session_ok);
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 7));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 3));
    static const uint8_t body[] = {0, 0, 0, 0, 1, 'x'};
    feed_frame(NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, body, sizeof body);
    feed_echo(101);
    cr_expect(eq(int, peer.num_messages, 2));
    cr_expect(peer.session_ok);
}

static void feed_header_bomb(uint32_t id, bool indexed)
{
    /* One header of 4000 bytes goes into the table, then each byte refers to it; or plain small headers without end. */
    static uint8_t block[16384];
    size_t at = header_block(block, "/test.T/Echo");
    if (indexed) {
        const uint8_t start[] = {0x40, 1, 'a', 0x7f, 0xa1, 0x1e}; /* 127 + 3873 = 4000 */
        memcpy(block + at, start, sizeof start);
        at += sizeof start;
        memset(block + at, 'v', 4000);
        at += 4000;
        while (at < sizeof block)
            block[at++] = 0xbe; /* the newest entry of the table */
    } else {
        const uint8_t crumb[] = {0x00, 1, 'c', 1, 'd'};
        for (; at + sizeof crumb <= sizeof block; at += sizeof crumb)
            memcpy(block + at, crumb, sizeof crumb);
    }
    feed_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, id, block, at);
}

Test(grpc_limits, refuses_header_bombs_at_once_and_the_connection_when_they_go_on)
{
    for (int indexed = 0; indexed < 2; indexed++) {
        restart(NULL, true);
        peer_feed(&peer, raw_preface, raw_preface_bytes);
        feed_header_bomb(1, indexed == 1);
        cr_expect(peer.session_ok);
        cr_expect(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 1));
        feed_echo(3);
        cr_expect(eq(int, peer.num_messages, 1));
        int sent = 0;
        for (uint32_t id = 5; sent < 1000 && !rk_grpc_session_finished(peer.session); id += 2, sent++) {
            peer.raw_out_bytes = 0;
            feed_header_bomb(id, indexed == 1);
        }
        cr_expect(lt(int, sent, 110));
        expect_closed(NGHTTP2_ENHANCE_YOUR_CALM);
        cr_expect(lt(sz, rk_pool_held_bytes(peer.pool), 1 << 20));
    }
}

Test(grpc_limits, bounds_what_unfinished_messages_hold)
{
    struct rk_grpc_limits limits = RK_GRPC_LIMITS_DEFAULT;
    limits.max_message_bytes = 64 << 10;
    restart(&limits, false);
    size_t length = 64 << 10, bytes;
    char *text = calloc(1, length);
    const uint8_t *body = framed(text, length, &bytes);
    for (int i = 0; i < 100; i++)
        peer_start(&peer, &(struct request){.body = body, .body_bytes = bytes - 1, .keep_open = true});
    peer_carry(&peer);
    int refused = 0;
    for (int i = 0; i < 100; i++)
        refused += strcmp(peer_reply(&peer, 2 * i + 1)->grpc_status, "8") == 0;
    cr_expect(all(ge(int, refused, 80), lt(int, refused, 100)), "%d were refused", refused);
    cr_expect(lt(sz, rk_pool_held_bytes(peer.pool), 8 << 20)); /* 16 messages of 64 KiB and what they outgrew */
    cr_expect(peer.session_ok);
    free(text);
}

Test(grpc_limits, closes_on_a_peer_that_asks_and_never_reads)
{
    struct rk_grpc_limits limits = RK_GRPC_LIMITS_DEFAULT;
    limits.max_queued_output_bytes = 65536;
    limits.max_glitches = 1000000;
    restart(&limits, true);
    bool open = rk_grpc_session_receive(peer.session, (const uint8_t *)raw_preface, raw_preface_bytes, peer.now_us);
    uint8_t frame[32];
    size_t bytes = make_frame(frame, NGHTTP2_PING, 0, 0, "12345678", 8);
    int sent = 0;
    for (; open && sent < 100000; sent++)
        open = rk_grpc_session_receive(peer.session, frame, bytes, peer.now_us);
    cr_expect(lt(int, sent, 1100));
    cr_expect(lt(sz, rk_pool_held_bytes(peer.pool), 1 << 20));
}

Test(grpc_limits, resets_malformed_requests_and_goes_on)
{
    static const uint8_t upper[] = {0x83, 0x86, 0x01, 1, 'h', 0x04, 1, '/', 0x00, 1, 'A', 1, 'b'},
                         twice[] = {0x83, 0x83, 0x86, 0x01, 1, 'h', 0x04, 1, '/'},
                         late[] = {0x83, 0x86, 0x01, 1, 'h', 0x00, 1, 'a', 1, 'b', 0x04, 1, '/'},
                         connection[] = {0x83, 0x86, 0x01, 1,   'h', 0x04, 1,   '/', 0x00, 10, 'c',
                                         'o',  'n',  'n',  'e', 'c', 't',  'i', 'o', 'n',  1,  'x'},
                         no_path[] = {0x83, 0x86, 0x01, 1, 'h'};
    const struct {
        const uint8_t *block;
        size_t bytes;
    } blocks[] = {{upper, sizeof upper},
                  {twice, sizeof twice},
                  {late, sizeof late},
                  {connection, sizeof connection},
                  {no_path, sizeof no_path}};
    for (uint32_t i = 0; i < 5; i++) {
        peer.raw_out_bytes = 0;
        feed_frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 2 * i + 1, blocks[i].block,
                   blocks[i].bytes);
        cr_expect(eq(int, raw_count(&peer, NGHTTP2_RST_STREAM), 1), "block %u", i);
        cr_expect(peer.session_ok, "block %u", i);
    }
    feed_echo(101);
    cr_expect(eq(int, peer.num_messages, 1));
}

Test(grpc_limits, survives_random_damage_to_a_good_conversation)
{
    uint64_t seed = test_seed();
    for (int round = 0; round < 3000; round++) {
        uint8_t talk[1024];
        size_t bytes = 0;
        memcpy(talk, raw_preface, raw_preface_bytes);
        bytes += raw_preface_bytes;
        for (uint32_t id = 1; id < 6; id += 2) {
            uint8_t block[256];
            size_t length = header_block(block, id == 3 ? "/test.T/Later" : id == 5 ? "/test.T/Bidi" : "/test.T/Echo");
            bytes += make_frame(talk + bytes, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, id, block, length);
            static const uint8_t body[] = {0, 0, 0, 0, 4, 'w', 'x', 'y', 'z'};
            bytes += make_frame(talk + bytes, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, id, body, sizeof body);
        }
        for (uint32_t damage = test_random(&seed) % 4; damage > 0; damage--)
            talk[24 + test_random(&seed) % (bytes - 24)] = (uint8_t)test_random(&seed);
        restart(NULL, true);
        for (size_t at = 0; at < bytes;) {
            size_t part = 1 + test_random(&seed) % 40;
            part = part < bytes - at ? part : bytes - at;
            uint8_t *copy = malloc(part);
            memcpy(copy, talk + at, part);
            peer_feed(&peer, copy, part);
            free(copy);
            at += part;
            peer.raw_out_bytes = 0;
        }
    }
}
