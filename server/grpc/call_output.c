/* A call's answer, as HTTP/2.
 *
 * Without messages it is one HEADERS frame (trailers-only). With messages it is HEADERS, DATA that nghttp2 reads from
 * the list of outgoing messages, and trailers, submitted when the list runs empty after the call was finished. Nothing
 * is written before rk_grpc_session_output asks, so that the three leave in one piece.
 *
 *   outgoing = [next, bytes, sent | compressed flag, length, message]     a pool block
 *
 * The session's thread. */
#include <assert.h>
#include <string.h>

#include "server/grpc/call.h"
#include "server/grpc/gzip.h"
#include "server/grpc/pool.h"
#include "server/grpc/session_internal.h"
#include "server/grpc/text.h"

#define MAX_STATUS_MESSAGE_BYTES 1024 /* before percent-encoding */
#define MAX_RESPONSE_HEADERS     (5 + RK_MAX_EXTRA_HEADERS + RK_MAX_EXTRA_TRAILERS)

struct rk_outgoing {
    struct rk_outgoing *next;
    size_t bytes, sent; /* prefix included */
    uint8_t data[];
};

struct rk_extra_header {
    struct rk_extra_header *next;
    size_t name_bytes, value_bytes;
    uint8_t text[]; /* name, value */
};

/* ---- headers ---- */

static nghttp2_nv static_header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static const char *status_digits(enum rk_grpc_status status)
{
    static const char digits[][3] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                     "9", "10", "11", "12", "13", "14", "15", "16"};
    return digits[status];
}

/* Returns how many; nghttp2 copies them. */
static size_t collect_extra(const struct rk_extra_header *extra, nghttp2_nv *headers)
{
    size_t count = 0;
    for (; extra != NULL; extra = extra->next)
        headers[count++] = (nghttp2_nv){(uint8_t *)extra->text, (uint8_t *)extra->text + extra->name_bytes,
                                        extra->name_bytes, extra->value_bytes, NGHTTP2_NV_FLAG_NONE};
    return count;
}

/* grpc-status, grpc-message and the extra trailers; returns how many. nghttp2 copies what is not static. */
static size_t collect_trailers(const struct rk_call *call, nghttp2_nv *headers)
{
    size_t count = 0;
    headers[count++] = static_header("grpc-status", status_digits(call->status));
    if (call->message != NULL)
        headers[count++] = (nghttp2_nv){(uint8_t *)"grpc-message", (uint8_t *)call->message, strlen("grpc-message"),
                                        call->message_bytes, NGHTTP2_NV_FLAG_NO_COPY_NAME};
    return count + collect_extra(call->trailers, headers + count);
}

/* Adds to the end of a list of at most `most`. */
static void add_extra(struct rk_call *call, struct rk_extra_header **list, size_t most, const char *name,
                      const char *value)
{
    size_t count = 0;
    for (; *list != NULL; list = &(*list)->next)
        count++;
    assert(count < most);
    const size_t name_bytes = strlen(name), value_bytes = strlen(value);
    struct rk_extra_header *extra = rk_pool_alloc(call->session->pool, sizeof *extra + name_bytes + value_bytes);
    if (extra == NULL)
        return; /* extra information; the answer stands without it */
    extra->next = NULL;
    extra->name_bytes = name_bytes;
    extra->value_bytes = value_bytes;
    memcpy(extra->text, name, name_bytes);
    memcpy(extra->text + name_bytes, value, value_bytes);
    *list = extra;
}

void rk_call_add_header(struct rk_call *call, const char *name, const char *value)
{
    assert(!call->response_begun);
    add_extra(call, &call->extra_headers, RK_MAX_EXTRA_HEADERS, name, value);
}

void rk_call_add_trailer(struct rk_call *call, const char *name, const char *value)
{
    add_extra(call, &call->trailers, RK_MAX_EXTRA_TRAILERS, name, value);
}

static void drop_extra(struct rk_call *call, struct rk_extra_header **list)
{
    while (*list != NULL) {
        struct rk_extra_header *extra = *list;
        *list = extra->next;
        rk_pool_free(call->session->pool, extra);
    }
}

/* ---- the end of the answer ---- */

