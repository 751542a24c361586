/* nghttp2's client side on a non-blocking channel. A call is a recycled struct in the list of calls in flight; its reply
 * is put together by the same deframer that the server uses. Output is gathered into one buffer, so that many requests
 * leave in one write.
 *
 * `done` is called when a call's stream closes, or when its deadline passes here first; it may start new calls, so
 * nothing is kept across it. One thread. */
#include "server/tools/grpc_client.h"

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/grpc/deframer.h"
#include "server/grpc/h2_memory.h"
#include "server/grpc/pool.h"
#include "server/grpc/text.h"
#include "server/tools/channel.h"

#define MAX_REPLY_BYTES ((uint64_t)1 << 30)
#define WINDOW_BYTES    (16 << 20)
#define BUFFER_BYTES    65536
#define MESSAGE_BYTES   4096
#define NO_STATUS       (-1)

struct call {
    struct call *next, *previous;
    struct rk_grpc_client *client;
    int32_t stream_id;
    const uint8_t *message;
    size_t length, sent; /* prefix included */
    uint64_t deadline_us;
    rk_grpc_done_fn *done;
    void *context;
    int http_status, grpc_status;
    char text[MESSAGE_BYTES];
    struct rk_deframer deframer;
    bool has_reply;
    enum rk_deframed broken; /* RK_DEFRAMED_MORE: not */
    bool is_done;
};

struct rk_grpc_client {
    struct rk_channel channel;
    char target[256], authority[256];
    nghttp2_session *h2;
    struct rk_pool *pool;
    struct rk_h2_memory memory;
    struct call *calls, *spare;
    uint32_t in_flight;
    uint64_t num_ended; /* calls, since open */
    bool gone;
    struct rk_error why; /* gone */
    uint8_t out[BUFFER_BYTES];
    size_t out_begin, out_end;
    const uint8_t *chunk; /* of nghttp2, not yet in `out` */
    size_t chunk_bytes;
    uint8_t *last_reply; /* of rk_grpc_client_call */
    char last_text[MESSAGE_BYTES];
};

uint64_t rk_monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- ending calls ---- */

static void unlink_call(struct call *call)
{
    struct rk_grpc_client *client = call->client;
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        client->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
}

static void free_call(struct call *call)
{
    struct rk_grpc_client *client = call->client;
    uint64_t budget = 0;
    rk_deframer_next(&call->deframer, client->pool, &budget);
    unlink_call(call);
    call->next = client->spare;
    client->spare = call;
}

/* Tells the caller, once. The struct lives on until the stream closes. */
static void end_call(struct call *call, enum rk_grpc_status status, const char *message)
{
    if (call->is_done)
        return;
    call->is_done = true;
    call->client->in_flight--;
    call->client->num_ended++;
    struct rk_grpc_reply reply = {.status = status, .message = message};
    if (status == RK_GRPC_OK) {
        reply.bytes = call->deframer.message;
        reply.length = call->deframer.length;
    }
    call->done(call->context, &reply);
}

static enum rk_grpc_status status_of_http(int http_status)
{
    static const struct {
        int http;
        enum rk_grpc_status status;
    } table[] = {{400, RK_GRPC_INTERNAL},      {401, RK_GRPC_UNAUTHENTICATED}, {403, RK_GRPC_PERMISSION_DENIED},
                 {404, RK_GRPC_UNIMPLEMENTED}, {429, RK_GRPC_UNAVAILABLE},     {502, RK_GRPC_UNAVAILABLE},
                 {503, RK_GRPC_UNAVAILABLE},   {504, RK_GRPC_UNAVAILABLE}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].http == http_status)
            return table[i].status;
    }
    return RK_GRPC_UNKNOWN;
}

static enum rk_grpc_status status_of_reset(uint32_t code)
{
    switch (code) {
    case NGHTTP2_REFUSED_STREAM:
        return RK_GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return RK_GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return RK_GRPC_RESOURCE_EXHAUSTED;
    default:
        return RK_GRPC_INTERNAL;
    }
}

