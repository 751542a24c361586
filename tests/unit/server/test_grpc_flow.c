/* What a method can ask of its call, and how fast messages come and go: metadata, authorization, the end of calls,
 * pausing, and answers that wait for the peer. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

static struct peer peer;
static const uint8_t one[] = {0, 0, 0, 0, 1, 'x'};

static struct rk_call *held; /* of the method below */
static int num_messages, num_half_closes, num_writable;
static bool pauses;
static char seen[64]; /* first bytes of its messages */

static void keep(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    held = call;
    seen[num_messages++ % 64] = length > 0 ? (char)bytes[0] : '-';
    if (pauses)
        rk_call_pause(call);
}

static void kept_half_close(void *service, struct rk_call *call)
{
    (void)service, (void)call;
    num_half_closes++;
}

static void kept_cancelled(void *service, struct rk_call *call)
{
    (void)service, (void)call;
    held = NULL;
}

static void kept_writable(void *service, struct rk_call *call)
{
    (void)service;
    cr_expect(call == held);
    num_writable++;
}

static void init(void)
{
    peer_init(&peer, NULL, false);
    peer.methods[3].message = keep;
    peer.methods[3].half_close = kept_half_close;
    peer.methods[3].cancelled = kept_cancelled;
    peer.methods[3].writable = kept_writable;
    held = NULL;
    num_messages = num_half_closes = num_writable = 0;
    pauses = false;
    memset(seen, 0, sizeof seen);
}

static void deinit(void)
{
    peer_deinit(&peer);
}

TestSuite(grpc_flow, .init = init, .fini = deinit);

static struct reply *run(const struct request *request)
{
    int32_t id = peer_start(&peer, request);
    peer_carry(&peer);
    return peer_reply(&peer, id);
}

/* ---- metadata, authorization, the end ---- */

static char told_name[64], told_path[64];
static enum rk_grpc_status told_status;
static int num_finished;

static enum rk_grpc_status authorize(void *access, struct rk_call *call, char *message, size_t capacity)
{
    const char *token = rk_call_metadata(call, "authorization");
    if (token != NULL && strcmp(token, access) == 0)
        return RK_GRPC_OK;
    snprintf(message, capacity, "%s is not for '%s'", rk_call_path(call), token != NULL ? token : "nobody");
    return RK_GRPC_UNAUTHENTICATED;
}

static void finished(void *log, const struct rk_call *call, enum rk_grpc_status status)
{
    cr_expect(log == &peer);
    const char *name = rk_call_metadata(call, "x-name");
    snprintf(told_name, sizeof told_name, "%s", name != NULL ? name : "none");
    snprintf(told_path, sizeof told_path, "%s", rk_call_path(call));
    told_status = status;
    num_finished++;
}

static void watch_ends(void)
{
    peer.config.finished = finished;
    peer.config.access_log = &peer;
    num_finished = 0;
    told_status = RK_GRPC_UNKNOWN;
}

