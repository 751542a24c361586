/* What time does to a connection: silent peers, hasty ones, idle and old connections, shut windows. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

#define SECOND_US 1000000u

static struct peer peer;
static const uint8_t one[] = {0, 0, 0, 0, 1, 'x'};
/* An empty SETTINGS frame, and the acknowledgement of ours, whose last byte is the literal's own NUL. */
static const char first_words[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0";

static void init(void)
{
    peer_init(&peer, NULL, false);
    peer.config.times = RK_GRPC_TIMES_DEFAULT;
}

static void deinit(void)
{
    peer_deinit(&peer);
}

TestSuite(grpc_time, .init = init, .fini = deinit);

/* A peer that speaks in raw bytes; it has acknowledged our SETTINGS, or not. */
static void restart_raw(bool acknowledges)
{
    peer_deinit(&peer);
    peer_init(&peer, NULL, true);
    peer.config.times = RK_GRPC_TIMES_DEFAULT;
    peer_feed(&peer, first_words, acknowledges ? sizeof first_words : sizeof first_words - 9);
    cr_assert(peer.session_ok);
    peer.raw_out_bytes = 0;
}

/* Seconds pass, each with a tick and what it makes both say; false: the connection ended. */
static bool pass(int seconds)
{
    bool alive = true;
    for (int i = 0; i < seconds && alive; i++) {
        peer.now_us += SECOND_US;
        alive = rk_grpc_session_tick(peer.session, peer.now_us);
        if (peer.client != NULL)
            peer_carry(&peer);
        else
            peer.raw_out_bytes += rk_grpc_session_output(peer.session, peer.raw_out + peer.raw_out_bytes,
                                                         sizeof peer.raw_out - peer.raw_out_bytes);
    }
    return alive;
}

static bool said(const char *text)
{
    return memmem(peer.raw_out, peer.raw_out_bytes, text, strlen(text)) != NULL;
}

static void ping(void)
{
    uint8_t frame[32];
    peer_feed(&peer, frame, make_frame(frame, NGHTTP2_PING, 0, 0, "12345678", 8));
}

/* ---- handshake and silence ---- */

Test(grpc_time, a_peer_that_never_acknowledges_settings_is_cut_off)
{
    restart_raw(false);
    cr_expect(pass(9));
    cr_expect(not(pass(2)));
    cr_expect(eq(i64, raw_goaway_code(&peer), NGHTTP2_SETTINGS_TIMEOUT));
    cr_expect(said("SETTINGS are not acknowledged"));
    cr_expect(rk_grpc_session_finished(peer.session));
    restart_raw(true);
    cr_expect(pass(30));
}

Test(grpc_time, nothing_is_asked_of_a_peer_that_has_not_spoken)
{
    peer_deinit(&peer);
    peer_init(&peer, NULL, true);
    peer.config.times = RK_GRPC_TIMES_DEFAULT;
    pass(1); /* our SETTINGS */
    peer.raw_out_bytes = 0;
    cr_expect(pass(1000)); /* its owner counts the time until the preface */
    cr_expect(eq(sz, peer.raw_out_bytes, 0));
}

Test(grpc_time, a_silent_peer_is_pinged_and_cut_off_when_it_does_not_answer)
{
    restart_raw(true);
    cr_expect(pass(119));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_PING), 0));
    cr_expect(pass(2));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_PING), 1));
    cr_expect(pass(17));
    cr_expect(not(pass(3)));
    cr_expect(said("keepalive pings are not answered"));
    cr_expect(eq(i64, raw_goaway_code(&peer), NGHTTP2_NO_ERROR));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_PING), 1));
}

Test(grpc_time, a_peer_that_answers_pings_stays)
{
    peer.config.times.idle_us = 0;
    peer_carry(&peer);
    cr_expect(pass(1000)); /* nghttp2's client answers by itself */
    cr_expect(
        eq(str,
           peer_reply(&peer, peer_start(&peer, &(struct request){.body = one, .body_bytes = sizeof one}))->grpc_status,
           ""));
    peer_carry(&peer);
    cr_expect(eq(int, peer.num_messages, 1));
}

/* ---- too_many_pings ---- */

Test(grpc_time, pings_in_a_row_are_too_many)
{
    restart_raw(true);
    for (int i = 0; i < 3; i++) {
        ping();
        cr_expect(peer.session_ok, "ping %d", i);
    }
    ping();
    cr_expect(not(peer.session_ok));
    cr_expect(eq(i64, raw_goaway_code(&peer), NGHTTP2_ENHANCE_YOUR_CALM));
    cr_expect(said("too_many_pings"));
    cr_expect(eq(str, (char *)rk_grpc_session_why(peer.session), "too_many_pings"));
}

