/* What a well-meaning client gets from a session, and what one gets that breaks a rule of gRPC; the connection survives
 * all of it. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

static struct peer peer;

static void expect_status(const struct reply *reply, const char *status, const char *message_part)
{
    cr_expect(eq(str, (char *)reply->http_status, "200"));
    cr_expect(eq(str, (char *)reply->grpc_status, (char *)status), "message: %s", reply->message);
    cr_expect(strstr(reply->message, message_part) != NULL, "'%s' is not in '%s'", message_part, reply->message);
    cr_expect(reply->closed);
}

/* Runs one call to the end. */
static struct reply *run(const struct request *request)
{
    int32_t id = peer_start(&peer, request);
    peer_carry(&peer);
    return peer_reply(&peer, id);
}

static struct request echo_request(const char *text)
{
    size_t bytes;
    const uint8_t *body = framed(text, strlen(text), &bytes);
    return (struct request){.body = body, .body_bytes = bytes};
}

static void expect_alive(void)
{
    struct request request = echo_request("still here");
    struct reply *reply = run(&request);
    expect_status(reply, "0", "");
    cr_expect(eq(sz, reply->body_bytes, request.body_bytes));
    cr_expect(peer.session_ok);
}

static void deinit(void)
{
    peer_deinit(&peer);
}

static void init(void)
{
    peer_init(&peer, NULL, false);
}

TestSuite(grpc_session, .init = init, .fini = deinit);

Test(grpc_session, answers_a_unary_call_with_message_and_trailers)
{
    struct request request = echo_request("hello");
    struct reply *reply = run(&request);
    expect_status(reply, "0", "");
    cr_expect(eq(sz, reply->body_bytes, request.body_bytes));
    cr_expect(memcmp(reply->body, request.body, reply->body_bytes) == 0);
    cr_expect(eq(u32, reply->reset_code, NGHTTP2_NO_ERROR));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 0));
}

Test(grpc_session, answers_an_empty_message)
{
    struct request request = echo_request("");
    struct reply *reply = run(&request);
    expect_status(reply, "0", "");
    cr_expect(eq(sz, reply->body_bytes, 5));
}

Test(grpc_session, accepts_bytes_cut_anywhere_and_any_frame_size)
{
    char text[3000];
    memset(text, 'x', sizeof text);
    const size_t cuts[] = {1, 2, 3, 5, 7, 9, 64, SIZE_MAX}, frames[] = {1, 4, 5, 6, 1000, SIZE_MAX},
                 paddings[] = {0, 1, 200};
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < 6; j++) {
            for (size_t k = 0; k < 3; k++) {
                peer_deinit(&peer);
                peer_init(&peer, NULL, false);
                peer.cut = cuts[i];
                peer.data_frame_bytes = frames[j];
                peer.padding = paddings[k];
                size_t bytes;
                const uint8_t *body = framed(text, sizeof text, &bytes);
                struct reply *reply = run(&(struct request){.body = body, .body_bytes = bytes});
                expect_status(reply, "0", "");
                cr_expect(eq(sz, reply->body_bytes, bytes), "cut %zu, frames of %zu, padding %zu", cuts[i], frames[j],
                          paddings[k]);
                cr_expect(memcmp(reply->body, body, bytes) == 0);
            }
        }
    }
}

Test(grpc_session, carries_messages_larger_than_every_window)
{
    size_t length = 4u << 20, bytes;
    char *text = calloc(1, length);
    for (size_t i = 0; i < length; i++)
        text[i] = (char)(i * 7 + i / 1000);
    const uint8_t *body = framed(text, length, &bytes);
    struct reply *reply = run(&(struct request){.body = body, .body_bytes = bytes});
    expect_status(reply, "0", "");
    cr_expect(eq(sz, reply->body_bytes, bytes));
    cr_expect(memcmp(reply->body, body, bytes) == 0);
    free(text);
}

