/* The order of what a call's two sides are told: initial metadata before all else, the half-close after the last
 * message of a paused call. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

static struct peer peer;
static const uint8_t one[] = {0, 0, 0, 0, 1, 'x'};

static struct rk_call *held; /* of the method below */
static int num_messages, num_half_closes;
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

static void init(void)
{
    peer_init(&peer, NULL, false);
    peer.methods[3].message = keep;
    peer.methods[3].half_close = kept_half_close;
    held = NULL;
    num_messages = num_half_closes = 0;
    pauses = false;
    memset(seen, 0, sizeof seen);
}

static void deinit(void)
{
    peer_deinit(&peer);
}

TestSuite(grpc_flow, .init = init, .fini = deinit);

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