Test(grpc_time, pings_at_the_interval_are_fine_and_strikes_are_not_forgiven_by_waiting)
{
    restart_raw(true);
    for (int i = 0; i < 100; i++) {
        peer.now_us += 5 * SECOND_US;
        ping();
        cr_assert(peer.session_ok, "ping %d", i);
    }
    for (int i = 0; i < 2; i++) {
        ping();
        peer.now_us += 100 * SECOND_US;
        ping();
        cr_assert(peer.session_ok, "strike %d", i);
    }
    ping();
    cr_expect(not(peer.session_ok));
}

Test(grpc_time, an_answer_forgives_all_pings)
{
    peer_carry(&peer);
    for (int call = 0; call < 50; call++) {
        for (int i = 0; i < 3; i++)
            nghttp2_submit_ping(peer.client, NGHTTP2_FLAG_NONE, NULL);
        peer_carry(&peer);
        cr_assert(peer.session_ok);
        int32_t id = peer_start(&peer, &(struct request){.body = one, .body_bytes = sizeof one});
        peer_carry(&peer);
        cr_assert(eq(str, peer_reply(&peer, id)->grpc_status, "0"));
    }
}

/* ---- idle, old, leaving ---- */

Test(grpc_time, an_idle_connection_is_told_to_go_and_one_with_a_call_is_not)
{
    peer_start(&peer, &(struct request){.path = "/test.T/Later", .body = one, .body_bytes = sizeof one});
    peer_carry(&peer);
    cr_expect(pass(1000));
    cr_expect(not(rk_grpc_session_finished(peer.session)));
    rk_call_finish(peer.waiting[0], RK_GRPC_OK, NULL);
    peer_carry(&peer);
    cr_expect(pass(299));
    cr_expect(not(rk_grpc_session_finished(peer.session)));
    cr_expect(pass(2));
    cr_expect(rk_grpc_session_finished(peer.session)); /* the client heard GOAWAY and had nothing open */
}

Test(grpc_time, an_old_connection_finishes_its_calls_within_the_grace)
{
    peer.config.times.max_age_us = 100 * SECOND_US;
    peer.config.times.age_grace_us = 30 * SECOND_US;
    for (int finishes = 0; finishes < 2; finishes++) {
        int32_t id =
            peer_start(&peer, &(struct request){.path = "/test.T/Later", .body = one, .body_bytes = sizeof one});
        peer_carry(&peer);
        cr_expect(pass(88), "not before nine tenths of it");
        int32_t second = peer_start(&peer, &(struct request){.body = one, .body_bytes = sizeof one});
        peer_carry(&peer);
        cr_expect(eq(str, peer_reply(&peer, second)->grpc_status, "0"));
        cr_expect(pass(25)); /* eleven tenths have passed, and so has no grace */
        cr_expect(eq(int, nghttp2_session_check_request_allowed(peer.client), 0),
                  "the client knows that it may open no more");
        if (finishes == 1) {
            rk_call_finish(peer.waiting[peer.num_waiting - 1], RK_GRPC_OK, NULL);
            peer_carry(&peer);
            cr_expect(eq(str, peer_reply(&peer, id)->grpc_status, "0"));
            cr_expect(rk_grpc_session_finished(peer.session));
            return;
        }
        cr_expect(not(pass(30)));
        cr_expect(
            eq(str, (char *)rk_grpc_session_why(peer.session), "past its age, calls are still open after the grace"));
        peer_deinit(&peer);
        init();
        peer.config.times.max_age_us = 100 * SECOND_US;
        peer.config.times.age_grace_us = 30 * SECOND_US;
    }
}

Test(grpc_time, connections_that_opened_together_do_not_leave_together)
{
    int left_at[20], different = 0;
    for (int i = 0; i < 20; i++) {
        peer_deinit(&peer);
        peer_init(&peer, NULL, false);
        peer.config.times = (struct rk_grpc_times){.max_age_us = 1000 * SECOND_US};
        peer.now_us += (uint64_t)i;
        rk_grpc_session_destroy(peer.session);
        cr_assert(eq(int, rk_grpc_session_create(&peer.config, peer.now_us, &peer.session), RK_OK));
        peer_carry(&peer);
        for (left_at[i] = 0; left_at[i] < 1200 && !rk_grpc_session_finished(peer.session); left_at[i]++)
            pass(1);
        cr_expect(left_at[i] >= 900 && left_at[i] <= 1101, "left at %d", left_at[i]);
        different += i > 0 && left_at[i] != left_at[0];
    }
    cr_expect(ge(int, different, 10));
}