/* nghttp2 takes an answer unless the stream is gone, which is well, or there is no memory. */
static void check_submitted(struct rk_call *call, int result)
{
    if (nghttp2_is_fatal(result))
        rk_grpc_session_kill(call->session);
}

static void submit_response(struct rk_call *call, const nghttp2_nv *headers, size_t count)
{
    check_submitted(call, nghttp2_submit_response(call->session->h2, call->stream_id, headers, count, NULL));
}

static void keep_message(struct rk_call *call, const char *message)
{
    if (message == NULL || message[0] == '\0')
        return;
    size_t length = strlen(message);
    if (length > MAX_STATUS_MESSAGE_BYTES)
        length = MAX_STATUS_MESSAGE_BYTES;
    call->message = rk_pool_alloc(call->session->pool, 3 * length);
    if (call->message != NULL) /* else the status must do */
        call->message_bytes = rk_percent_encode(message, length, call->message);
}

static void submit_trailers_only(struct rk_call *call, bool names_encodings)
{
    nghttp2_nv headers[MAX_RESPONSE_HEADERS];
    size_t count = 0;
    headers[count++] = static_header(":status", "200");
    headers[count++] = static_header("content-type", "application/grpc");
    if (names_encodings)
        headers[count++] = static_header("grpc-accept-encoding", "identity,gzip");
    count += collect_extra(call->extra_headers, headers + count);
    count += collect_trailers(call, headers + count);
    submit_response(call, headers, count);
}

void rk_call_submit_status(struct rk_call *call, enum rk_grpc_status status, const char *message, bool names_encodings)
{
    assert(call->ended && !call->trailers_ready);
    call->status = status;
    keep_message(call, message);
    call->trailers_ready = true;
    if (call->session->dead)
        return;
    if (!call->response_begun)
        submit_trailers_only(call, names_encodings);
    else /* when it is not deferred, nghttp2 says so and will read on by itself */
        check_submitted(call, nghttp2_session_resume_data(call->session->h2, call->stream_id));
}

void rk_call_submit_http_status(struct rk_call *call, const char *http_status)
{
    const nghttp2_nv headers[2] = {static_header(":status", http_status), static_header("allow", "POST")};
    submit_response(call, headers, strcmp(http_status, "405") == 0 ? 2 : 1);
}

/* ---- messages ---- */

/* nghttp2 asks for the body: as many of the waiting bytes as fit. */
static ssize_t read_body(nghttp2_session *h2, int32_t stream_id, uint8_t *buffer, size_t capacity, uint32_t *flags,
                         nghttp2_data_source *source, void *user_data)
{
    struct rk_grpc_session *session = user_data;
    struct rk_call *call = source->ptr;
    size_t written = 0;
    while (call->first_out != NULL && written < capacity) {
        struct rk_outgoing *out = call->first_out;
        size_t left = out->bytes - out->sent;
        size_t part = left < capacity - written ? left : capacity - written;
        memcpy(buffer + written, out->data + out->sent, part);
        written += part;
        out->sent += part;
        call->queued_bytes -= part;
        session->moved_bytes += part;
        if (out->sent < out->bytes)
            break;
        call->first_out = out->next;
        call->waiting_us = session->now_us;
        session->queued_bytes -= out->bytes;
        rk_pool_free(session->pool, out);
    }
    if (call->over_mark && call->queued_bytes <= RK_CALL_OUTPUT_MARK / 2)
        session->some_writable = true; /* told when nghttp2 has returned */
    if (call->first_out != NULL)
        return (ssize_t)written;
    call->last_out = NULL;
    if (!call->trailers_ready)
        return written > 0 ? (ssize_t)written : NGHTTP2_ERR_DEFERRED;
    nghttp2_nv trailers[MAX_RESPONSE_HEADERS];
    size_t count = collect_trailers(call, trailers);
    if (nghttp2_submit_trailer(h2, stream_id, trailers, count) != 0)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets the stream */
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return (ssize_t)written;
}