Test(grpc_session, accepts_every_form_of_the_content_type)
{
    const char *const good[] = {"application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8",
                                "Application/GRPC"};
    for (size_t i = 0; i < 4; i++) {
        struct request request = echo_request("x");
        request.content_type = good[i];
        expect_status(run(&request), "0", "");
    }
    const char *const bad[] = {"application/json", "application/grpc+json", "application/grpcx", "application/grp",
                               "application/grpc-web"};
    for (size_t i = 0; i < 5; i++) {
        struct request request = echo_request("x");
        request.content_type = bad[i];
        struct reply *reply = run(&request);
        cr_expect(eq(str, reply->http_status, "415"), "for %s", bad[i]);
    }
    expect_alive();
}

Test(grpc_session, answers_405_to_other_methods_than_post)
{
    struct request request = echo_request("x");
    request.method = "GET";
    struct reply *reply = run(&request);
    cr_expect(eq(str, reply->http_status, "405"));
    cr_expect(eq(str, reply->allow, "POST"));
    cr_expect(eq(int, peer.num_messages, 0));
    expect_alive();
}

Test(grpc_session, answers_unimplemented_to_unknown_paths_and_encodes_the_message)
{
    struct request request = echo_request("x");
    request.path = "/x.Y/Z%\xc3\xa9";
    expect_status(run(&request), "12", "unknown method /x.Y/Z%25%C3%A9");
    expect_alive();
}

Test(grpc_session, answers_unimplemented_to_paths_without_a_leading_slash)
{
    const char *const paths[] = {"test.T/Echo", "*", "x", "https://test/test.T/Echo", "a%b"};
    const size_t cuts[] = {1, 10, SIZE_MAX};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        peer.cut = cuts[i % 3];
        struct request request = echo_request("x");
        request.path = paths[i];
        struct reply *reply = run(&request);
        cr_expect(eq(str, reply->http_status, "200"), "for %s", paths[i]);
        cr_expect(eq(str, reply->grpc_status, "12"), "for %s", paths[i]);
        cr_expect(strstr(reply->message, "a path is /package.Service/Method") != NULL, "for %s: %s", paths[i],
                  reply->message);
        cr_expect(reply->closed);
    }
    cr_expect(eq(int, peer.num_messages, 0));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 0));
    expect_alive();
}

Test(grpc_session, refuses_a_path_without_slash_however_often_it_comes)
{
    for (int i = 0; i < 500; i++) { /* five times as many as other faults of HTTP/2 may be */
        struct request request = echo_request("x");
        request.path = i % 2 == 0 ? "nothing" : "/nothing";
        struct reply *reply = run(&request);
        cr_assert(eq(str, reply->grpc_status, "12"), "call %d", i);
        memset(reply, 0, sizeof *reply);
    }
    expect_alive();
}

Test(grpc_session, answers_unimplemented_to_unknown_compression_and_names_what_it_takes)
{
    struct request request = echo_request("x");
    request.encoding = "snappy";
    struct reply *reply = run(&request);
    expect_status(reply, "12", "'snappy' is not supported");
    cr_expect(eq(str, reply->accept_encoding, "identity,gzip"));
    request.encoding = "identity";
    expect_status(run(&request), "0", "");
}

Test(grpc_session, rejects_malformed_timeouts)
{
    const char *const bad[] = {"", "5", "S", "123456789S", "5x", "-1S", "0x5S", "1.5S"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct request request = echo_request("x");
        request.timeout = bad[i];
        struct reply *reply = run(&request);
        cr_expect(eq(str, reply->grpc_status, "13"), "for '%s': %s", bad[i], reply->message);
    }
    cr_expect(eq(int, peer.num_messages, 0));
    expect_alive();
}

