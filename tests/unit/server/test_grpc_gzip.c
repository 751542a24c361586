/* Compressed messages: both ways, hostile ones, and what is done when the peer takes none. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "grpc_peer.h"
#include "server/grpc/gzip.h"

#define MAX_BYTES (1u << 20)

/* gzip by zlib itself, at its default level. */
static size_t gzip(const void *bytes, size_t length, uint8_t *out, size_t capacity)
{
    z_stream stream = {0};
    deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    stream.next_in = (uint8_t *)bytes;
    stream.avail_in = (uInt)length;
    stream.next_out = out;
    stream.avail_out = (uInt)capacity;
    cr_assert(eq(int, deflate(&stream, Z_FINISH), Z_STREAM_END));
    const size_t written = stream.total_out;
    deflateEnd(&stream);
    return written;
}

/* gRPC framing around a compressed message; returns the bytes of both. */
static size_t framed_gzip(const void *bytes, size_t length, uint8_t *out, size_t capacity)
{
    const size_t message = gzip(bytes, length, out + 5, capacity - 5);
    out[0] = 1;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (uint8_t)(message >> (24 - 8 * i));
    return 5 + message;
}

/* ---- the codec ---- */

Test(grpc_gzip, gives_back_what_it_compressed)
{
    uint64_t seed = test_seed();
    struct rk_pool *pool = rk_pool_create();
    static uint8_t bytes[70000], compressed[80000];
    for (int round = 0; round < 200; round++) {
        const size_t length = test_random(&seed) % ((size_t)1 << (test_random(&seed) % 17));
        const uint32_t letters = 1 + test_random(&seed) % 256;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(test_random(&seed) % letters);
        size_t compressed_bytes, message_bytes;
        uint8_t *message;
        cr_assert(
            eq(int, rk_gzip_deflate(pool, bytes, length, compressed, sizeof compressed, &compressed_bytes), RK_OK));
        cr_assert(
            eq(int, rk_gzip_inflate(pool, compressed, compressed_bytes, length, &message, &message_bytes), RK_OK));
        cr_assert(eq(sz, message_bytes, length));
        cr_expect(memcmp(message, bytes, length) == 0);
        rk_pool_free(pool, message);
        const size_t by_zlib = gzip(bytes, length, compressed, sizeof compressed);
        cr_assert(eq(int, rk_gzip_inflate(pool, compressed, by_zlib, length, &message, &message_bytes), RK_OK));
        cr_expect(eq(sz, message_bytes, length));
        rk_pool_free(pool, message);
        if (length > 0)
            cr_expect(eq(int, rk_gzip_inflate(pool, compressed, by_zlib, length - 1, &message, &message_bytes),
                         RK_EXHAUSTED));
    }
    rk_pool_destroy(pool);
}

Test(grpc_gzip, says_when_the_room_does_not_suffice)
{
    struct rk_pool *pool = rk_pool_create();
    uint8_t out[20];
    size_t written;
    cr_expect(eq(int, rk_gzip_deflate(pool, (const uint8_t *)"abcdefgh", 8, out, 8, &written), RK_EXHAUSTED));
    rk_pool_destroy(pool);
}

Test(grpc_gzip, refuses_what_is_cut_damaged_or_lies)
{
    struct rk_pool *pool = rk_pool_create();
    static uint8_t bytes[3000], good[4000], bad[4100];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i / 7);
    const size_t length = gzip(bytes, sizeof bytes, good, sizeof good);
    uint8_t *message;
    size_t message_bytes;
    for (size_t cut = 0; cut < length; cut++) {
        enum rk_status status = rk_gzip_inflate(pool, good, cut, MAX_BYTES, &message, &message_bytes);
        cr_expect(status == RK_CORRUPT || status == RK_EXHAUSTED, "cut at %zu: %d", cut, status);
    }
    for (size_t at = length - 8; at < length; at++) { /* checksum and length */
        memcpy(bad, good, length);
        bad[at] ^= 1;
        enum rk_status status = rk_gzip_inflate(pool, bad, length, MAX_BYTES, &message, &message_bytes);
        cr_expect(status == RK_CORRUPT || status == RK_EXHAUSTED, "byte %zu: %d", at, status);
    }
    memcpy(bad, good, length);
    memcpy(bad + length, good + length - 8, 8); /* the trailer twice: it says the right length, and comes too late */
    cr_expect(eq(int, rk_gzip_inflate(pool, bad, length + 8, MAX_BYTES, &message, &message_bytes), RK_CORRUPT));
    rk_pool_destroy(pool);
}