static void conclude(struct call *call, uint32_t reset_code)
{
    char text[128];
    if (call->grpc_status == RK_GRPC_OK && call->broken == RK_DEFRAMED_MORE && call->has_reply) {
        end_call(call, RK_GRPC_OK, "");
    } else if (call->grpc_status == RK_GRPC_OK) {
        end_call(call, RK_GRPC_INTERNAL, "the server's answer is not one whole message");
    } else if (call->grpc_status != NO_STATUS) {
        end_call(call, (enum rk_grpc_status)call->grpc_status, call->text);
    } else if (call->http_status != 200 && call->http_status != 0) {
        snprintf(text, sizeof text, "the server answered HTTP status %d", call->http_status);
        end_call(call, status_of_http(call->http_status), text);
    } else {
        snprintf(text, sizeof text, "the server gave the call up: %s", nghttp2_http2_strerror(reset_code));
        end_call(call, status_of_reset(reset_code), text);
    }
}

/* ---- what nghttp2 tells us ---- */

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                     const uint8_t *value, size_t value_bytes, uint8_t flags, void *user_data)
{
    (void)name_bytes, (void)flags, (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    const char *text = (const char *)value; /* nghttp2 ends it with NUL */
    if (strcmp((const char *)name, ":status") == 0) {
        call->http_status = atoi(text);
    } else if (strcmp((const char *)name, "grpc-status") == 0) {
        int status = atoi(text);
        call->grpc_status = status >= 0 && status <= RK_GRPC_UNAUTHENTICATED ? status : RK_GRPC_UNKNOWN;
    } else if (strcmp((const char *)name, "grpc-message") == 0) {
        size_t length = value_bytes < MESSAGE_BYTES - 1 ? value_bytes : MESSAGE_BYTES - 1;
        call->text[rk_percent_decode(text, length, call->text)] = '\0';
    }
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t length,
                   void *user_data)
{
    (void)flags;
    struct rk_grpc_client *client = user_data;
    struct call *call = nghttp2_session_get_stream_user_data(h2, stream_id);
    if (call == NULL || call->is_done)
        return 0;
    if (call->has_reply && length > 0)
        call->broken = RK_DEFRAMED_TOO_MUCH;
    if (call->has_reply || call->broken != RK_DEFRAMED_MORE)
        return 0;
    size_t taken;
    uint64_t budget = MAX_REPLY_BYTES;
    enum rk_deframed what =
        rk_deframer_feed(&call->deframer, client->pool, MAX_REPLY_BYTES, &budget, bytes, length, &taken);
    call->has_reply = what == RK_DEFRAMED_MESSAGE;
    if (what != RK_DEFRAMED_MESSAGE)
        call->broken = what;
    else if (taken < length)
        call->broken = RK_DEFRAMED_TOO_MUCH;
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t code, void *user_data)
{
    (void)user_data;
    struct call *call = nghttp2_session_get_stream_user_data(h2, stream_id);
    if (call == NULL)
        return 0;
    conclude(call, code);
    free_call(call);
    return 0;
}

static ssize_t read_request(nghttp2_session *h2, int32_t stream_id, uint8_t *buffer, size_t capacity, uint32_t *flags,
                            nghttp2_data_source *source, void *user_data)
{
    (void)h2, (void)stream_id, (void)user_data;
    struct call *call = source->ptr;
    if (call->is_done) /* the deadline passed first, and the message is its owner's again */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t written = 0, total = RK_GRPC_PREFIX_BYTES + call->length;
    while (call->sent < RK_GRPC_PREFIX_BYTES && written < capacity) {
        const uint8_t prefix[RK_GRPC_PREFIX_BYTES] = {0, (uint8_t)(call->length >> 24), (uint8_t)(call->length >> 16),
                                                      (uint8_t)(call->length >> 8), (uint8_t)call->length};
        buffer[written++] = prefix[call->sent++];
    }
    size_t part = total - call->sent < capacity - written ? total - call->sent : capacity - written;
    if (part > 0)
        memcpy(buffer + written, call->message + (call->sent - RK_GRPC_PREFIX_BYTES), part);
    call->sent += part;
    written += part;
    if (call->sent == total)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)written;
}