Test(grpc_session, rejects_binary_headers_that_are_not_base64_and_names_them)
{
    const char *const bad[] = {"%%%", "A", "AAAAA", "AA=", "AAA==", "====", "=AAA", "AA=A", "AAEC,*", "AA-_", "A A="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct request request = echo_request("x");
        request.extra_name = "trace-context-bin";
        request.extra_value = bad[i];
        struct reply *reply = run(&request);
        cr_expect(eq(str, reply->grpc_status, "13"), "for '%s': %s", bad[i], reply->message);
        cr_expect(strstr(reply->message, "'trace-context-bin'") != NULL, "for '%s': %s", bad[i], reply->message);
        cr_expect(eq(u32, reply->reset_code, NGHTTP2_NO_ERROR));
    }
    cr_expect(eq(int, peer.num_messages, 0));
    expect_alive();
}

Test(grpc_session, takes_binary_headers_and_text_headers_as_they_may_be)
{
    const char *const good[][2] = {{"a-bin", ""},     {"a-bin", "AAEC"}, {"a-bin", "AA=="},    {"a-bin", "AA"},
                                   {"a-bin", "AAE="}, {"a-bin", "AAE"},  {"a-bin", "+/9z,AA"}, {"a-bin", "AA==, AAEC"},
                                   {"a-bin", ","},    {"a", "%%%"},      {"bin", "%%%"},       {"a-binary", "%%%"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct request request = echo_request("x");
        request.extra_name = good[i][0];
        request.extra_value = good[i][1];
        struct reply *reply = run(&request);
        cr_expect(eq(str, reply->grpc_status, "0"), "for '%s: %s': %s", good[i][0], good[i][1], reply->message);
    }
}

Test(grpc_session, never_calls_the_method_when_the_timeout_is_zero)
{
    struct request request = echo_request("x");
    request.timeout = "0n";
    expect_status(run(&request), "4", "deadline");
    cr_expect(eq(int, peer.num_messages, 0));
}

Test(grpc_session, never_calls_the_method_when_the_deadline_passed_while_the_message_arrived)
{
    struct request request = echo_request("x");
    request.timeout = "1m";
    request.body_bytes--; /* the last byte is on its way */
    request.keep_open = true;
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    cr_expect(eq(u64, rk_grpc_session_expire(peer.session, peer.now_us), peer.now_us + 1000));
    peer.now_us += 1000;
    cr_expect(eq(u64, rk_grpc_session_expire(peer.session, peer.now_us), UINT64_MAX));
    peer_carry(&peer);
    expect_status(peer_reply(&peer, id), "4", "deadline");
    cr_expect(eq(int, peer.num_messages, 0));
    expect_alive();
}

Test(grpc_session, expires_waiting_calls_in_order_and_tells_them)
{
    uint64_t seed = test_seed();
    int32_t ids[40];
    uint64_t timeouts_ms[40];
    for (int i = 0; i < 40; i++) {
        char timeout[16];
        timeouts_ms[i] = 1 + test_random(&seed) % 20;
        snprintf(timeout, sizeof timeout, "%um", (unsigned)timeouts_ms[i]);
        struct request request = echo_request("x");
        request.path = "/test.T/Later";
        request.timeout = timeout;
        ids[i] = peer_start(&peer, &request);
        peer_carry(&peer); /* the timeout's text is ours */
    }
    cr_assert(eq(sz, peer.num_waiting, 40));
    uint64_t start_us = peer.now_us;
    for (uint64_t ms = 1; ms <= 20; ms++) {
        if (ms == 5 && peer.waiting[7] != NULL) /* one is answered in time */
            rk_call_finish(peer.waiting[7], RK_GRPC_OK, NULL);
        peer.now_us = start_us + ms * 1000;
        uint64_t next_us = rk_grpc_session_expire(peer.session, peer.now_us);
        cr_expect(gt(u64, next_us, peer.now_us));
        peer_carry(&peer);
        for (int i = 0; i < 40; i++) {
            bool answered = peer_reply(&peer, ids[i])->closed;
            bool expected = timeouts_ms[i] <= ms || (i == 7 && ms >= 5);
            cr_expect(eq(int, answered, expected), "call %d of %llu ms at %llu ms", i,
                      (unsigned long long)timeouts_ms[i], (unsigned long long)ms);
        }
    }
    cr_expect(ge(int, peer.num_cancelled, 39));
}

Test(grpc_session, rejects_broken_framing_and_keeps_the_connection)
{
    static const uint8_t compressed[] = {1, 0, 0, 0, 1, 'x'}, bad_flag[] = {2, 0, 0, 0, 1, 'x'},
                         cut[] = {0, 0, 0, 0, 9, 'x'}, cut_prefix[] = {0, 0, 0},
                         two[] = {0, 0, 0, 0, 1, 'x', 0, 0, 0, 0, 1, 'y'}, one_and_a_half[] = {0, 0, 0, 0, 0, 0},
                         huge[] = {0, 0xff, 0xff, 0xff, 0xff}, one_over[] = {0, 0, 0x40, 0, 1};
    const struct {
        const uint8_t *body;
        size_t bytes;
        const char *status, *message;
    } cases[] = {
        {compressed, sizeof compressed, "13", "compressed"},
        {bad_flag, sizeof bad_flag, "13", "flag 2"},
        {cut, sizeof cut, "13", "1 of 9 bytes"},
        {cut_prefix, sizeof cut_prefix, "13", "3 of 5 bytes"},
        {two, sizeof two, "13", "the request has more"},
        {one_and_a_half, sizeof one_and_a_half, "13", "the request has more"},
        {NULL, 0, "13", "the request has none"},
        {huge, sizeof huge, "8", "limit of 4194304 bytes"},
        {one_over, sizeof one_over, "8", "4194305 bytes"},
    };
    for (size_t cut_bytes = 1; cut_bytes < 20; cut_bytes += 6) {
        peer.cut = peer.data_frame_bytes = cut_bytes;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            size_t held_before = rk_pool_held_bytes(peer.pool);
            expect_status(run(&(struct request){.body = cases[i].body, .body_bytes = cases[i].bytes}), cases[i].status,
                          cases[i].message);
            cr_expect(lt(sz, rk_pool_held_bytes(peer.pool) - held_before, 65536), "no memory for a declared length");
        }
    }
    cr_expect(eq(int, peer.num_messages, 0));
    expect_alive();
}