Test(grpc_gzip, survives_random_damage)
{
    uint64_t seed = test_seed();
    struct rk_pool *pool = rk_pool_create();
    static uint8_t bytes[3000], good[4000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i % 13 * (i / 100));
    const size_t length = gzip(bytes, sizeof bytes, good, sizeof good);
    for (int round = 0; round < 3000; round++) {
        uint8_t *bad = malloc(length); /* exactly so many, for a sanitizer to see a read past them */
        memcpy(bad, good, length);
        for (uint32_t damage = 1 + test_random(&seed) % 3; damage > 0; damage--)
            bad[test_random(&seed) % length] ^= (uint8_t)(1u << test_random(&seed) % 8);
        uint8_t *message;
        size_t message_bytes;
        if (rk_gzip_inflate(pool, bad, length, MAX_BYTES, &message, &message_bytes) == RK_OK) {
            cr_expect(message_bytes == sizeof bytes && memcmp(message, bytes, message_bytes) == 0);
            rk_pool_free(pool, message);
        }
        free(bad);
    }
    rk_pool_destroy(pool);
}

/* ---- in calls ---- */

static struct peer peer;

static void init(void)
{
    struct rk_grpc_limits limits = RK_GRPC_LIMITS_DEFAULT;
    limits.max_message_bytes = MAX_BYTES;
    limits.min_compressed_bytes = 1000;
    peer_init(&peer, &limits, false);
}

static void deinit(void)
{
    peer_deinit(&peer);
}

TestSuite(grpc_gzip_calls, .init = init, .fini = deinit);

static struct reply *run(const struct request *request)
{
    int32_t id = peer_start(&peer, request);
    peer_carry(&peer);
    return peer_reply(&peer, id);
}

Test(grpc_gzip_calls, reads_compressed_and_plain_messages_of_one_call)
{
    static uint8_t text[5000], body[10000];
    memset(text, 'z', sizeof text);
    for (size_t frame = 1; frame < 40; frame += 3) {
        peer.data_frame_bytes = frame;
        size_t bytes = framed_gzip(text, sizeof text, body, sizeof body);
        static const uint8_t plain[] = {0, 0, 0, 0, 1, 'p'};
        memcpy(body + bytes, plain, sizeof plain);
        bytes += sizeof plain;
        bytes += framed_gzip("", 0, body + bytes, sizeof body - bytes);
        struct reply *reply =
            run(&(struct request){.path = "/test.T/Bidi", .encoding = "gzip", .body = body, .body_bytes = bytes});
        cr_expect(eq(str, reply->grpc_status, "0"), "%s", reply->message);
        cr_assert(eq(sz, reply->body_bytes, 5 + sizeof text + 6 + 5));
        cr_expect(memcmp(reply->body + 5, text, sizeof text) == 0);
        cr_expect(eq(u8, reply->body[5 + sizeof text + 5], 'p'));
        reply->body_bytes = 0;
    }
}

