/* One call: checks what arrives against its method's kind, and hands whole messages to the method.
 *
 * Callbacks into methods may finish this call or others; so after each one the code looks at `ended` again. The
 * session's thread. */
#include "server/grpc/call.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/grpc/gzip.h"
#include "server/grpc/literal_answer.h"
#include "server/grpc/pool.h"
#include "server/grpc/session_internal.h"

#define HONEST_RATIO 32u /* of a message to its compressed form: what requests hardly reach */

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
    rk_call_drop_output(call);
    drop_headers(call);
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        session->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    if (--session->num_calls == 0)
        session->time.idle_since_us = session->now_us;
    rk_pool_free(session->pool, call->client);
    rk_pool_free(session->pool, call);
}

/* ---- answering ---- */

/* The one way out for every answer; `ended` is set already. */
static void answer(struct rk_call *call, enum rk_grpc_status status, const char *message, bool names_encodings)
{
    tell_finished(call, status);
    stop_receiving(call);
    drop_headers(call);
    rk_call_submit_status(call, status, message, names_encodings);
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

/* ---- receiving ---- */

static bool one_request_message(const struct rk_call *call)
{
    return call->method->kind != RK_METHOD_BIDI;
}

static void refuse(struct rk_call *call, const struct rk_header_refusal *refusal)
{
    call->ended = true;
    if (strcmp(refusal->http_status, "200") == 0) {
        answer(call, refusal->status, refusal->message, refusal->names_encodings);
        return;
    }
    stop_receiving(call);
    rk_call_submit_http_status(call, refusal->http_status);
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
    struct rk_header_refusal refusal;
    uint64_t timeout_us;
    if (!rk_request_headers_check(&call->headers, session->config, &call->method, &timeout_us, &refusal)) {
        refuse(call, &refusal);
        return;
    }
    call->deframer.takes_compressed = rk_request_headers_say_gzip(&call->headers);
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
    struct rk_header_refusal refusal;
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

static void call_method(struct rk_call *call, const uint8_t *bytes, size_t length)
{
    call->known = true;
    call->received_bytes += length;
    call->method->message(call->method->service, call, bytes, length);
}

/* Inflating costs time by what comes out, and bombs are cheap to send; so what becomes more than honest requests do is
 * rationed, before it is inflated. */
static bool may_inflate(struct rk_grpc_session *session, const uint8_t *bytes, size_t length)
{
    const uint64_t declared = rk_gzip_declared_bytes(bytes, length), honest = (uint64_t)HONEST_RATIO * length;
    return declared <= honest || declared > session->config->limits.max_message_bytes || /* refused all the same */
           rk_bucket_take_many(&session->inflation, (declared - honest) / 1024, session->now_us);
}

/* One at a time is inflated, and gone when this returns: it needs no budget. */
static void deliver_inflated(struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_pool *pool = call->session->pool;
    const uint64_t max_bytes = call->session->config->limits.max_message_bytes;
    uint8_t *message = NULL;
    size_t message_bytes = 0;
    if (!may_inflate(call->session, bytes, length)) {
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED,
                     "this connection's compressed messages become more than %u times as long too often", HONEST_RATIO);
        return;
    }
    switch (rk_gzip_inflate(pool, bytes, length, max_bytes, &message, &message_bytes)) {
    case RK_OK:
        call_method(call, message, message_bytes);
        rk_pool_free(pool, message);
        break;
    case RK_EXHAUSTED:
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED,
                     "a compressed message of %zu bytes inflates to more than this server's limit of %llu bytes",
                     length, (unsigned long long)max_bytes);
        break;
    case RK_CORRUPT:
        rk_call_fail(call, RK_GRPC_INTERNAL, "a compressed message of %zu bytes is not gzip, or damaged", length);
        break;
    default:
        rk_call_fail(call, RK_GRPC_RESOURCE_EXHAUSTED, "out of memory");
        break;
    }
}

static void deliver(struct rk_call *call)
{
    if (call->deadline_us <= call->session->now_us) {
        rk_call_expire(call);
        return;
    }
    /* The callback may finish the call, which gives the deframer's memory back: the message is taken out of it first.
     */
    struct rk_deframer message = call->deframer;
    call->deframer = (struct rk_deframer){.takes_compressed = message.takes_compressed};
    call->has_message = false;
    call->was_compressed = rk_deframer_is_compressed(&message);
    if (call->was_compressed)
        deliver_inflated(call, message.message, message.length);
    else
        call_method(call, message.message, message.length);
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
    if (!call->ended && !call->paused)
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

bool rk_call_message_was_compressed(const struct rk_call *call)
{
    return call->was_compressed;
}

void rk_call_set_client(struct rk_call *call, const char *name)
{
    struct rk_pool *pool = call->session->pool;
    const size_t bytes = strlen(name) + 1;
    rk_pool_free(pool, call->client);
    call->client = rk_pool_alloc(pool, bytes);
    if (call->client != NULL)
        memcpy(call->client, name, bytes);
}

const char *rk_call_client(const struct rk_call *call)
{
    return call->client;
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
