/* A stream is its requests in work, each a job with an item in its arena. It is paused while it has as many of them as
 * it may, or while its answers are not taken: then the peer's window closes, and what it sends waits on its side.
 *
 *   message   decoded and queued as every request; refused: an answer with the error
 *   reply     the answer, or the error; then the next message may be read
 *   the end   after a half-close, or when the connection is leaving: once nothing is in work
 *
 * All of it on the loop's thread, but for encoding. */
#include "server/rank_stream.h"

#include <assert.h>
#include <stdio.h>

#include "proto/rank_codec.h"
#include "proto/rank_peek.h"
#include "server/clock.h"
#include "server/connection.h"
#include "server/grpc/pool.h"
#include "server/printable.h"
#include "server/rank_answer.h"

#define MAX_TEXT_BYTES 512 /* of an error */

struct item {
    struct item *next, *previous;
    struct stream *stream;
    struct rk_job *job;
    uint64_t id;
};

struct stream {
    struct rk_rank_stream_service *service;
    struct rk_call *call;
    struct item *items;
    uint32_t in_work;
    bool paused, half_closed, leaving;
};

/* ---- the protocol ---- */

static enum rk_status decode(const struct rk_rank_entry *entry, struct rk_job *job, const uint8_t *bytes, size_t length,
                             struct rk_error *error)
{
    (void)entry;
    struct rk_rank_details *details = job->details;
    struct stream *stream = rk_call_data(job->call);
    ProtobufCMessage *decoded;
    enum rk_status status =
        rk_message_decode(&rankd__v1__rank_stream_request__descriptor, bytes, length, &job->arena, &decoded, error);
    if (status != RK_OK)
        return status;
    const Rankd__V1__RankStreamRequest *request = (const Rankd__V1__RankStreamRequest *)decoded;
    if (request->request == NULL)
        return rk_error_set(error, RK_INVALID, "request is not set");
    struct item *item = rk_arena_alloc(&job->arena, sizeof *item);
    if (item == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request");
    *item = (struct item){.stream = stream, .job = job, .id = request->id};
    details->extra = item;
    details->message = request->request;
    details->start_us = rk_clock_us();
    uint64_t by_us;
    if (request->timeout_us > 0 && !__builtin_add_overflow(details->start_us, request->timeout_us, &by_us) &&
        by_us < job->deadline_us)
        job->deadline_us = by_us;
    return RK_OK;
}

static enum rk_status encode(struct rk_job *job, const Rankd__V1__RankResponse *response, uint8_t **bytes,
                             size_t *length)
{
    const struct rk_rank_details *details = job->details;
    Rankd__V1__RankStreamResponse answer = RANKD__V1__RANK_STREAM_RESPONSE__INIT;
    answer.id = ((const struct item *)details->extra)->id;
    answer.response = (Rankd__V1__RankResponse *)response; /* the encoder only reads */
    return rk_message_encode(&answer.base, &job->arena, bytes, length);
}

/* ---- streams ---- */

static void link_item(struct stream *stream, struct item *item)
{
    item->next = stream->items;
    if (item->next != NULL)
        item->next->previous = item;
    stream->items = item;
    stream->in_work++;
}

static void unlink_item(struct stream *stream, struct item *item)
{
    if (item->previous != NULL)
        item->previous->next = item->next;
    else
        stream->items = item->next;
    if (item->next != NULL)
        item->next->previous = item->previous;
    stream->in_work--;
}

/* The call has ended: what is still in work comes back to nobody. */
static void drop(struct stream *stream)
{
    struct rk_rank_service *rank = stream->service->entry.service;
    for (struct item *item = stream->items, *next; item != NULL; item = next) {
        next = item->next;
        rk_rank_abandon(rank, item->job);
    }
    rk_pool_free(rank->loop->pool, stream);
}

static void end(struct stream *stream, enum rk_grpc_status status, const char *text)
{
    struct rk_call *call = stream->call;
    rk_connection_touch(rk_grpc_session_owner(rk_call_session(call)));
    drop(stream);
    rk_call_finish(call, status, text);
}

/* Ends the stream where it is time, or sees to it that it is read as far as it should be. It may be gone afterwards. */
static void go_on(struct stream *stream)
{
    if (stream->in_work == 0 && (stream->leaving || stream->half_closed)) {
        if (stream->half_closed)
            end(stream, RK_GRPC_OK, NULL);
        else
            end(stream, RK_GRPC_UNAVAILABLE, "this connection is going away: ask on another");
        return;
    }
    const bool full = stream->leaving || stream->in_work >= stream->service->max_in_work ||
                      rk_call_queued_bytes(stream->call) >= RK_CALL_OUTPUT_MARK;
    if (full == stream->paused)
        return;
    stream->paused = full;
    if (full)
        rk_call_pause(stream->call);
    else
        rk_call_resume(stream->call); /* last: messages may be handled in it */
}

static enum rk_status send_error(struct stream *stream, uint64_t id, enum rk_status status, const char *text,
                                 const char *pushback_ms)
{
    Rankd__V1__RankStreamResponse answer = RANKD__V1__RANK_STREAM_RESPONSE__INIT;
    Rankd__V1__RankStreamResponse__Error error = RANKD__V1__RANK_STREAM_RESPONSE__ERROR__INIT;
    char printable[MAX_TEXT_BYTES];
    uint8_t bytes[2 * MAX_TEXT_BYTES];
    snprintf(printable, sizeof printable, "%s", text);
    rk_printable_make(printable);
    error.code = (int32_t)rk_grpc_status_of(status);
    error.message = printable;
    if (pushback_ms != NULL)
        error.retry_pushback_ms = (char *)pushback_ms;
    answer.id = id;
    answer.error = &error;
    assert(rankd__v1__rank_stream_response__get_packed_size(&answer) <= sizeof bytes);
    return rk_call_send(stream->call, bytes, rankd__v1__rank_stream_response__pack(&answer, bytes));
}

static void sent(struct stream *stream, enum rk_status status)
{
    if (status == RK_OK)
        go_on(stream);
    else
        end(stream, rk_grpc_status_of(status),
            "an answer could not be queued: this connection has too many that are not taken");
}

static enum rk_status reply(struct rk_job *job, enum rk_status status, const char *text)
{
    const struct rk_rank_details *details = job->details;
    struct item *item = details->extra;
    struct stream *stream = item->stream;
    unlink_item(stream, item);
    rk_connection_touch(rk_grpc_session_owner(rk_call_session(stream->call)));
    if (status == RK_OK) {
        status = rk_call_send(stream->call, details->answer, details->answer_bytes);
        sent(stream, status);
    } else {
        char pushback_ms[16];
        snprintf(pushback_ms, sizeof pushback_ms, "%u", job->refusal.pushback_ms);
        sent(stream, send_error(stream, item->id, status, text, job->refusal.pushback_ms > 0 ? pushback_ms : NULL));
    }
    return status;
}

static bool peek(const uint8_t *bytes, size_t length, struct rk_rank_peek *peek)
{
    struct rk_rank_stream_peek outer;
    return rk_rank_stream_peek(bytes, length, &outer) && outer.request != NULL &&
           rk_rank_peek(outer.request, outer.request_bytes, peek);
}

static const struct rk_rank_protocol protocol = {
    .peek = peek, .can_degrade = true, .decode = decode, .encode = encode, .reply = reply};

/* ---- calls ---- */

/* Made at the first message or half-close; NULL: the call has ended. */
static struct stream *stream_of(struct rk_rank_stream_service *service, struct rk_call *call)
{
    struct stream *stream = rk_call_data(call);
    if (stream != NULL)
        return stream;
    stream = rk_pool_alloc(service->entry.service->loop->pool, sizeof *stream);
    if (stream == NULL) {
        rk_call_finish(call, RK_GRPC_RESOURCE_EXHAUSTED, "out of memory for the stream");
        return NULL;
    }
    *stream = (struct stream){.service = service, .call = call};
    rk_call_set_data(call, stream);
    return stream;
}

static void message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_rank_stream_service *service = argument;
    struct stream *stream = stream_of(service, call);
    struct rk_rank_refusal refusal;
    if (stream == NULL)
        return;
    struct rk_rank_stream_peek outer;
    const bool has_id = rk_rank_stream_peek(bytes, length, &outer);
    struct rk_job *job = rk_rank_begin(&service->entry, call, bytes, length, &refusal);
    if (job != NULL) {
        link_item(stream, ((const struct rk_rank_details *)job->details)->extra);
        go_on(stream);
    } else if (has_id) {
        sent(stream, send_error(stream, outer.id, refusal.error.status, refusal.error.text, refusal.pushback_ms));
    } else {
        end(stream, rk_grpc_status_of(refusal.error.status), refusal.error.text);
    }
}

static void half_close(void *argument, struct rk_call *call)
{
    struct stream *stream = stream_of(argument, call);
    if (stream == NULL)
        return;
    stream->half_closed = true;
    go_on(stream);
}

static void leaving(void *argument, struct rk_call *call)
{
    struct stream *stream = stream_of(argument, call);
    if (stream == NULL)
        return;
    stream->leaving = true;
    go_on(stream);
}

static void writable(void *argument, struct rk_call *call)
{
    (void)argument;
    struct stream *stream = rk_call_data(call);
    if (stream != NULL)
        go_on(stream);
}

static void cancelled(void *argument, struct rk_call *call)
{
    (void)argument;
    struct stream *stream = rk_call_data(call);
    if (stream != NULL)
        drop(stream);
}

struct rk_method rk_rank_stream_method(struct rk_rank_stream_service *service)
{
    service->entry.protocol = &protocol;
    return (struct rk_method){.path = "/rankd.v1.Ranking/RankStream",
                              .kind = RK_METHOD_BIDI,
                              .message = message,
                              .half_close = half_close,
                              .leaving = leaving,
                              .writable = writable,
                              .cancelled = cancelled,
                              .service = service};
}
