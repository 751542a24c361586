/* One call: checks what arrives against its method's kind, hands whole messages to the method, and turns its answer
 * into HTTP/2.
 *
 * An answer without messages is one HEADERS frame (trailers-only). One with messages is HEADERS, DATA read by nghttp2
 * from the list of outgoing messages, and trailers, submitted when the list runs empty after the call was finished.
 * Nothing is written before rk_grpc_session_output asks, so that the three leave in one piece.
 *
 * Callbacks into methods may finish this call or others; so after each one the code looks at `ended` again. The
 * session's thread. */
#include "server/grpc/call.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/grpc/literal_answer.h"
#include "server/grpc/pool.h"
#include "server/grpc/session_internal.h"
#include "server/grpc/text.h"

#define MAX_STATUS_MESSAGE_BYTES 1024 /* before percent-encoding */
#define MAX_RESPONSE_HEADERS     (5 + RK_MAX_EXTRA_TRAILERS)

struct rk_outgoing {
    struct rk_outgoing *next;
    size_t bytes, sent; /* prefix included */
    uint8_t data[];
};

/* ---- opening and closing ---- */

struct rk_call *rk_call_open(struct rk_grpc_session *session, int32_t stream_id)
{
    struct rk_call *call = rk_pool_alloc(session->pool, sizeof *call);
    if (call == NULL)
        return NULL;
    *call = (struct rk_call){.session = session,
                             .stream_id = stream_id,
                             .start_us = session->now_us,
                             .deadline_us = UINT64_MAX,
                             .deadline_index = RK_NO_DEADLINE_INDEX,
                             .next = session->calls};
    if (call->next != NULL)
        call->next->previous = call;
    session->calls = call;
    session->num_calls++;
    return call;
}

static void tell_cancelled(struct rk_call *call)
{
    if (call->ended)
        return;
    call->ended = true; /* first: the callback may not answer any more */
    if (call->known && call->method->cancelled != NULL)
        call->method->cancelled(call->method->service, call);
}

/* What only a call that is not answered yet needs. */
static void stop_receiving(struct rk_call *call)
{
    struct rk_grpc_session *session = call->session;
    rk_deadlines_remove(&session->deadlines, call);
    rk_deframer_next(&call->deframer, session->pool, &session->assembly_budget);
    rk_call_drop_held(call);
    call->has_message = false;
}

/* Nobody asks for its headers any more. */
static void drop_headers(struct rk_call *call)
{
    rk_request_headers_deinit(&call->headers, call->session->pool, &call->session->metadata_budget);
}

static void tell_finished(struct rk_call *call, enum rk_grpc_status status)
{
    const struct rk_grpc_session_config *config = call->session->config;
    if (call->method != NULL && config->finished != NULL)
        config->finished(config->access_log, call, status);
}

void rk_call_close(struct rk_call *call)
{
    struct rk_grpc_session *session = call->session;
    if (!call->ended) {
        tell_cancelled(call);
        tell_finished(call, RK_GRPC_CANCELLED);
    }
    stop_receiving(call);
    while (call->first_out != NULL) {
        struct rk_outgoing *out = call->first_out;
        call->first_out = out->next;
        session->queued_bytes -= out->bytes;
        rk_pool_free(session->pool, out);
    }
    for (uint32_t i = 0; i < call->num_trailers; i++)
        rk_pool_free(session->pool, call->trailers[i].name);
    rk_pool_free(session->pool, call->message);
    drop_headers(call);
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        session->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    session->num_calls--;
    rk_pool_free(session->pool, call);
}

/* ---- answering ---- */

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

/* grpc-status, grpc-message and the extra trailers; returns how many. nghttp2 copies what is not static. */
static size_t collect_trailers(const struct rk_call *call, nghttp2_nv *headers)
{
    size_t count = 0;
    headers[count++] = static_header("grpc-status", status_digits(call->status));
    if (call->message != NULL)
        headers[count++] = (nghttp2_nv){(uint8_t *)"grpc-message", (uint8_t *)call->message, strlen("grpc-message"),
                                        call->message_bytes, NGHTTP2_NV_FLAG_NO_COPY_NAME};
    for (uint32_t i = 0; i < call->num_trailers; i++) {
        const struct rk_trailer *trailer = &call->trailers[i];
        headers[count++] = (nghttp2_nv){(uint8_t *)trailer->name, (uint8_t *)trailer->value, strlen(trailer->name),
                                        strlen(trailer->value), NGHTTP2_NV_FLAG_NONE};
    }
    return count;
}

