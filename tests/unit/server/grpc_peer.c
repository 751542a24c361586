/* See grpc_peer.h. A peer is one test's; nothing is shared. */
#include "grpc_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char raw_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
const size_t raw_preface_bytes = sizeof raw_preface; /* the last byte of the stream id is the literal's own NUL */

/* ---- methods ---- */

static void echo(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct peer *peer = service;
    peer->num_messages++;
    peer->last_message_bytes = length;
    enum rk_status sent = rk_call_send(call, bytes, length);
    rk_call_finish(call, sent == RK_OK ? RK_GRPC_OK : RK_GRPC_RESOURCE_EXHAUSTED, sent == RK_OK ? NULL : "not sent");
}

static void later(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct peer *peer = service;
    (void)bytes;
    peer->num_messages++;
    peer->last_message_bytes = length;
    rk_call_set_data(call, peer);
    peer->waiting[peer->num_waiting++] = call;
}

static void later_cancelled(void *service, struct rk_call *call)
{
    struct peer *peer = service;
    peer->num_cancelled++;
    for (size_t i = 0; i < peer->num_waiting; i++) {
        if (peer->waiting[i] == call)
            peer->waiting[i] = NULL;
    }
    rk_call_finish(call, RK_GRPC_OK, "nobody hears this"); /* must be harmless */
}

static void count_up(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct peer *peer = service;
    peer->num_messages++;
    for (int i = 0; i < 3; i++)
        rk_call_send(call, bytes, length);
    rk_call_add_trailer(call, "retry-hint", "17");
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void bidi_message(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct peer *peer = service;
    peer->num_messages++;
    rk_call_send(call, bytes, length);
}

static void bidi_half_close(void *service, struct rk_call *call)
{
    struct peer *peer = service;
    peer->num_half_closes++;
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void bidi_cancelled(void *service, struct rk_call *call)
{
    struct peer *peer = service;
    (void)call;
    peer->num_cancelled++;
}

/* ---- the client ---- */

static void copy_text(char *to, size_t capacity, const uint8_t *from, size_t length)
{
    if (length >= capacity)
        length = capacity - 1;
    memcpy(to, from, length);
    to[length] = '\0';
}

static int client_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                         const uint8_t *value, size_t value_bytes, uint8_t flags, void *user_data)
{
    (void)h2, (void)name_bytes, (void)flags;
    struct reply *reply = peer_reply(user_data, frame->hd.stream_id);
    const struct {
        const char *name;
        char *to;
        size_t capacity;
    } wanted[] = {
        {":status", reply->http_status, sizeof reply->http_status},
        {"grpc-status", reply->grpc_status, sizeof reply->grpc_status},
        {"grpc-message", reply->message, sizeof reply->message},
        {"grpc-accept-encoding", reply->accept_encoding, sizeof reply->accept_encoding},
        {"grpc-encoding", reply->encoding, sizeof reply->encoding},
        {"retry-hint", reply->retry_hint, sizeof reply->retry_hint},
        {"allow", reply->allow, sizeof reply->allow},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (strcmp((const char *)name, wanted[i].name) == 0)
            copy_text(wanted[i].to, wanted[i].capacity, value, value_bytes);
    }
    return 0;
}

static int client_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t length,
                       void *user_data)
{
    (void)h2, (void)flags;
    struct reply *reply = peer_reply(user_data, stream_id);
    if (reply->body_capacity < reply->body_bytes + length + 1) {
        reply->body_capacity = 2 * (reply->body_bytes + length + 1); /* a sanitizer copies all of it each time */
        reply->body = realloc(reply->body, reply->body_capacity);
    }
    memcpy(reply->body + reply->body_bytes, bytes, length);
    reply->body_bytes += length;
    return 0;
}

static int client_close(nghttp2_session *h2, int32_t stream_id, uint32_t code, void *user_data)
{
    (void)h2;
    struct reply *reply = peer_reply(user_data, stream_id);
    reply->closed = true;
    reply->reset_code = code;
    return 0;
}

struct upload {
    struct upload *next;
    const uint8_t *bytes;
    size_t left;
    bool keep_open;
};