Test(grpc_session, resets_with_no_error_when_it_answers_before_the_half_close)
{
    static const uint8_t huge[] = {0, 0xff, 0xff, 0xff, 0xff};
    struct reply *reply = run(&(struct request){.body = huge, .body_bytes = sizeof huge, .keep_open = true});
    expect_status(reply, "8", "limit");
    cr_expect(eq(u32, reply->reset_code, NGHTTP2_NO_ERROR));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 0));
    expect_alive();
}

Test(grpc_session, answers_later_and_out_of_order)
{
    int32_t ids[3];
    for (int i = 0; i < 3; i++) {
        struct request request = echo_request("x");
        request.path = "/test.T/Later";
        ids[i] = peer_start(&peer, &request);
    }
    size_t bytes;
    framed("x", 1, &bytes);
    peer_carry(&peer);
    cr_assert(eq(sz, peer.num_waiting, 3));
    for (int i = 2; i >= 0; i--) {
        struct rk_call *call = peer.waiting[i];
        cr_expect(rk_call_data(call) == &peer);
        cr_expect(rk_call_session(call) == peer.session);
        uint8_t answer = (uint8_t)('0' + i);
        cr_expect(eq(int, rk_call_send(call, &answer, 1), RK_OK));
        rk_call_finish(call, RK_GRPC_OK, NULL);
        peer_carry(&peer);
        struct reply *reply = peer_reply(&peer, ids[i]);
        expect_status(reply, "0", "");
        cr_assert(eq(sz, reply->body_bytes, 6));
        cr_expect(eq(u8, reply->body[5], answer));
    }
    cr_expect(eq(int, peer.num_cancelled, 0));
}

Test(grpc_session, tells_the_method_once_when_the_peer_resets)
{
    struct request request = echo_request("x");
    request.path = "/test.T/Later";
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    peer_carry(&peer);
    cr_expect(eq(int, peer.num_cancelled, 1));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 0));
    expect_alive();
}

