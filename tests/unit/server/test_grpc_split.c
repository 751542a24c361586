/* A recorded conversation, cut at every byte: whatever the network does, the session says the same. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"

#define MAX_TALK (16 << 10)

/* What a client sends to have each kind of call, one that is refused and one that is given up. */
static size_t record(uint8_t *talk)
{
    static struct peer peer;
    static const uint8_t one[] = {0, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'},
                         three[] = {0, 0, 0, 0, 1, 'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 'y', 'z'},
                         zipped[] = {1,    0,    0,    0,    24, 0x1f, 0x8b, 8,    0,    0,    0,   0, 0, 2, 3,
                                     0xab, 0xaa, 0xa2, 0x3d, 0,  0,    0xa5, 0xb2, 0xaf, 0xad, 100, 0, 0, 0};
    const struct request requests[] = {
        {.body = one, .body_bytes = sizeof one, .timeout = "1S"},
        {.path = "/test.T/Three", .body = one, .body_bytes = sizeof one},
        {.path = "/test.T/Bidi", .body = three, .body_bytes = sizeof three},
        {.path = "/test.T/Bidi", .body = zipped, .body_bytes = sizeof zipped, .encoding = "gzip"},
        {.path = "/no.Such/Method", .body = one, .body_bytes = sizeof one},
        {.body = one, .body_bytes = 7},
        {.extra_name = "x-bin", .extra_value = "%"},
        {.method = "GET"},
        {.path = "/test.T/Later", .body = one, .body_bytes = sizeof one},
    };
    peer_init(&peer, NULL, false);
    peer.padding = 3;
    peer.data_frame_bytes = 8;
    size_t bytes = 0;
    int32_t last = 0;
    const uint8_t *part;
    ssize_t length;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        last = peer_start(&peer, &requests[i]);
    for (int turn = 0; turn < 3; turn++) {
        if (turn == 1)
            nghttp2_submit_rst_stream(peer.client, NGHTTP2_FLAG_NONE, last, NGHTTP2_CANCEL);
        if (turn == 2)
            nghttp2_submit_ping(peer.client, NGHTTP2_FLAG_NONE, NULL);
        while ((length = nghttp2_session_mem_send(peer.client, &part)) > 0) {
            cr_assert(le(sz, bytes + (size_t)length, MAX_TALK));
            memcpy(talk + bytes, part, (size_t)length);
            bytes += (size_t)length;
        }
    }
    peer_deinit(&peer);
    return bytes;
}

/* What a stream was told, put together from its frames. */
struct heard {
    struct reply replies[16];
    int num_messages, num_cancelled, num_half_closes;
};

/* Plays the talk in two parts, or byte by byte; a client that said the same hears the answers. */
static void play(const uint8_t *talk, size_t bytes, size_t split, struct heard *heard)
{
    static struct peer peer;
    peer_init(&peer, NULL, true);
    for (size_t at = 0; at < bytes;) {
        const size_t part = split == 0 ? 1 : at < split ? split : bytes - at;
        uint8_t *copy = malloc(part); /* exactly so many, for a sanitizer to see a read past them */
        memcpy(copy, talk + at, part);
        peer_feed(&peer, copy, part);
        free(copy);
        at += part;
    }
    cr_assert(peer.session_ok, "split at %zu", split);
    heard->num_messages = peer.num_messages;
    heard->num_cancelled = peer.num_cancelled;
    heard->num_half_closes = peer.num_half_closes;
    /* HPACK's state makes the frames of different orders differ; so they are read, not compared. */
    nghttp2_hd_inflater *inflater;
    cr_assert(eq(int, nghttp2_hd_inflate_new(&inflater), 0));
    for (size_t at = 0; at + 9 <= peer.raw_out_bytes;) {
        const uint8_t *frame = peer.raw_out + at;
        const size_t length = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        struct reply *reply = &heard->replies[frame[8] / 2 % 16];
        at += 9 + length;
        if (frame[3] == NGHTTP2_DATA) {
            reply->body = realloc(reply->body, reply->body_bytes + length + 1);
            memcpy(reply->body + reply->body_bytes, frame + 9, length);
            reply->body_bytes += length;
        } else if (frame[3] == NGHTTP2_RST_STREAM) {
            if (frame[12] !=
                NGHTTP2_NO_ERROR) /* that one says "no need to send the rest": whether there is a rest varies */
                reply->reset_code = frame[12];
        } else if (frame[3] == NGHTTP2_HEADERS) {
            const uint8_t *in = frame + 9, *end = in + length;
            for (int flags = 0; in < end || (flags & NGHTTP2_HD_INFLATE_EMIT) != 0;) {
                nghttp2_nv pair;
                const ssize_t used = nghttp2_hd_inflate_hd2(inflater, &pair, &flags, in, (size_t)(end - in), 1);
                cr_assert(ge(long, used, 0));
                in += used;
                if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0)
                    break;
                const size_t told = strlen(reply->message);
                snprintf(reply->message + told, sizeof reply->message - told, "%s: %s\n", pair.name, pair.value);
            }
            nghttp2_hd_inflate_end_headers(inflater);
            reply->closed |= (frame[4] & NGHTTP2_FLAG_END_STREAM) != 0;
        }
    }
    nghttp2_hd_inflate_del(inflater);
    peer_deinit(&peer);
}

static void forget(struct heard *heard)
{
    for (size_t i = 0; i < 16; i++)
        free(heard->replies[i].body);
    memset(heard, 0, sizeof *heard);
}

Test(grpc_split, a_conversation_cut_anywhere_gets_the_same_answers)
{
    static uint8_t talk[MAX_TALK];
    static struct heard whole, cut;
    const size_t bytes = record(talk);
    play(talk, bytes, bytes, &whole);
    cr_expect(eq(int, whole.num_messages, 7)); /* one, one, three, one of gzip, and the one that was given up */
    cr_expect(eq(int, whole.num_cancelled, 1));
    cr_expect(eq(int, whole.num_half_closes, 2));
    cr_expect(strstr(whole.replies[0].message, "grpc-status: 0") != NULL, "%s", whole.replies[0].message);
    cr_expect(strstr(whole.replies[4].message, "grpc-status: 12") != NULL, "%s", whole.replies[4].message);
    cr_expect(strstr(whole.replies[5].message, "grpc-status: 13") != NULL, "%s", whole.replies[5].message);
    cr_expect(eq(sz, whole.replies[3].body_bytes, 105));
    for (size_t split = 0; split < bytes; split++) { /* 0: at every byte */
        play(talk, bytes, split, &cut);
        cr_expect(eq(int, cut.num_messages, whole.num_messages), "split at %zu", split);
        cr_expect(eq(int, cut.num_cancelled, whole.num_cancelled), "split at %zu", split);
        cr_expect(eq(int, cut.num_half_closes, whole.num_half_closes), "split at %zu", split);
        for (size_t i = 0; i < 16; i++) {
            const struct reply *a = &whole.replies[i], *b = &cut.replies[i];
            cr_expect(strcmp(a->message, b->message) == 0, "split at %zu, stream %zu:\n%s\n%s", split, 2 * i + 1,
                      a->message, b->message);
            cr_expect(a->body_bytes == b->body_bytes && a->closed == b->closed && a->reset_code == b->reset_code,
                      "split at %zu, stream %zu", split, 2 * i + 1);
            cr_expect(a->body_bytes == 0 || memcmp(a->body, b->body, a->body_bytes) == 0, "split at %zu, stream %zu",
                      split, 2 * i + 1);
        }
        forget(&cut);
    }
    forget(&whole);
}