static ssize_t read_upload(nghttp2_session *h2, int32_t stream_id, uint8_t *buffer, size_t capacity, uint32_t *flags,
                           nghttp2_data_source *source, void *user_data)
{
    (void)h2, (void)stream_id;
    struct peer *peer = user_data;
    struct upload *upload = source->ptr;
    size_t part = upload->left < capacity ? upload->left : capacity;
    if (part > peer->data_frame_bytes)
        part = peer->data_frame_bytes;
    if (part > 0)
        memcpy(buffer, upload->bytes, part);
    upload->bytes += part;
    upload->left -= part;
    if (upload->left > 0)
        return (ssize_t)part;
    if (!upload->keep_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (part == 0)
        return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)part;
}

static ssize_t pad(nghttp2_session *h2, const nghttp2_frame *frame, size_t max_payload, void *user_data)
{
    (void)h2;
    const struct peer *peer = user_data;
    size_t padded = frame->hd.length + (frame->hd.type == NGHTTP2_DATA ? peer->padding : 0);
    return (ssize_t)(padded < max_payload ? padded : max_payload);
}

static void make_client(struct peer *peer)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, client_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, client_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, client_close);
    nghttp2_session_callbacks_set_select_padding_callback(callbacks, pad);
    nghttp2_option *option;
    nghttp2_option_new(&option);
    nghttp2_option_set_peer_max_concurrent_streams(option, 1u << 20); /* let the server refuse */
    nghttp2_session_client_new2(&peer->client, callbacks, peer, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(peer->client, NGHTTP2_FLAG_NONE, NULL, 0);
}

void peer_init(struct peer *peer, const struct rk_grpc_limits *limits, bool raw)
{
    memset(peer, 0, sizeof *peer);
    peer->pool = rk_pool_create();
    peer->cut = peer->data_frame_bytes = SIZE_MAX;
    peer->now_us = 1000000;
    peer->session_ok = true;
    peer->methods[0] =
        (struct rk_method){.path = "/test.T/Echo", .kind = RK_METHOD_UNARY, .message = echo, .service = peer};
    peer->methods[1] = (struct rk_method){.path = "/test.T/Later",
                                          .kind = RK_METHOD_UNARY,
                                          .message = later,
                                          .cancelled = later_cancelled,
                                          .service = peer};
    peer->methods[2] = (struct rk_method){.path = "/test.T/Three",
                                          .kind = RK_METHOD_SERVER_STREAM,
                                          .message = count_up,
                                          .service = peer};
    peer->methods[3] = (struct rk_method){.path = "/test.T/Bidi",
                                          .kind = RK_METHOD_BIDI,
                                          .message = bidi_message,
                                          .half_close = bidi_half_close,
                                          .cancelled = bidi_cancelled,
                                          .service = peer};
    peer->config = (struct rk_grpc_session_config){.methods = peer->methods,
                                                   .num_methods = 4,
                                                   .limits = limits != NULL ? *limits : RK_GRPC_LIMITS_DEFAULT,
                                                   .pool = peer->pool};
    if (rk_grpc_session_create(&peer->config, peer->now_us, &peer->session) != RK_OK)
        peer->session = NULL;
    if (!raw)
        make_client(peer);
}

void peer_deinit(struct peer *peer)
{
    rk_grpc_session_destroy(peer->session);
    nghttp2_session_del(peer->client);
    while (peer->uploads != NULL) {
        struct upload *upload = peer->uploads;
        peer->uploads = upload->next;
        free(upload);
    }
    for (size_t i = 0; i < MAX_REPLIES; i++)
        free(peer->replies[i].body);
    rk_pool_destroy(peer->pool);
}