/* nghttp2 takes an answer unless the stream is gone, which is well, or there is no memory. */
static void check_submitted(struct rk_call *call, int result)
{
    if (nghttp2_is_fatal(result))
        rk_grpc_session_kill(call->session);
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
        headers[count++] = static_header("grpc-accept-encoding", "identity");
    count += collect_trailers(call, headers + count);
    check_submitted(call, nghttp2_submit_response(call->session->h2, call->stream_id, headers, count, NULL));
}

/* The one way out for every answer; `ended` is set already. */
static void answer(struct rk_call *call, enum rk_grpc_status status, const char *message, bool names_encodings)
{
    assert(call->ended && !call->trailers_ready);
    tell_finished(call, status);
    stop_receiving(call);
    drop_headers(call);
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

/* The session's own answer to a call that its method has not seen, or that breaks a rule in the middle. */
void rk_call_fail(struct rk_call *call, enum rk_grpc_status status, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    tell_cancelled(call);
    answer(call, status, text, false);
}

void rk_call_expire(struct rk_call *call)
{
    rk_call_fail(call, RK_GRPC_DEADLINE_EXCEEDED, "the deadline passed before an answer was ready");
}

void rk_call_leaving(struct rk_call *call)
{
    if (call->ended || call->method == NULL || call->method->leaving == NULL)
        return;
    call->known = true;
    call->method->leaving(call->method->service, call);
}

void rk_call_finish(struct rk_call *call, enum rk_grpc_status status, const char *message)
{
    if (call->ended)
        return;
    call->ended = true;
    answer(call, status, message, false);
}

void rk_call_add_trailer(struct rk_call *call, const char *name, const char *value)
{
    assert(call->num_trailers < RK_MAX_EXTRA_TRAILERS);
    size_t name_bytes = strlen(name) + 1, value_bytes = strlen(value) + 1;
    char *block = rk_pool_alloc(call->session->pool, name_bytes + value_bytes);
    if (block == NULL)
        return; /* extra information; the answer stands without it */
    memcpy(block, name, name_bytes);
    memcpy(block + name_bytes, value, value_bytes);
    call->trailers[call->num_trailers++] = (struct rk_trailer){block, block + name_bytes};
}

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
        if (out->sent < out->bytes)
            break;
        call->first_out = out->next;
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
    nghttp2_nv headers[] = {static_header(":status", "200"), static_header("content-type", "application/grpc")};
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_body};
    int result = nghttp2_submit_response(call->session->h2, call->stream_id, headers, 2, &body);
    check_submitted(call, result);
    if (result != 0)
        return RK_NO_MEMORY;
    call->response_begun = true;
    return RK_OK;
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
    struct rk_outgoing *out = rk_pool_alloc(session->pool, sizeof *out + framed);
    if (out == NULL)
        return RK_NO_MEMORY;
    out->next = NULL;
    out->bytes = framed;
    out->sent = 0;
    const uint8_t prefix[RK_GRPC_PREFIX_BYTES] = {0, (uint8_t)(length >> 24), (uint8_t)(length >> 16),
                                                  (uint8_t)(length >> 8), (uint8_t)length};
    memcpy(out->data, prefix, sizeof prefix);
    if (length > 0)
        memcpy(out->data + sizeof prefix, bytes, length);
    if (!call->response_begun && begin_response(call) != RK_OK) {
        rk_pool_free(session->pool, out);
        return RK_NO_MEMORY;
    }
    if (call->last_out != NULL)
        call->last_out->next = out;
    else
        call->first_out = out;
    call->last_out = out;
    session->queued_bytes += framed;
    call->queued_bytes += framed;
    call->sent_bytes += length;
    call->over_mark = call->over_mark || call->queued_bytes >= RK_CALL_OUTPUT_MARK;
    check_submitted(call, nghttp2_session_resume_data(session->h2, call->stream_id));
    return RK_OK;
}