Test(grpc_flow, finds_metadata_by_name_as_it_was_sent)
{
    const char *const pairs[][2] = {
        {"x-name", "v"}, {"x-name", ""}, {"trace-bin", "AAEC"}, {"user-agent-2", "a b c"}, {"x", "%20"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        run(&(struct request){.path = "/test.T/Bidi",
                              .body = one,
                              .body_bytes = sizeof one,
                              .extra_name = pairs[i][0],
                              .extra_value = pairs[i][1],
                              .keep_open = true});
        cr_assert(held != NULL);
        const char *value = rk_call_metadata(held, pairs[i][0]);
        cr_expect(value != NULL && strcmp(value, pairs[i][1]) == 0, "%s: %s", pairs[i][0], value);
        cr_expect(rk_call_metadata(held, "x-nam") == NULL);
        cr_expect(rk_call_metadata(held, ":path") == NULL);
        cr_expect(eq(str, (char *)rk_call_path(held), "/test.T/Bidi"));
        rk_call_finish(held, RK_GRPC_OK, NULL);
        peer_carry(&peer);
    }
}

Test(grpc_flow, asks_who_may_call_before_any_message)
{
    char token[] = "Bearer secret";
    peer.config.authorize = authorize;
    peer.config.access = token;
    watch_ends();
    struct request request = {.body = one, .body_bytes = sizeof one, .extra_name = "authorization"};
    request.extra_value = "Bearer wrong";
    struct reply *reply = run(&request);
    cr_expect(eq(str, reply->grpc_status, "16"));
    cr_expect(eq(str, reply->message, "/test.T/Echo is not for 'Bearer wrong'"));
    cr_expect(eq(int, peer.num_messages, 0));
    cr_expect(eq(int, told_status, RK_GRPC_UNAUTHENTICATED));
    request.extra_value = token;
    cr_expect(eq(str, run(&request)->grpc_status, "0"));
    cr_expect(eq(int, peer.num_messages, 1));
    request.path = "/no.Such/Method";
    request.extra_value = "Bearer wrong";
    cr_expect(eq(str, run(&request)->grpc_status, "12"), "what is not there is not guarded");
    cr_expect(eq(int, num_finished, 2));
}

Test(grpc_flow, tells_the_end_of_every_call_that_had_a_method_once)
{
    watch_ends();
    struct request request = {.body = one, .body_bytes = sizeof one, .extra_name = "x-name", .extra_value = "me"};
    run(&request);
    cr_expect(eq(int, num_finished, 1));
    cr_expect(eq(int, told_status, RK_GRPC_OK));
    cr_expect(eq(str, told_name, "me"));
    cr_expect(eq(str, told_path, "/test.T/Echo"));

    request.body_bytes = 3; /* half a prefix */
    run(&request);
    cr_expect(eq(int, told_status, RK_GRPC_INTERNAL));

    request = (struct request){.path = "/test.T/Later", .body = one, .body_bytes = sizeof one, .timeout = "1m"};
    run(&request);
    peer.now_us += 1000;
    rk_grpc_session_expire(peer.session, peer.now_us);
    cr_expect(eq(int, told_status, RK_GRPC_DEADLINE_EXCEEDED));

    request.timeout = NULL;
    int32_t id = peer_start(&peer, &request);
    peer_carry(&peer);
    nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    peer_carry(&peer);
    cr_expect(eq(int, told_status, RK_GRPC_CANCELLED));
    cr_expect(eq(int, num_finished, 4));
    cr_expect(eq(str, told_name, "none"));

    run(&(struct request){.method = "GET"});
    run(&(struct request){.path = "/no.Such/Method", .body = one, .body_bytes = sizeof one});
    cr_expect(eq(int, num_finished, 4));
}

Test(grpc_flow, sends_initial_metadata_with_the_first_message_or_with_the_trailers)
{
    for (int with_message = 0; with_message < 2; with_message++) {
        int32_t id =
            peer_start(&peer, &(struct request){.path = "/test.T/Later", .body = one, .body_bytes = sizeof one});
        peer_carry(&peer);
        struct rk_call *call = peer.waiting[peer.num_waiting - 1];
        char name[] = "retry-hint", value[] = "soon";
        rk_call_add_header(call, name, value);
        memset(value, 'x', sizeof value - 1); /* it was copied */
        if (with_message == 1) {
            rk_call_send(call, one, 1);
            peer_carry(&peer);
            cr_expect(eq(str, peer_reply(&peer, id)->retry_hint, "soon"));
            cr_expect(not(peer_reply(&peer, id)->closed));
        }
        rk_call_finish(call, RK_GRPC_ABORTED, "why");
        peer_carry(&peer);
        cr_expect(eq(str, peer_reply(&peer, id)->retry_hint, "soon"));
        cr_expect(eq(str, peer_reply(&peer, id)->grpc_status, "10"));
    }
}

/* ---- pausing ---- */

Test(grpc_flow, a_paused_call_gets_one_message_at_a_time_and_the_half_close_last)
{
    static const uint8_t three[] = {0, 0, 0, 0, 1, 'a', 0, 0, 0, 0, 1, 'b', 0, 0, 0, 0, 1, 'c'};
    for (size_t frame = 1; frame <= sizeof three; frame++) {
        num_messages = num_half_closes = 0;
        pauses = true;
        peer.data_frame_bytes = frame;
        int32_t id =
            peer_start(&peer, &(struct request){.path = "/test.T/Bidi", .body = three, .body_bytes = sizeof three});
        for (int i = 1; i <= 3; i++) {
            peer_carry(&peer);
            cr_assert(eq(int, num_messages, i), "in frames of %zu", frame);
            cr_expect(eq(int, num_half_closes, 0), "in frames of %zu", frame);
            rk_call_resume(held);
        }
        rk_call_resume(held); /* it is not paused: nothing happens */
        cr_expect(eq(int, num_messages, 3));
        cr_expect(eq(int, num_half_closes, 1), "in frames of %zu", frame);
        cr_expect(memcmp(seen, "abc", 3) == 0);
        rk_call_finish(held, RK_GRPC_OK, NULL);
        peer_carry(&peer);
        cr_expect(eq(str, peer_reply(&peer, id)->grpc_status, "0"));
    }
}

Test(grpc_flow, the_half_close_waits_for_a_paused_call_that_holds_nothing)
{
    pauses = true;
    int32_t id = peer_start(&peer, &(struct request){.path = "/test.T/Bidi", .body = one, .body_bytes = sizeof one});
    peer_carry(&peer);
    cr_expect(eq(int, num_half_closes, 0));
    rk_call_resume(held);
    cr_expect(eq(int, num_half_closes, 1));
    rk_call_resume(held);
    cr_expect(eq(int, num_half_closes, 1));
    rk_call_finish(held, RK_GRPC_OK, NULL);
    peer_carry(&peer);
    cr_expect(eq(str, peer_reply(&peer, id)->grpc_status, "0"));
}

Test(grpc_flow, a_paused_call_holds_one_window_and_no_other_call_up)
{
    struct rk_grpc_limits limits = RK_GRPC_LIMITS_DEFAULT;
    limits.max_message_bytes = 64 << 10;
    peer_deinit(&peer);
    peer_init(&peer, &limits, false);
    peer.methods[3].message = keep;
    peer.methods[3].half_close = kept_half_close;
    pauses = true;
    const size_t count = 20000, each = 1005;
    uint8_t *body = calloc(count, each);
    for (size_t i = 0; i < count; i++)
        body[i * each + 3] = 1000 >> 8, body[i * each + 4] = 1000 & 255;
    int32_t id = peer_start(&peer, &(struct request){.path = "/test.T/Bidi", .body = body, .body_bytes = count * each});
    peer_carry(&peer);
    cr_expect(eq(int, num_messages, 1));
    cr_expect(lt(sz, rk_pool_held_bytes(peer.pool), 2 << 20)); /* of 20 MB that the peer wants to send */
    struct reply *other = run(&(struct request){.body = one, .body_bytes = sizeof one});
    cr_expect(eq(str, other->grpc_status, "0"));
    pauses = false;
    rk_call_resume(held);
    peer_carry(&peer);
    cr_expect(eq(int, num_messages, (int)count));
    cr_expect(eq(int, num_half_closes, 1));
    rk_call_finish(held, RK_GRPC_OK, NULL);
    peer_carry(&peer);
    cr_expect(eq(str, peer_reply(&peer, id)->grpc_status, "0"));
    cr_expect(lt(sz, rk_pool_held_bytes(peer.pool), 2 << 20));
    free(body);
}

Test(grpc_flow, a_paused_call_may_be_cancelled)
{
    static const uint8_t two[] = {0, 0, 0, 0, 1, 'a', 0, 0, 0, 0, 1, 'b'};
    pauses = true;
    int32_t id = peer_start(&peer, &(struct request){.path = "/test.T/Bidi", .body = two, .body_bytes = sizeof two});
    peer_carry(&peer);
    nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    peer_carry(&peer);
    cr_expect(held == NULL);
    cr_expect(eq(int, num_messages, 1));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 0));
}