struct reply *peer_reply(struct peer *peer, int32_t stream_id)
{
    return &peer->replies[stream_id / 2 % MAX_REPLIES];
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

int32_t peer_start(struct peer *peer, const struct request *request)
{
    nghttp2_nv headers[8];
    size_t count = 0;
    headers[count++] = header(":method", request->method != NULL ? request->method : "POST");
    headers[count++] = header(":scheme", "http");
    headers[count++] = header(":path", request->path != NULL ? request->path : "/test.T/Echo");
    headers[count++] = header(":authority", "test");
    headers[count++] =
        header("content-type", request->content_type != NULL ? request->content_type : "application/grpc");
    if (request->timeout != NULL)
        headers[count++] = header("grpc-timeout", request->timeout);
    if (request->encoding != NULL)
        headers[count++] = header("grpc-encoding", request->encoding);
    if (request->extra_name != NULL)
        headers[count++] = header(request->extra_name, request->extra_value);
    struct upload *upload = malloc(sizeof *upload);
    *upload = (struct upload){peer->uploads, request->body, request->body_bytes, request->keep_open};
    peer->uploads = upload;
    nghttp2_data_provider body = {.source.ptr = upload, .read_callback = read_upload};
    return nghttp2_submit_request(peer->client, NULL, headers, count, &body, NULL);
}

static bool carry_to_session(struct peer *peer)
{
    const uint8_t *bytes;
    ssize_t length = nghttp2_session_mem_send(peer->client, &bytes);
    for (ssize_t at = 0; at < length && peer->session_ok;) {
        size_t part = (size_t)(length - at) < peer->cut ? (size_t)(length - at) : peer->cut;
        /* A copy of exactly these bytes, so that a sanitizer sees a read past them. */
        uint8_t *copy = malloc(part);
        memcpy(copy, bytes + at, part);
        peer->session_ok = rk_grpc_session_receive(peer->session, copy, part, peer->now_us);
        free(copy);
        at += (ssize_t)part;
    }
    return length > 0;
}

static bool carry_to_client(struct peer *peer)
{
    uint8_t buffer[4096];
    size_t capacity = peer->cut < sizeof buffer ? peer->cut : sizeof buffer;
    size_t length = rk_grpc_session_output(peer->session, buffer, capacity);
    if (length > 0)
        nghttp2_session_mem_recv(peer->client, buffer, length);
    return length > 0;
}

void peer_carry(struct peer *peer)
{
    bool moved = true;
    while (moved) {
        moved = peer->session_ok && carry_to_session(peer);
        moved |= carry_to_client(peer);
    }
}

void peer_feed(struct peer *peer, const void *bytes, size_t length)
{
    if (peer->session_ok)
        peer->session_ok = rk_grpc_session_receive(peer->session, bytes, length, peer->now_us);
    for (;;) {
        size_t room = sizeof peer->raw_out - peer->raw_out_bytes;
        size_t written = rk_grpc_session_output(peer->session, peer->raw_out + peer->raw_out_bytes, room);
        if (written == 0)
            break;
        peer->raw_out_bytes += written;
    }
}

const uint8_t *framed(const char *message, size_t length, size_t *framed_bytes)
{
    static uint8_t bytes[8u << 20];
    bytes[0] = 0;
    for (int i = 0; i < 4; i++)
        bytes[1 + i] = (uint8_t)(length >> (24 - 8 * i));
    memcpy(bytes + 5, message, length);
    *framed_bytes = 5 + length;
    return bytes;
}

size_t make_frame(uint8_t *out, uint8_t type, uint8_t flags, uint32_t stream_id, const void *payload, size_t length)
{
    const uint8_t head[9] = {(uint8_t)(length >> 16),
                             (uint8_t)(length >> 8),
                             (uint8_t)length,
                             type,
                             flags,
                             (uint8_t)(stream_id >> 24),
                             (uint8_t)(stream_id >> 16),
                             (uint8_t)(stream_id >> 8),
                             (uint8_t)stream_id};
    memcpy(out, head, sizeof head);
    if (length > 0)
        memcpy(out + sizeof head, payload, length);
    return sizeof head + length;
}

static size_t next_frame(const struct peer *peer, size_t at)
{
    const uint8_t *head = peer->raw_out + at;
    return at + 9 + ((size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2]);
}

int64_t raw_goaway_code(const struct peer *peer)
{
    int64_t code = -1;
    for (size_t at = 0; at + 9 <= peer->raw_out_bytes; at = next_frame(peer, at)) {
        const uint8_t *frame = peer->raw_out + at;
        if (frame[3] == NGHTTP2_GOAWAY)
            code = (int64_t)frame[13] << 24 | (int64_t)frame[14] << 16 | (int64_t)frame[15] << 8 | frame[16];
    }
    return code;
}

int raw_count(const struct peer *peer, uint8_t type)
{
    int count = 0;
    for (size_t at = 0; at + 9 <= peer->raw_out_bytes; at = next_frame(peer, at))
        count += peer->raw_out[at + 3] == type;
    return count;
}

uint64_t test_seed(void)
{
    const char *given = getenv("RANKD_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("RANKD_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}

uint32_t test_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}