/* ---- opening and closing ---- */

static bool create_h2(struct rk_grpc_client *client)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return false;
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    client->memory.pool = client->pool;
    nghttp2_mem memory = rk_h2_memory_for(&client->memory);
    int result = nghttp2_session_client_new3(&client->h2, callbacks, client, NULL, &memory);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                               {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES}};
    return result == 0 && nghttp2_submit_settings(client->h2, NGHTTP2_FLAG_NONE, settings, 2) == 0 &&
           nghttp2_session_set_local_window_size(client->h2, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES) == 0;
}

enum rk_status rk_grpc_client_open(const char *target, uint64_t timeout_us, struct rk_grpc_client **result,
                                   struct rk_error *error)
{
    *result = NULL;
    struct rk_grpc_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    snprintf(client->target, sizeof client->target, "%s", target);
    snprintf(client->authority, sizeof client->authority, "%s", target[0] == 'u' && strchr(target, '/') != NULL ? "localhost" : target);
    enum rk_status status = rk_channel_open(target, timeout_us, &client->channel, error);
    if (status != RK_OK)
        goto fail;
    client->pool = rk_pool_create();
    if (client->pool == NULL || !create_h2(client)) {
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
        goto fail;
    }
    *result = client;
    return RK_OK;
fail:
    rk_grpc_client_close(client);
    return status;
}

void rk_grpc_client_close(struct rk_grpc_client *client)
{
    if (client == NULL)
        return;
    while (client->calls != NULL)
        free_call(client->calls);
    while (client->spare != NULL) {
        struct call *call = client->spare;
        client->spare = call->next;
        rk_pool_free(client->pool, call);
    }
    rk_h2_memory_take_back(&client->memory);
    rk_pool_free(client->pool, client->last_reply);
    rk_pool_destroy(client->pool);
    rk_channel_close(&client->channel);
    free(client);
}

/* ---- calls ---- */

static nghttp2_nv header(const char *name, const char *value, uint8_t flags)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), flags};
}

