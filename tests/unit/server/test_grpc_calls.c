/* What methods can do with a call beyond answering it: ask for its metadata, pause it, send more than its peer takes at
 * once; and what a session asks and tells about calls. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

#define MAX_MESSAGES 2048

static struct peer peer;

/* What the test's method saw, and what it is to do. */
static struct {
    struct rk_call *call;
    size_t lengths[MAX_MESSAGES];
    size_t num_messages;
    char metadata[256];
    bool pauses;       /* after each message */
    bool while_paused; /* a message or half-close came while it was paused */
    bool paused;
    int num_half_closes, num_writable;
    size_t left_to_send; /* messages of 10,000 bytes */
    int num_finished, num_asked, num_leaving;
    enum rk_grpc_status last_status, allowed;
    char last_path[64];
} seen;

static void message(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service, (void)bytes;
    seen.call = call;
    seen.while_paused |= seen.paused;
    seen.lengths[seen.num_messages++ % MAX_MESSAGES] = length;
    const char *value = rk_call_metadata(call, "x-colour");
    snprintf(seen.metadata, sizeof seen.metadata, "%s", value != NULL ? value : "(none)");
    if (seen.pauses) {
        seen.paused = true;
        rk_call_pause(call);
    }
}

static void message_and_end(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    message(service, call, bytes, length);
    rk_call_note(call, "subject", 3);
    rk_call_send(call, bytes, length);
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void half_close(void *service, struct rk_call *call)
{
    (void)service;
    seen.num_half_closes++;
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void send_some(void *service, struct rk_call *call)
{
    (void)service;
    static const uint8_t bytes[10000];
    while (seen.left_to_send > 0 && rk_call_queued_bytes(call) < RK_CALL_OUTPUT_MARK) {
        seen.left_to_send--;
        cr_assert_eq(rk_call_send(call, bytes, sizeof bytes), RK_OK);
    }
    if (seen.left_to_send == 0)
        rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void writable(void *service, struct rk_call *call)
{
    seen.num_writable++;
    cr_expect_leq(rk_call_queued_bytes(call), RK_CALL_OUTPUT_MARK / 2);
    send_some(service, call);
}

static void send_many(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    message(service, call, bytes, length);
    send_some(service, call);
}

static void leaving(void *service, struct rk_call *call)
{
    (void)service;
    seen.num_leaving++;
    rk_call_finish(call, RK_GRPC_UNAVAILABLE, "going");
}

static void finished(void *log, const struct rk_call *call, enum rk_grpc_status status)
{
    cr_expect_eq(log, (void *)&seen);
    seen.num_finished++;
    seen.last_status = status;
    snprintf(seen.last_path, sizeof seen.last_path, "%s %s %llu", rk_call_path(call),
             rk_call_subject(call) != NULL ? rk_call_subject(call) : "-", (unsigned long long)rk_call_amount(call));
}

static enum rk_grpc_status authorize(void *access, struct rk_call *call, char *text, size_t capacity)
{
    cr_expect_eq(access, (void *)&seen);
    seen.num_asked++;
    const char *token = rk_call_metadata(call, "authorization");
    snprintf(text, capacity, "%s may not call %s", token != NULL ? token : "nobody", rk_call_path(call));
    return seen.allowed;
}

static void init(void)
{
    memset(&seen, 0, sizeof seen);
    peer_init(&peer, NULL, false);
    peer.methods[0].message = message_and_end;
    peer.methods[2].message = send_many;
    peer.methods[2].writable = writable;
    peer.methods[3].message = message;
    peer.methods[3].half_close = half_close;
    peer.methods[3].leaving = leaving;
    peer.methods[3].cancelled = NULL;
}

static void deinit(void)
{
    peer_deinit(&peer);
}

TestSuite(grpc_calls, .init = init, .fini = deinit);

static struct reply *run(const struct request *request)
{
    int32_t id = peer_start(&peer, request);
    peer_carry(&peer);
    return peer_reply(&peer, id);
}

static struct request unary(const char *name, const char *value)
{
    size_t bytes;
    const uint8_t *body = framed("hi", 2, &bytes);
    return (struct request){.body = body, .body_bytes = bytes, .extra_name = name, .extra_value = value};
}

/* `count` messages of which number i is i % 700 bytes long. */
static uint8_t *many(size_t count, size_t *bytes)
{
    uint8_t *body = calloc(count, 705);
    *bytes = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t length = i % 700;
        body[*bytes + 3] = (uint8_t)(length >> 8);
        body[*bytes + 4] = (uint8_t)length;
        *bytes += 5 + length;
    }
    return body;
}

Test(grpc_calls, metadata_is_there_for_the_method_by_its_name)
{
    struct request request = unary("x-colour", "green");
    run(&request);
    cr_expect(eq(str, seen.metadata, "green"));
    request = unary("x-other", "green");
    run(&request);
    cr_expect(eq(str, seen.metadata, "(none)"));
}

Test(grpc_calls, metadata_of_many_open_calls_is_bounded_and_given_back)
{
    char large[4096];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    struct request request = unary("x-colour", large);
    request.path = "/test.T/Bidi";
    request.keep_open = true;
    int32_t ids[300];
    int refused = 0;
    for (int i = 0; i < 250; i++)
        ids[i] = peer_start(&peer, &request);
    peer_carry(&peer);
    for (int i = 0; i < 250; i++)
        refused += peer_reply(&peer, ids[i])->closed;
    cr_expect_eq(refused, 0);
    for (int i = 250; i < 300; i++) /* replies are kept by id: the first ones' are overwritten */
        ids[i] = peer_start(&peer, &request);
    peer_carry(&peer);
    for (int i = 250; i < 300; i++)
        refused += peer_reply(&peer, ids[i])->closed;
    cr_expect_gt(refused, 40, "1 MiB holds less than 256 of them: %d were refused", refused);
    for (int i = 0; i < 300; i++)
        nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, ids[i], NGHTTP2_CANCEL);
    peer_carry(&peer);
    cr_expect_eq(rk_grpc_session_open_calls(peer.session), 0);
    request = unary("x-colour", large);
    cr_expect(eq(str, (char *)run(&request)->grpc_status, "0"));
}

Test(grpc_calls, who_may_call_is_asked_once_and_a_refusal_reaches_no_method)
{
    peer.config.authorize = authorize;
    peer.config.access = &seen;
    struct request request = unary("authorization", "Bearer x");
    cr_expect(eq(str, (char *)run(&request)->grpc_status, "0"));
    cr_expect_eq(seen.num_asked, 1);
    cr_expect_eq(seen.num_messages, 1);
    seen.allowed = RK_GRPC_PERMISSION_DENIED;
    struct reply *reply = run(&request);
    cr_expect(eq(str, (char *)reply->grpc_status, "7"));
    cr_expect(eq(str, (char *)reply->message, "Bearer x may not call /test.T/Echo"));
    cr_expect_eq(seen.num_asked, 2);
    cr_expect_eq(seen.num_messages, 1);
    request.path = "/test.T/Nothing";
    cr_expect(eq(str, (char *)run(&request)->grpc_status, "12"));
    cr_expect_eq(seen.num_asked, 2, "an unknown method is nobody's to allow");
}

Test(grpc_calls, each_call_is_told_of_once_when_it_ends)
{
    peer.config.finished = finished;
    peer.config.access_log = &seen;
    struct request request = unary(NULL, NULL);
    run(&request);
    cr_expect_eq(seen.num_finished, 1);
    cr_expect_eq(seen.last_status, RK_GRPC_OK);
    cr_expect(eq(str, seen.last_path, "/test.T/Echo subject 3"));
    request.path = "/test.T/Later";
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    cr_expect_eq(seen.num_finished, 1);
    nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    peer_carry(&peer);
    cr_expect_eq(seen.num_finished, 2);
    cr_expect_eq(seen.last_status, RK_GRPC_CANCELLED);
    request.timeout = "0n";
    run(&request);
    cr_expect_eq(seen.num_finished, 3);
    cr_expect_eq(seen.last_status, RK_GRPC_DEADLINE_EXCEEDED);
    request.path = "/test.T/Nothing";
    run(&request);
    cr_expect_eq(seen.num_finished, 3, "a call without a method is no call");
}

Test(grpc_calls, a_paused_call_gets_nothing_until_it_is_resumed_and_then_all_of_it_in_order)
{
    const size_t cuts[] = {1, 7, 4096, SIZE_MAX};
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        const size_t count = 1000;
        size_t bytes, resumed = 0;
        uint8_t *body = many(count, &bytes);
        memset(&seen, 0, sizeof seen);
        seen.pauses = true;
        peer.cut = peer.data_frame_bytes = cuts[c];
        struct request request = {.path = "/test.T/Bidi", .body = body, .body_bytes = bytes};
        int32_t id = peer_start(&peer, &request);
        peer_carry(&peer);
        while (seen.num_messages < count) {
            cr_assert_eq(seen.num_messages, ++resumed);
            seen.paused = false;
            rk_call_resume(seen.call);
            peer_carry(&peer);
        }
        seen.pauses = seen.paused = false;
        if (seen.num_half_closes == 0)
            rk_call_resume(seen.call);
        peer_carry(&peer);
        for (size_t i = 0; i < count; i++)
            cr_assert_eq(seen.lengths[i], i % 700, "message %zu has %zu bytes", i, seen.lengths[i]);
        cr_expect_not(seen.while_paused);
        cr_expect_eq(seen.num_half_closes, 1);
        cr_expect(eq(str, (char *)peer_reply(&peer, id)->grpc_status, "0"));
        free(body);
    }
}