Test(grpc_gzip_calls, stops_a_bomb_at_the_limit_without_inflating_it)
{
    const size_t length = 64u << 20, capacity = 1 << 20;
    uint8_t *zeros = calloc(1, length), *body = malloc(capacity);
    const size_t bytes = framed_gzip(zeros, length, body, capacity);
    cr_assert(lt(sz, bytes, 100000));
    for (int i = 0; i < 20; i++) {
        struct reply *reply = run(&(struct request){.encoding = "gzip", .body = body, .body_bytes = bytes});
        cr_expect(eq(str, reply->grpc_status, "8"));
        cr_expect(strstr(reply->message, "limit of 1048576 bytes") != NULL, "%s", reply->message);
    }
    for (int i = 0; i < 4; i++) /* it says that it is short */
        body[bytes - 4 + i] = i == 0;
    struct reply *reply = run(&(struct request){.encoding = "gzip", .body = body, .body_bytes = bytes});
    cr_expect(eq(str, reply->grpc_status, "13"));
    cr_expect(eq(int, peer.num_messages, 0));
    cr_expect(lt(sz, rk_pool_held_bytes(peer.pool), 2 << 20));
    cr_expect(peer.session_ok);
    free(zeros);
    free(body);
}

Test(grpc_gzip_calls, rations_messages_that_inflate_a_thousandfold_and_no_others)
{
    const size_t length = 1000000, capacity = 1 << 20;
    uint8_t *bytes = calloc(1, length), *body = malloc(capacity);
    size_t framed_bytes = framed_gzip(bytes, length, body, capacity);
    cr_assert(lt(sz, framed_bytes, 2000));
    struct request request = {.path = "/test.T/Later", .encoding = "gzip", .body = body, .body_bytes = framed_bytes};
    for (int second = 0; second < 3; second++) {
        for (int i = 0; i < 4; i++)
            run(&request);
        cr_expect(eq(sz, peer.num_waiting, (size_t)(second + 1) * 4));
        struct reply *reply = run(&request);
        cr_expect(eq(str, reply->grpc_status, "8"));
        cr_expect(strstr(reply->message, "32 times") != NULL, "%s", reply->message);
        peer.now_us += 1000000;
    }
    for (size_t i = 0; i < peer.num_waiting; i++)
        rk_call_finish(peer.waiting[i], RK_GRPC_OK, NULL);
    peer_carry(&peer);
    for (size_t i = 0; i < length; i++) /* some ten times shorter, compressed */
        bytes[i] = (uint8_t)("abcdefgh"[i * i / 4096 % 8] + i % 61 / 60 * (i / 61 % 7));
    framed_bytes = framed_gzip(bytes, length, body, capacity);
    cr_assert(gt(sz, framed_bytes, length / 31), "%zu", framed_bytes);
    request = (struct request){.encoding = "gzip", .body = body, .body_bytes = framed_bytes};
    for (int i = 0; i < 30; i++)
        cr_expect(eq(str, run(&request)->grpc_status, "0"), "call %d", i);
    free(bytes);
    free(body);
}

Test(grpc_gzip_calls, answers_what_is_no_gzip_with_internal)
{
    static const uint8_t no_gzip[] = {1, 0, 0, 0, 20, 'n', 'o', 't', ' ', 'g', 'z', 'i', 'p',
                                      0, 0, 0, 0, 0,  0,   0,   0,   0,   0,   0,   0},
                         empty[] = {1, 0, 0, 0, 0};
    struct reply *reply = run(&(struct request){.encoding = "gzip", .body = no_gzip, .body_bytes = sizeof no_gzip});
    cr_expect(eq(str, reply->grpc_status, "13"));
    cr_expect(strstr(reply->message, "not gzip") != NULL, "%s", reply->message);
    reply = run(&(struct request){.encoding = "gzip", .body = empty, .body_bytes = sizeof empty});
    cr_expect(eq(str, reply->grpc_status, "13"));
    reply = run(&(struct request){.encoding = "identity", .body = no_gzip, .body_bytes = sizeof no_gzip});
    cr_expect(eq(str, reply->grpc_status, "13"));
    cr_expect(strstr(reply->message, "no grpc-encoding") != NULL, "%s", reply->message);
    cr_expect(eq(int, peer.num_messages, 0));
}