static enum rk_status begin_response(struct rk_call *call)
{
    const uint64_t min_bytes = call->session->config->limits.min_compressed_bytes;
    call->may_compress = call->headers.takes_gzip && (min_bytes > 0 || call->compression == RK_COMPRESSION_ON);
    nghttp2_nv headers[MAX_RESPONSE_HEADERS];
    size_t count = 0;
    headers[count++] = static_header(":status", "200");
    headers[count++] = static_header("content-type", "application/grpc");
    if (call->may_compress)
        headers[count++] = static_header("grpc-encoding", "gzip");
    count += collect_extra(call->extra_headers, headers + count);
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_body};
    int result = nghttp2_submit_response(call->session->h2, call->stream_id, headers, count, &body);
    check_submitted(call, result);
    if (result != 0)
        return RK_NO_MEMORY;
    call->response_begun = true;
    return RK_OK;
}

void rk_call_compress(struct rk_call *call, bool on)
{
    call->compression = on ? RK_COMPRESSION_ON : RK_COMPRESSION_OFF;
}

static bool is_to_compress(const struct rk_call *call, size_t length)
{
    const uint64_t min_bytes = call->session->config->limits.min_compressed_bytes;
    if (!call->may_compress || call->compression == RK_COMPRESSION_OFF)
        return false;
    return call->compression == RK_COMPRESSION_ON || (min_bytes > 0 && length >= min_bytes);
}

static void put_prefix(struct rk_outgoing *out, bool compressed, size_t length)
{
    const uint8_t prefix[RK_GRPC_PREFIX_BYTES] = {compressed, (uint8_t)(length >> 24), (uint8_t)(length >> 16),
                                                  (uint8_t)(length >> 8), (uint8_t)length};
    memcpy(out->data, prefix, sizeof prefix);
    out->bytes = sizeof prefix + length;
}

/* A message as it will travel; NULL: no memory. What does not become shorter stays as it is. */
static struct rk_outgoing *make_outgoing(const struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_pool *pool = call->session->pool;
    struct rk_outgoing *out = rk_pool_alloc(pool, sizeof *out + RK_GRPC_PREFIX_BYTES + length);
    if (out == NULL)
        return NULL;
    out->next = NULL;
    out->sent = 0;
    size_t compressed;
    if (is_to_compress(call, length) &&
        rk_gzip_deflate(pool, bytes, length, out->data + RK_GRPC_PREFIX_BYTES, length, &compressed) == RK_OK) {
        put_prefix(out, true, compressed);
        return out;
    }
    put_prefix(out, false, length);
    if (length > 0)
        memcpy(out->data + RK_GRPC_PREFIX_BYTES, bytes, length);
    return out;
}

enum rk_status rk_call_send(struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_grpc_session *session = call->session;
    if (call->ended || session->dead)
        return RK_CANCELLED;
    size_t framed;
    if (length > UINT32_MAX || __builtin_add_overflow(length, RK_GRPC_PREFIX_BYTES, &framed) ||
        framed > session->config->limits.max_queued_output_bytes - session->queued_bytes)
        return RK_EXHAUSTED;
    if (!call->response_begun && begin_response(call) != RK_OK)
        return RK_NO_MEMORY;
    struct rk_outgoing *out = make_outgoing(call, bytes, length);
    if (out == NULL)
        return RK_NO_MEMORY;
    if (call->last_out != NULL) {
        call->last_out->next = out;
    } else {
        call->first_out = out;
        call->waiting_us = session->now_us;
    }
    call->last_out = out;
    session->queued_bytes += out->bytes;
    call->queued_bytes += out->bytes;
    call->sent_bytes += length;
    call->over_mark = call->over_mark || call->queued_bytes >= RK_CALL_OUTPUT_MARK;
    check_submitted(call, nghttp2_session_resume_data(session->h2, call->stream_id));
    return RK_OK;
}

size_t rk_call_queued_bytes(const struct rk_call *call)
{
    return call->queued_bytes;
}

void rk_call_drop_output(struct rk_call *call)
{
    struct rk_grpc_session *session = call->session;
    while (call->first_out != NULL) {
        struct rk_outgoing *out = call->first_out;
        call->first_out = out->next;
        session->queued_bytes -= out->bytes;
        rk_pool_free(session->pool, out);
    }
    drop_extra(call, &call->extra_headers);
    drop_extra(call, &call->trailers);
    rk_pool_free(session->pool, call->message);
}