/* ---- answers that wait ---- */

Test(grpc_flow, says_when_the_peer_has_taken_half_of_what_waits)
{
    peer_start(&peer,
               &(struct request){.path = "/test.T/Bidi", .body = one, .body_bytes = sizeof one, .keep_open = true});
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1000};
    nghttp2_submit_settings(peer.client, NGHTTP2_FLAG_NONE, &window, 1);
    peer_carry(&peer);
    cr_assert(held != NULL);
    static uint8_t bytes[32 << 10];
    int sent = 0;
    while (rk_call_queued_bytes(held) < RK_CALL_OUTPUT_MARK && sent++ < 100)
        cr_assert(eq(int, rk_call_send(held, bytes, sizeof bytes), RK_OK));
    size_t before = rk_call_queued_bytes(held);
    cr_expect(eq(sz, before, (size_t)sent * (sizeof bytes + 5)));
    uint8_t buffer[1024];
    while (rk_call_queued_bytes(held) > RK_CALL_OUTPUT_MARK / 2 && sent++ < 2000) {
        cr_expect(eq(int, num_writable, 0));
        const size_t out = rk_grpc_session_output(peer.session, buffer, sizeof buffer);
        nghttp2_session_mem_recv(peer.client, buffer, out);
        const uint8_t *update;
        const ssize_t length = nghttp2_session_mem_send(peer.client, &update);
        if (length > 0)
            rk_grpc_session_receive(peer.session, update, (size_t)length, peer.now_us);
    }
    cr_expect(lt(sz, rk_call_queued_bytes(held), before));
    cr_expect(eq(int, num_writable, 1));
    peer_carry(&peer);
    cr_expect(eq(int, num_writable, 1), "once, until it has reached the mark again");
    cr_expect(eq(sz, rk_call_queued_bytes(held), 0));
    rk_call_finish(held, RK_GRPC_OK, NULL);
    peer_carry(&peer);
}