/* ---- receiving ---- */

static bool one_request_message(const struct rk_call *call)
{
    return call->method->kind != RK_METHOD_BIDI;
}

static void refuse(struct rk_call *call, const struct rk_refusal *refusal)
{
    call->ended = true;
    if (strcmp(refusal->http_status, "200") == 0) {
        answer(call, refusal->status, refusal->message, refusal->names_encodings);
        return;
    }
    stop_receiving(call);
    nghttp2_nv headers[2] = {static_header(":status", refusal->http_status), static_header("allow", "POST")};
    size_t count = strcmp(refusal->http_status, "405") == 0 ? 2 : 1;
    check_submitted(call, nghttp2_submit_response(call->session->h2, call->stream_id, headers, count, NULL));
}

/* False: there is no time at all, or no memory to keep it; the call has ended. */
static bool start_timeout(struct rk_call *call, uint64_t timeout_us)
{
    struct rk_grpc_session *session = call->session;
    if (__builtin_add_overflow(call->start_us, timeout_us, &call->deadline_us))
        call->deadline_us = UINT64_MAX;
    if (timeout_us == 0)
        rk_call_expire(call);
    else if (!rk_deadlines_add(&session->deadlines, session->pool, call))
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED, "out of memory");
    return !call->ended;
}

void rk_call_headers_done(struct rk_call *call)
{
    struct rk_grpc_session *session = call->session;
    struct rk_refusal refusal;
    uint64_t timeout_us;
    if (!rk_request_headers_check(&call->headers, session->config, &call->method, &timeout_us, &refusal)) {
        refuse(call, &refusal);
        return;
    }
    if (timeout_us != UINT64_MAX && !start_timeout(call, timeout_us))
        return;
    char message[256] = "";
    const struct rk_grpc_session_config *config = session->config;
    const enum rk_grpc_status allowed =
        config->authorize != NULL ? config->authorize(config->access, call, message, sizeof message) : RK_GRPC_OK;
    if (allowed != RK_GRPC_OK)
        rk_call_fail(call, allowed, "%s", message);
}
uint8_t *rk_call_answer_before_reset(struct rk_call *call, size_t *bytes)
{
    struct rk_grpc_session *session = call->session;
    if (call->ended || call->method != NULL || !rk_request_headers_path_lacks_slash(&call->headers))
        return NULL;
    struct rk_refusal refusal;
    uint64_t timeout_us;
    if (rk_request_headers_check(&call->headers, session->config, &call->method, &timeout_us, &refusal) ||
        strcmp(refusal.http_status, "200") != 0)
        return NULL; /* not gRPC: the reset says enough */
    uint8_t *frame = rk_pool_alloc(session->pool, RK_LITERAL_ANSWER_BYTES(strlen(refusal.message)));
    if (frame == NULL)
        return NULL;
    call->ended = true;
    stop_receiving(call);
    *bytes = rk_literal_answer_print(frame, call->stream_id, refusal.status, refusal.message);
    return frame;
}

static void deliver(struct rk_call *call)
{
    if (call->deadline_us <= call->session->now_us) {
        rk_call_expire(call);
        return;
    }
    const struct rk_method *method = call->method;
    /* The callback may finish the call, which gives the deframer's memory back: the message is taken out of it first.
     */
    struct rk_deframer message = call->deframer;
    call->deframer = (struct rk_deframer){0};
    call->has_message = false;
    call->known = true;
    call->received_bytes += message.length;
    method->message(method->service, call, message.message, message.length);
    rk_deframer_next(&message, call->session->pool, &call->session->assembly_budget);
}

static void whole_message(struct rk_call *call)
{
    if (one_request_message(call))
        call->has_message = true; /* wait for the half-close: a second message would make the call invalid */
    else
        deliver(call);
}