enum rk_status rk_grpc_client_start(struct rk_grpc_client *client, const char *path, const uint8_t *message,
                                    size_t length, uint64_t timeout_us, rk_grpc_done_fn *done, void *context)
{
    if (client->gone)
        return RK_IO;
    if (length > UINT32_MAX)
        return RK_INVALID;
    struct call *call = client->spare;
    if (call != NULL)
        client->spare = call->next;
    else if ((call = rk_pool_alloc(client->pool, sizeof *call)) == NULL)
        return RK_NO_MEMORY;
    uint64_t deadline_us;
    if (timeout_us == RK_NO_TIMEOUT || __builtin_add_overflow(rk_monotonic_us(), timeout_us, &deadline_us))
        deadline_us = UINT64_MAX;
    memset(call, 0, offsetof(struct call, text));
    call->text[0] = '\0';
    call->deframer = (struct rk_deframer){0};
    call->has_reply = call->is_done = false;
    call->broken = RK_DEFRAMED_MORE;
    call->client = client;
    call->message = message;
    call->length = length;
    call->deadline_us = deadline_us;
    call->done = done;
    call->context = context;
    call->grpc_status = NO_STATUS;
    call->next = client->calls;
    if (call->next != NULL)
        call->next->previous = call;
    client->calls = call;

    enum { STATIC = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
    char timeout[RK_TIMEOUT_TEXT_BYTES];
    nghttp2_nv headers[] = {
        header(":method", "POST", STATIC),
        header(":scheme", rk_security_scheme(), STATIC),
        header(":path", path, STATIC),
        header(":authority", client->authority, STATIC),
        header("te", "trailers", STATIC),
        header("content-type", "application/grpc", STATIC),
        header("user-agent", "rankctl/" RANKD_VERSION, STATIC),
        header("", "", 0), /* room for the two below */
        header("", "", 0),
    };
    size_t count = sizeof headers / sizeof *headers - 2;
    if (rk_security_authorization() != NULL)
        headers[count++] = header("authorization", rk_security_authorization(), STATIC | NGHTTP2_NV_FLAG_NO_INDEX);
    if (timeout_us != RK_NO_TIMEOUT) {
        rk_timeout_print(timeout_us, timeout);
        headers[count++] = header("grpc-timeout", timeout, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
    }
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_request};
    call->stream_id = nghttp2_submit_request(client->h2, NULL, headers, count, &body, call);
    if (call->stream_id < 0) {
        enum rk_status status = call->stream_id == NGHTTP2_ERR_NOMEM ? RK_NO_MEMORY : RK_IO;
        free_call(call);
        return status;
    }
    client->in_flight++;
    return RK_OK;
}

uint32_t rk_grpc_client_in_flight(const struct rk_grpc_client *client)
{
    return client->in_flight;
}

uint64_t rk_grpc_client_expire(struct rk_grpc_client *client)
{
    uint64_t now_us = rk_monotonic_us(), next_us = UINT64_MAX;
    for (struct call *call = client->calls, *next; call != NULL; call = next) {
        next = call->next; /* new calls go to the front */
        if (call->is_done)
            continue;
        if (call->deadline_us <= now_us) {
            nghttp2_submit_rst_stream(client->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
            end_call(call, RK_GRPC_DEADLINE_EXCEEDED, "the deadline passed while waiting for the answer");
        } else if (call->deadline_us < next_us) {
            next_us = call->deadline_us;
        }
    }
    return next_us == UINT64_MAX ? UINT64_MAX : next_us - now_us;
}

/* ---- bytes ---- */

/* The connection is over: every call ends. */
static enum rk_status lose(struct rk_grpc_client *client, struct rk_error *error, const char *why)
{
    if (!client->gone) {
        client->gone = true;
        rk_error_set(&client->why, RK_IO, "lost the connection to %s: %s", client->target, why);
        for (struct call *call = client->calls, *next; call != NULL; call = next) {
            next = call->next;
            end_call(call, RK_GRPC_UNAVAILABLE, client->why.text);
        }
    }
    return rk_error_set(error, RK_IO, "%s", client->why.text);
}

static bool fill_out(struct rk_grpc_client *client)
{
    if (client->out_begin == client->out_end)
        client->out_begin = client->out_end = 0;
    while (client->out_end < BUFFER_BYTES) {
        if (client->chunk_bytes == 0) {
            ssize_t bytes = nghttp2_session_mem_send(client->h2, &client->chunk);
            if (bytes <= 0)
                return bytes == 0;
            client->chunk_bytes = (size_t)bytes;
        }
        size_t room = BUFFER_BYTES - client->out_end;
        size_t part = client->chunk_bytes < room ? client->chunk_bytes : room;
        memcpy(client->out + client->out_end, client->chunk, part);
        client->out_end += part;
        client->chunk += part;
        client->chunk_bytes -= part;
    }
    return true;
}

static enum rk_status write_out(struct rk_grpc_client *client, struct rk_error *error)
{
    for (;;) {
        if (!fill_out(client))
            return lose(client, error, "HTTP/2 failed");
        if (client->out_begin == client->out_end)
            return RK_OK;
        ssize_t written =
            rk_channel_send(&client->channel, client->out + client->out_begin, client->out_end - client->out_begin);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return RK_OK;
        if (written < 0)
            return lose(client, error, strerror(errno));
        client->out_begin += (size_t)written;
    }
}

static enum rk_status read_in(struct rk_grpc_client *client, struct rk_error *error)
{
    uint8_t buffer[BUFFER_BYTES];
    for (;;) {
        ssize_t bytes = rk_channel_receive(&client->channel, buffer, sizeof buffer);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return RK_OK;
        if (bytes < 0)
            return lose(client, error, strerror(errno));
        if (bytes == 0)
            return lose(client, error, "the server closed it");
        ssize_t result = nghttp2_session_mem_recv(client->h2, buffer, (size_t)bytes);
        if (result < 0)
            return lose(client, error, "the server does not speak HTTP/2 as gRPC needs it; is this port rankd's?");
        if ((size_t)bytes < sizeof buffer)
            return RK_OK;
    }
}

int rk_grpc_client_fd(const struct rk_grpc_client *client)
{
    return client->channel.fd;
}

short rk_grpc_client_events(struct rk_grpc_client *client)
{
    bool has_output =
        client->out_begin < client->out_end || client->chunk_bytes > 0 || nghttp2_session_want_write(client->h2);
    return (short)(POLLIN | (has_output ? POLLOUT : 0));
}

enum rk_status rk_grpc_client_step(struct rk_grpc_client *client, struct rk_error *error)
{
    if (client->gone)
        return lose(client, error, "");
    enum rk_status status = write_out(client, error);
    if (status == RK_OK)
        status = read_in(client, error);
    if (status == RK_OK)
        status = write_out(client, error);
    return status;
}

enum rk_status rk_grpc_client_wait(struct rk_grpc_client *client, uint64_t timeout_us, struct rk_error *error)
{
    const uint64_t ended_before = client->num_ended;
    enum rk_status status = rk_grpc_client_step(client, error);
    if (status != RK_OK || client->num_ended != ended_before) /* an answer was here already: perhaps the last one */
        return status;
    uint64_t next_us = rk_grpc_client_expire(client);
    uint64_t wait_us = next_us < timeout_us ? next_us : timeout_us;
    struct timespec wait = {(time_t)(wait_us / 1000000), (long)(wait_us % 1000000 * 1000)};
    struct pollfd ready = {.fd = client->channel.fd, .events = rk_grpc_client_events(client)};
    if (ppoll(&ready, 1, wait_us > UINT32_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR)
        return lose(client, error, strerror(errno));
    status = rk_grpc_client_step(client, error);
    rk_grpc_client_expire(client);
    return status;
}

/* ---- one call ---- */

struct one_call {
    struct rk_grpc_client *client;
    struct rk_grpc_reply *reply;
    bool done;
};

/* The reply outlives its stream. */
static void keep_reply(void *context, const struct rk_grpc_reply *reply)
{
    struct one_call *one = context;
    struct rk_grpc_client *client = one->client;
    one->done = true;
    *one->reply = (struct rk_grpc_reply){.status = reply->status, .message = client->last_text};
    snprintf(client->last_text, sizeof client->last_text, "%s", reply->message);
    if (reply->bytes == NULL)
        return;
    rk_pool_free(client->pool, client->last_reply);
    client->last_reply = rk_pool_alloc(client->pool, reply->length);
    if (client->last_reply == NULL) {
        one->reply->status = RK_GRPC_RESOURCE_EXHAUSTED;
        snprintf(client->last_text, sizeof client->last_text, "out of memory for an answer of %zu bytes",
                 reply->length);
        return;
    }
    memcpy(client->last_reply, reply->bytes, reply->length);
    one->reply->bytes = client->last_reply;
    one->reply->length = reply->length;
}

enum rk_status rk_grpc_client_call(struct rk_grpc_client *client, const char *path, const uint8_t *message,
                                   size_t length, uint64_t timeout_us, struct rk_grpc_reply *reply,
                                   struct rk_error *error)
{
    struct one_call one = {client, reply, false};
    if (client->gone)
        return lose(client, error, "");
    enum rk_status status = rk_grpc_client_start(client, path, message, length, timeout_us, keep_reply, &one);
    if (status != RK_OK)
        return rk_error_set(error, status, "cannot start a call of %s: %s", path, rk_status_name(status));
    while (!one.done) {
        status = rk_grpc_client_wait(client, UINT64_MAX, error);
        if (status != RK_OK)
            return status;
    }
    return RK_OK;
}