Test(grpc_session, tells_open_calls_when_it_is_destroyed)
{
    for (int i = 0; i < 3; i++) {
        struct request request = echo_request("x");
        request.path = "/test.T/Later";
        peer_start(&peer, &request);
    }
    peer_carry(&peer);
    rk_grpc_session_destroy(peer.session);
    peer.session = NULL;
    cr_expect(eq(int, peer.num_cancelled, 3));
}

Test(grpc_session, streams_messages_and_extra_trailers)
{
    struct request request = echo_request("abc");
    request.path = "/test.T/Three";
    struct reply *reply = run(&request);
    expect_status(reply, "0", "");
    cr_expect(eq(sz, reply->body_bytes, 3 * request.body_bytes));
    cr_expect(eq(str, reply->retry_hint, "17"));
}

Test(grpc_session, echoes_a_bidirectional_stream)
{
    static const uint8_t three[] = {0, 0, 0, 0, 1, 'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 'y', 'z'};
    for (size_t cut = 1; cut <= sizeof three; cut++) {
        peer.data_frame_bytes = cut;
        struct reply *reply = run(&(struct request){.path = "/test.T/Bidi", .body = three, .body_bytes = sizeof three});
        expect_status(reply, "0", "");
        cr_assert(eq(sz, reply->body_bytes, sizeof three));
        cr_expect(memcmp(reply->body, three, sizeof three) == 0);
    }
    cr_expect(eq(int, peer.num_half_closes, (int)sizeof three));
    cr_expect(eq(int, peer.num_messages, 3 * (int)sizeof three));
}

Test(grpc_session, holds_answers_to_the_output_limit_when_the_peer_does_not_read)
{
    struct request request = echo_request("x");
    request.path = "/test.T/Later";
    peer_start(&peer, &request);
    peer_carry(&peer);
    cr_assert(eq(sz, peer.num_waiting, 1));
    size_t length = 4u << 20, sent = 0;
    uint8_t *bytes = calloc(1, length);
    while (rk_call_send(peer.waiting[0], bytes, length) == RK_OK && sent < 100)
        sent++;
    cr_expect(eq(sz, sent, 3)); /* 16 MiB less the prefixes */
    rk_call_finish(peer.waiting[0], RK_GRPC_OK, NULL);
    peer_carry(&peer);
    expect_alive();
    free(bytes);
}

Test(grpc_session, cuts_status_messages_that_are_too_long)
{
    struct request request = echo_request("x");
    request.path = "/test.T/Later";
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    char *message = malloc(100001);
    memset(message, '\n', 100000);
    message[100000] = '\0';
    rk_call_finish(peer.waiting[0], RK_GRPC_INTERNAL, message);
    peer_carry(&peer);
    cr_expect(eq(sz, strlen(peer_reply(&peer, id)->message), 3 * 1024));
    free(message);
    expect_alive();
}

Test(grpc_session, drains_without_losing_calls)
{
    struct request request = echo_request("x");
    request.path = "/test.T/Later";
    int32_t first = peer_start(&peer, &request);
    peer_carry(&peer);
    int32_t second = peer_start(&peer, &request); /* on its way when the draining begins */
    rk_grpc_session_drain(peer.session);
    peer_carry(&peer);
    cr_assert(eq(sz, peer.num_waiting, 2));
    cr_expect(not(rk_grpc_session_finished(peer.session)));
    for (int i = 0; i < 2; i++)
        rk_call_finish(peer.waiting[i], RK_GRPC_OK, NULL);
    peer_carry(&peer);
    expect_status(peer_reply(&peer, first), "0", "");
    expect_status(peer_reply(&peer, second), "0", "");
    cr_expect(rk_grpc_session_finished(peer.session));
}

Test(grpc_session, an_idle_session_that_drains_is_finished)
{
    peer_carry(&peer);
    cr_expect(not(rk_grpc_session_finished(peer.session)));
    rk_grpc_session_drain(peer.session);
    peer_carry(&peer);
    cr_expect(rk_grpc_session_finished(peer.session));
}