Test(grpc_gzip_calls, compresses_long_answers_for_peers_that_take_it)
{
    static uint8_t text[5000];
    memset(text, 'z', sizeof text);
    const struct {
        const char *accepts;
        size_t length;
        bool compressed;
    } cases[] = {{"gzip", 5000, true},
                 {"identity, deflate, gzip", 1000, true},
                 {"identity,gzip;q=1", 1000, true},
                 {"gzip", 999, false},
                 {"identity,deflate", 5000, false},
                 {"xgzip, gzipx", 5000, false},
                 {"", 5000, false},
                 {"gzip", 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes;
        const uint8_t *body = framed((const char *)text, cases[i].length, &bytes);
        struct reply *reply = run(&(struct request){
            .body = body, .body_bytes = bytes, .extra_name = "grpc-accept-encoding", .extra_value = cases[i].accepts});
        cr_expect(eq(str, reply->grpc_status, "0"));
        cr_assert(ge(sz, reply->body_bytes, 5));
        cr_expect(eq(int, reply->body[0], cases[i].compressed), "case %zu", i);
        if (!cases[i].compressed) {
            cr_expect(eq(sz, reply->body_bytes, bytes));
            continue;
        }
        cr_expect(eq(str, reply->encoding, "gzip"));
        cr_expect(lt(sz, reply->body_bytes, 100));
        uint8_t *message;
        size_t message_bytes;
        cr_assert(
            eq(int,
               rk_gzip_inflate(peer.pool, reply->body + 5, reply->body_bytes - 5, MAX_BYTES, &message, &message_bytes),
               RK_OK));
        cr_expect(eq(sz, message_bytes, cases[i].length));
        cr_expect(memcmp(message, text, cases[i].length) == 0);
        rk_pool_free(peer.pool, message);
    }
}

Test(grpc_gzip_calls, sends_what_does_not_become_shorter_as_it_is)
{
    uint64_t seed = test_seed();
    char text[3000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)test_random(&seed);
    size_t bytes;
    const uint8_t *body = framed(text, sizeof text, &bytes);
    struct reply *reply = run(&(struct request){
        .body = body, .body_bytes = bytes, .extra_name = "grpc-accept-encoding", .extra_value = "gzip"});
    cr_assert(eq(sz, reply->body_bytes, bytes));
    cr_expect(memcmp(reply->body, body, bytes) == 0);
}

Test(grpc_gzip_calls, a_method_decides_message_by_message)
{
    peer.config.limits.min_compressed_bytes = 0;
    static uint8_t text[500];
    for (int first = 0; first < 2; first++) {
        int32_t id = peer_start(&peer, &(struct request){.path = "/test.T/Later",
                                                         .body = (const uint8_t[]){0, 0, 0, 0, 0},
                                                         .body_bytes = 5,
                                                         .extra_name = "grpc-accept-encoding",
                                                         .extra_value = "gzip"});
        peer_carry(&peer);
        struct rk_call *call = peer.waiting[peer.num_waiting - 1];
        if (first == 1)
            rk_call_compress(call, true);
        rk_call_send(call, text, sizeof text);
        rk_call_compress(call, false);
        rk_call_send(call, text, sizeof text);
        rk_call_compress(call, true); /* too late where the headers did not say gzip */
        rk_call_send(call, text, sizeof text);
        rk_call_finish(call, RK_GRPC_OK, NULL);
        peer_carry(&peer);
        struct reply *reply = peer_reply(&peer, id);
        cr_expect(eq(int, reply->body[0], first));
        if (first == 0)
            cr_expect(eq(sz, reply->body_bytes, 3 * 505));
        else
            cr_expect(reply->body_bytes > 505 && reply->body_bytes < 605, "%zu", reply->body_bytes);
    }
}
