/* The session without memory, and without need of any: every allocation of the protocol layer goes through rk_pool, and
 * the linker puts this file between the two (--wrap). */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

void *__real_rk_pool_alloc(struct rk_pool *pool, size_t bytes);
void *__wrap_rk_pool_alloc(struct rk_pool *pool, size_t bytes);
void *__real_rk_pool_realloc(struct rk_pool *pool, void *block, size_t bytes);
void *__wrap_rk_pool_realloc(struct rk_pool *pool, void *block, size_t bytes);

static long fail_at = -1; /* the allocation that is refused, counted from 0; -1: none */
static bool fail_after;   /* and every one after it */
static long num_allocations;

static bool refused(void)
{
    long number = num_allocations++;
    return fail_at >= 0 && (number == fail_at || (fail_after && number > fail_at));
}

void *__wrap_rk_pool_alloc(struct rk_pool *pool, size_t bytes)
{
    return refused() ? NULL : __real_rk_pool_alloc(pool, bytes);
}

void *__wrap_rk_pool_realloc(struct rk_pool *pool, void *block, size_t bytes)
{
    return refused() ? NULL : __real_rk_pool_realloc(pool, block, bytes);
}

/* One of everything: unary, waiting, streaming, bidirectional, refused, cancelled. */
static void whole_conversation(struct peer *peer)
{
    static const uint8_t body[] = {0, 0, 0, 0, 1, 'x'}, two[] = {0, 0, 0, 0, 1, 'x', 0, 0, 0, 0, 1, 'y'};
    /* 100 times 'z' */
    static const uint8_t zipped[] = {1,    0,    0,    0,    24, 0x1f, 0x8b, 8,    0,    0,    0,   0, 0, 2, 3,
                                     0xab, 0xaa, 0xa2, 0x3d, 0,  0,    0xa5, 0xb2, 0xaf, 0xad, 100, 0, 0, 0};
    const struct request requests[] = {
        {.body = body, .body_bytes = sizeof body, .timeout = "1S"},
        {.path = "/test.T/Later", .body = body, .body_bytes = sizeof body, .timeout = "2S"},
        {.path = "/test.T/Later", .body = body, .body_bytes = sizeof body},
        {.path = "/test.T/Three", .body = body, .body_bytes = sizeof body},
        {.path = "/test.T/Bidi", .body = two, .body_bytes = sizeof two},
        {.path = "/no.Such/Method", .body = body, .body_bytes = sizeof body},
        {.path = "no.slash", .body = body, .body_bytes = sizeof body},
        {.method = "GET"},
        {.extra_name = "a-bin", .extra_value = "%"},
        {.body = two, .body_bytes = sizeof two},
        {.body = zipped, .body_bytes = sizeof zipped, .encoding = "gzip"},
        {.path = "/test.T/Three",
         .body = zipped,
         .body_bytes = sizeof zipped,
         .encoding = "gzip",
         .extra_name = "grpc-accept-encoding",
         .extra_value = "gzip"},
        {.body = body, .body_bytes = 3, .keep_open = true},
    };
    peer->config.limits.min_compressed_bytes = 50;
    int32_t last = 0;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        last = peer_start(peer, &requests[i]);
    peer_carry(peer);
    for (size_t i = 0; i < peer->num_waiting; i++) {
        if (peer->waiting[i] != NULL && i % 2 == 0) {
            rk_call_send(peer->waiting[i], body, sizeof body);
            rk_call_finish(peer->waiting[i], RK_GRPC_INTERNAL, "a message that must be copied");
        }
    }
    peer_carry(peer);
    nghttp2_submit_rst_stream(peer->client, NGHTTP2_FLAG_NONE, last, NGHTTP2_CANCEL);
    peer_carry(peer);
    peer->now_us += 5000000;
    rk_grpc_session_expire(peer->session, peer->now_us);
    peer_carry(peer);
    rk_grpc_session_drain(peer->session);
    peer_carry(peer);
}

Test(grpc_memory, survives_the_failure_of_any_allocation)
{
    static struct peer peer;
    fail_at = -1;
    num_allocations = 0;
    peer_init(&peer, NULL, false);
    whole_conversation(&peer);
    peer_deinit(&peer);
    long total = num_allocations;
    cr_assert(gt(long, total, 100));
    for (int after = 0; after < 2; after++) {
        fail_after = after == 1;
        for (long n = 0; n < total; n++) {
            num_allocations = 0;
            fail_at = n;
            peer_init(&peer, NULL, false);
            if (peer.session != NULL)
                whole_conversation(&peer);
            fail_at = -1;
            peer_deinit(&peer); /* asserts that every block came back */
        }
    }
}

/* ---- no malloc once warm ---- */

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
static long num_mallocs;

void *__wrap_malloc(size_t bytes)
{
    num_mallocs++;
    return __real_malloc(bytes);
}

static size_t run_raw(struct peer *peer, uint32_t first_id, int calls)
{
    static uint8_t out[1 << 16];
    static const uint8_t head[] = {0x83, 0x86, 0x04, 12,  '/', 't',  'e',  's', 't', '.', 'T',  '/', 'E', 'c',
                                   'h',  'o',  0x01, 1,   'h', 0x0f, 0x10, 16,  'a', 'p', 'p',  'l', 'i', 'c',
                                   'a',  't',  'i',  'o', 'n', '/',  'g',  'r', 'p', 'c', 0x00, 12,  'g', 'r',
                                   'p',  'c',  '-',  't', 'i', 'm',  'e',  'o', 'u', 't', 2,    '1', 'S'};
    size_t written = 0;
    for (int i = 0; i < calls; i++) {
        uint8_t frames[9000], message[8005] = {0, 0, 0, 0x1f, 0x40};
        uint32_t id = first_id + 2 * (uint32_t)i;
        size_t bytes = make_frame(frames, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, id, head, sizeof head);
        bytes += make_frame(frames + bytes, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, id, message, sizeof message);
        static const uint8_t window[] = {0, 0, 0x1f, 0x45};
        bytes += make_frame(frames + bytes, NGHTTP2_WINDOW_UPDATE, 0, 0, window, sizeof window);
        cr_assert(rk_grpc_session_receive(peer->session, frames, bytes, peer->now_us));
        written += rk_grpc_session_output(peer->session, out, sizeof out);
    }
    return written;
}

Test(grpc_memory, a_warm_session_answers_without_malloc)
{
    static struct peer peer;
    peer_init(&peer, NULL, true);
    peer_feed(&peer, raw_preface, raw_preface_bytes);
    run_raw(&peer, 1, 100);
    size_t held = rk_pool_held_bytes(peer.pool);
    long before = num_mallocs;
    size_t written = run_raw(&peer, 201, 10000);
    cr_expect(eq(long, num_mallocs - before, 0));
    cr_expect(eq(sz, rk_pool_held_bytes(peer.pool), held));
    cr_expect(gt(sz, written, (size_t)10000 * 8005));
    cr_expect(eq(int, peer.num_messages, 10100));
    peer_deinit(&peer);
}