static void fail_deframing(struct rk_call *call, enum rk_deframed why)
{
    const struct rk_grpc_limits *limits = &call->session->config->limits;
    switch (why) {
    case RK_DEFRAMED_COMPRESSED:
        rk_call_fail(call, RK_GRPC_INTERNAL,
                     "a message has the compressed flag set, but the call has no grpc-encoding");
        break;
    case RK_DEFRAMED_BAD_FLAG:
        rk_call_fail(call, RK_GRPC_INTERNAL, "a message has the compressed flag %u; it must be 0 or 1",
                     call->deframer.prefix[0]);
        break;
    case RK_DEFRAMED_TOO_LONG:
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED,
                     "a message of %u bytes is over this server's limit of %llu bytes", call->deframer.length,
                     (unsigned long long)limits->max_message_bytes);
        break;
    case RK_DEFRAMED_TOO_MUCH:
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED,
                     "this connection has too many unfinished request messages: send fewer large requests at once");
        break;
    default:
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED, "out of memory");
        break;
    }
}

size_t rk_call_feed(struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_grpc_session *session = call->session;
    const size_t given = length;
    call->feeding = true;
    while (length > 0 && !call->ended && !call->paused) {
        if (call->has_message) {
            rk_call_fail(call, RK_GRPC_INTERNAL, "%s takes one message, the request has more", call->method->path);
            break;
        }
        size_t taken;
        enum rk_deframed what =
            rk_deframer_feed(&call->deframer, session->pool, session->config->limits.max_message_bytes,
                             &session->assembly_budget, bytes, length, &taken);
        bytes += taken;
        length -= taken;
        if (what == RK_DEFRAMED_MESSAGE)
            whole_message(call);
        else if (what != RK_DEFRAMED_MORE)
            fail_deframing(call, what);
    }
    call->feeding = false;
    return given - length;
}

void rk_call_half_close(struct rk_call *call)
{
    call->half_closed = true;
    if (!call->ended && call->held == NULL)
        rk_call_end_input(call);
}

void rk_call_end_input(struct rk_call *call)
{
    if (!call->has_message && !rk_deframer_at_boundary(&call->deframer)) {
        const struct rk_deframer *deframer = &call->deframer;
        if (deframer->prefix_bytes < RK_GRPC_PREFIX_BYTES)
            rk_call_fail(call, RK_GRPC_INTERNAL, "the request ended inside a message's prefix, after %u of %u bytes",
                         deframer->prefix_bytes, RK_GRPC_PREFIX_BYTES);
        else
            rk_call_fail(call, RK_GRPC_INTERNAL, "the request ended inside a message, after %u of %u bytes",
                         deframer->arrived, deframer->length);
        return;
    }
    if (one_request_message(call)) {
        if (!call->has_message) {
            rk_call_fail(call, RK_GRPC_INTERNAL, "%s takes one message, the request has none", call->method->path);
            return;
        }
        deliver(call);
    }
    const struct rk_method *method = call->method;
    if (method->kind != RK_METHOD_UNARY && !call->ended && method->half_close != NULL) {
        call->known = true;
        method->half_close(method->service, call);
    }
}

/* ---- the handle ---- */

struct rk_grpc_session *rk_call_session(const struct rk_call *call)
{
    return call->session;
}

const char *rk_call_path(const struct rk_call *call)
{
    return call->method->path;
}

const char *rk_call_metadata(const struct rk_call *call, const char *name)
{
    return rk_request_headers_find(&call->headers, name);
}

size_t rk_call_queued_bytes(const struct rk_call *call)
{
    return call->queued_bytes;
}

void rk_call_note(struct rk_call *call, const char *subject, uint64_t amount)
{
    call->subject = subject;
    call->amount += amount;
}

const char *rk_call_subject(const struct rk_call *call)
{
    return call->subject;
}

uint64_t rk_call_amount(const struct rk_call *call)
{
    return call->amount;
}

uint64_t rk_call_received_bytes(const struct rk_call *call)
{
    return call->received_bytes;
}

uint64_t rk_call_sent_bytes(const struct rk_call *call)
{
    return call->sent_bytes;
}

uint64_t rk_call_deadline_us(const struct rk_call *call)
{
    return call->deadline_us;
}

uint64_t rk_call_start_us(const struct rk_call *call)
{
    return call->start_us;
}

void rk_call_set_data(struct rk_call *call, void *data)
{
    call->data = data;
}

void *rk_call_data(const struct rk_call *call)
{
    return call->data;
}