Test(grpc_calls, a_paused_call_s_window_closes_others_go_on_and_it_opens_again)
{
    size_t bytes;
    static char large[3u << 20];
    uint8_t *body = malloc(4 * (sizeof large + 5));
    for (int i = 0; i < 4; i++)
        memcpy(body + i * (sizeof large + 5), framed(large, sizeof large, &bytes), sizeof large + 5);
    seen.pauses = true;
    struct request request = {.path = "/test.T/Bidi", .body = body, .body_bytes = 4 * (sizeof large + 5)};
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    cr_assert_eq(seen.num_messages, 1);
    cr_expect_eq(nghttp2_session_get_stream_remote_window_size(peer.client, id), 0);
    cr_expect_lt(rk_pool_held_bytes(peer.pool), 16u << 20);
    struct request other = unary(NULL, NULL);
    struct rk_call *paused = seen.call;
    seen.pauses = false;
    cr_expect(eq(str, (char *)run(&other)->grpc_status, "0"));
    rk_call_resume(paused);
    peer_carry(&peer);
    cr_expect(eq(str, (char *)peer_reply(&peer, id)->grpc_status, "0"));
    cr_expect_eq(seen.num_messages, 5);
    free(body);
}

Test(grpc_calls, windows_are_given_back_with_all_padding_however_much_comes)
{
    size_t bytes;
    uint8_t *body = many(60000, &bytes); /* past the connection's window, with the padding three times so much */
    seen.pauses = false;
    peer.padding = 200;
    peer.data_frame_bytes = 100;
    struct request request = {.path = "/test.T/Bidi", .body = body, .body_bytes = bytes};
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    cr_expect_eq(seen.num_messages, 60000);
    cr_expect(eq(str, (char *)peer_reply(&peer, id)->grpc_status, "0"));
    free(body);
}