Test(grpc_time, the_last_stream_is_named_though_the_ping_is_not_answered_and_who_stays_is_cut_off)
{
    restart_raw(true);
    rk_grpc_session_drain(peer.session);
    rk_grpc_session_drain(peer.session); /* says nothing new */
    cr_expect(pass(4));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_GOAWAY), 1));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_PING), 1));
    cr_expect(pass(2));
    cr_expect(eq(int, raw_count(&peer, NGHTTP2_GOAWAY), 2));
    cr_expect(pass(2));
    cr_expect(not(pass(3)));
    cr_expect(rk_grpc_session_finished(peer.session));
}

/* ---- shut windows ---- */

/* Calls whose answers take 100 kB each. */
static void start_large_calls(int32_t *ids, int count)
{
    size_t bytes;
    char *text = calloc(1, 100000);
    const uint8_t *body = framed(text, 100000, &bytes);
    for (int i = 0; i < count; i++)
        ids[i] = peer_start(&peer, &(struct request){.body = body, .body_bytes = bytes});
    peer_carry(&peer);
    free(text);
}

Test(grpc_time, a_call_whose_window_stays_shut_is_reset_and_its_memory_comes_back)
{
    nghttp2_settings_entry shut = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
    nghttp2_submit_settings(peer.client, NGHTTP2_FLAG_NONE, &shut, 1);
    peer.config.times.keepalive_us = peer.config.times.slow_us = 0;
    int32_t ids[20];
    start_large_calls(ids, 20);
    cr_expect(eq(int, peer.num_messages, 20));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 20));
    cr_expect(pass(59));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 20));
    cr_expect(pass(2));
    cr_expect(eq(u32, rk_grpc_session_open_calls(peer.session), 0));
    for (int i = 0; i < 20; i++)
        cr_expect(eq(u32, peer_reply(&peer, ids[i])->reset_code, NGHTTP2_ENHANCE_YOUR_CALM));
    cr_expect(peer.session_ok);
}

/* ---- much memory for who hardly moves ---- */

Test(grpc_time, a_peer_that_leaves_much_unread_is_cut_off_early)
{
    nghttp2_settings_entry shut = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
    nghttp2_submit_settings(peer.client, NGHTTP2_FLAG_NONE, &shut, 1);
    int32_t ids[3];
    start_large_calls(ids, 3);
    cr_expect(pass(4));
    cr_expect(not(pass(3)));
    cr_expect(eq(str, (char *)rk_grpc_session_why(peer.session), "it keeps much waiting and hardly moves"));
}

Test(grpc_time, a_peer_that_reads_slowly_but_steadily_is_not)
{
    nghttp2_settings_entry shut = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
    nghttp2_submit_settings(peer.client, NGHTTP2_FLAG_NONE, &shut, 1);
    int32_t ids[3];
    start_large_calls(ids, 3);
    for (int second = 0; second < 15; second++) {
        for (int i = 0; i < 3; i++)
            nghttp2_submit_window_update(peer.client, NGHTTP2_FLAG_NONE, ids[i], 7000);
        peer_carry(&peer);
        cr_assert(pass(1));
    }
    for (int i = 0; i < 3; i++)
        cr_expect(eq(str, peer_reply(&peer, ids[i])->grpc_status, "0"));
}

Test(grpc_time, a_call_that_is_taken_slowly_message_by_message_goes_on)
{
    int32_t id = peer_start(&peer, &(struct request){.path = "/test.T/Later", .body = one, .body_bytes = sizeof one});
    peer_carry(&peer);
    static const uint8_t bytes[10];
    for (int i = 0; i < 10; i++) {
        cr_assert(eq(int, rk_call_send(peer.waiting[0], bytes, sizeof bytes), RK_OK));
        cr_expect(pass(50));
    }
    rk_call_finish(peer.waiting[0], RK_GRPC_OK, NULL);
    peer_carry(&peer);
    cr_expect(eq(str, peer_reply(&peer, id)->grpc_status, "0"));
    cr_expect(eq(sz, peer_reply(&peer, id)->body_bytes, 150));
}