Test(grpc_calls, a_paused_call_may_be_given_up)
{
    size_t bytes;
    uint8_t *body = many(1000, &bytes);
    seen.pauses = true;
    for (int i = 0; i < 20; i++) {
        struct request request = {.path = "/test.T/Bidi", .body = body, .body_bytes = bytes};
        int32_t id = peer_start(&peer, &request);
        peer_carry(&peer);
        if (i % 2 == 0)
            nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
        else
            rk_call_finish(seen.call, RK_GRPC_ABORTED, "enough");
        peer_carry(&peer);
    }
    cr_expect_eq(rk_grpc_session_open_calls(peer.session), 0);
    free(body);
}

Test(grpc_calls, a_method_that_stopped_at_the_mark_hears_when_its_answers_are_taken)
{
    size_t bytes;
    seen.left_to_send = 500;
    struct request request = {.path = "/test.T/Three", .body = framed("hi", 2, &bytes), .body_bytes = 7};
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    const struct reply *reply = peer_reply(&peer, id);
    cr_expect_gt(reply->body_bytes, 0u);
    /* The client gives its window back by itself. */
    cr_expect(eq(str, (char *)reply->grpc_status, "0"));
    cr_expect_eq(reply->body_bytes, 500u * 10005u);
    cr_expect_gt(seen.num_writable, 10);
}

Test(grpc_calls, calls_without_an_end_of_their_own_hear_that_the_connection_is_leaving)
{
    size_t bytes;
    struct request request = {.path = "/test.T/Bidi",
                              .body = framed("hi", 2, &bytes),
                              .body_bytes = 7,
                              .keep_open = true};
    int32_t id = peer_start(&peer, &request);
    request.path = "/test.T/Later";
    request.keep_open = false;
    int32_t unary_id = peer_start(&peer, &request);
    peer_carry(&peer);
    rk_grpc_session_drain(peer.session);
    peer_carry(&peer);
    cr_expect_eq(seen.num_leaving, 1);
    cr_expect(eq(str, (char *)peer_reply(&peer, id)->grpc_status, "14"));
    cr_expect_not(peer_reply(&peer, unary_id)->closed);
    rk_call_finish(peer.waiting[0], RK_GRPC_OK, NULL);
    peer_carry(&peer);
    cr_expect(eq(str, (char *)peer_reply(&peer, unary_id)->grpc_status, "0"));
}
