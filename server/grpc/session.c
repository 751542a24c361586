/* The HTTP/2 side of a connection: nghttp2 with our memory, our settings and our limits; what belongs to a call goes on
 * to call.c.
 *
 * nghttp2 parses and keeps the state of streams; it trusts its peer more than we do. So this file counts what it lets
 * through:
 *
 *   glitches    frames that are legal and useless (PING, SETTINGS, PRIORITY, empty DATA, WINDOW_UPDATE beyond what
 * answers explain, unknown types, refused streams); honest work earns some back resets      streams that the peer gives
 * up; own_resets: streams that its faults make us give up
 *
 * and a peer that empties a bucket gets GOAWAY with ENHANCE_YOUR_CALM. The same goes for every negative return of
 * nghttp2, after which it would neither say GOAWAY nor stop reading. One thread at a time; no I/O, no clock. */
#include "server/grpc/session.h"

#include <assert.h>
#include <string.h>

#include "server/grpc/call.h"
#include "server/grpc/pool.h"
#include "server/grpc/session_internal.h"

#define CONNECTION_WINDOW_BYTES (16 << 20)
#define MIN_STREAM_WINDOW_BYTES (64 << 10)
#define MAX_STREAM_WINDOW_BYTES (16 << 20)
#define FRAME_BYTES             256 /* of memory, about, for a control frame that waits */
#define MAX_OWN_RESETS_PER_S    100
#define MAX_INFLATION_KIB_S     4096
#define MAX_WAITING_ACKS        1000
#define MAX_SETTINGS_ENTRIES    32
#define METADATA_BYTES          (1 << 20) /* that the open calls of one connection may keep */
#define UNFINISHED_MESSAGES     16        /* longest messages that one connection may have unfinished at once */
#define IGNORED_PER_GLITCH      16        /* short DATA frames of calls that are over: 16,000 at once are let pass */
#define GLITCHES_EARNED         4         /* by a call that begins, and by a DATA frame that carries an answer */
#define FIRST_EXTENSION_FRAME   0x0a
#define FRAME_HEADER_BYTES      9
#define SETTINGS_ENTRY_BYTES    6

void rk_grpc_session_break(struct rk_grpc_session *session, uint32_t http2_error, const char *why)
{
    if (session->broken)
        return;
    session->broken = true;
    session->why = why;
    nghttp2_session *h2 = session->h2;
    /* nghttp2's own GOAWAY, which ends the session, has no text; so one with the text goes before it. */
    if ((why != NULL && nghttp2_submit_goaway(h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2),
                                              http2_error, (const uint8_t *)why, strlen(why)) != 0) ||
        nghttp2_session_terminate_session(h2, http2_error) != 0)
        session->dead = true;
}

const char *rk_grpc_session_why(const struct rk_grpc_session *session)
{
    return session->why != NULL ? session->why : "its peer broke the protocol";
}

void rk_grpc_session_kill(struct rk_grpc_session *session)
{
    session->broken = session->dead = true;
}

static void count(struct rk_grpc_session *session, struct rk_bucket *bucket)
{
    if (!rk_bucket_take(bucket, session->now_us))
        rk_grpc_session_break(session, NGHTTP2_ENHANCE_YOUR_CALM,
                              bucket == &session->glitches ? "too many useless frames" : "too many resets");
}

static struct rk_call *find_call(const struct rk_grpc_session *session, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(session->h2, stream_id);
}

/* ---- what nghttp2 tells us ---- */

static int on_begin_frame(nghttp2_session *h2, const nghttp2_frame_hd *header, void *user_data)
{
    (void)h2;
    struct rk_grpc_session *session = user_data;
    switch (header->type) {
    case NGHTTP2_DATA: /* empty ones are counted once their padding is known */
        if (header->length < RK_SHORT_DATA_BYTES)
            session->heeded_short_data++;
        break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION: /* nghttp2 bounds these by itself */
        break;
    case NGHTTP2_RST_STREAM:
        count(session, &session->resets);
        break;
    case NGHTTP2_PRIORITY:
        if (header->stream_id == 0) /* nghttp2 passes over whatever they say (RFC 9113, section 6.3) */
            rk_grpc_session_break(session, NGHTTP2_PROTOCOL_ERROR, "PRIORITY of stream 0");
        count(session, &session->glitches);
        break;
    default:
        count(session, &session->glitches);
        break;
    }
    return 0;
}

/* Frames of types that we do not know: they were counted when they began; what they carry is passed over. */
static int on_extension_frame(nghttp2_session *h2, void **payload, const nghttp2_frame_hd *header, void *user_data)
{
    (void)h2, (void)payload, (void)header, (void)user_data;
    return NGHTTP2_ERR_CANCEL;
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data)
{
    struct rk_grpc_session *session = user_data;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    int32_t stream_id = frame->hd.stream_id;
    uint32_t error = NGHTTP2_REFUSED_STREAM;
    if (session->num_calls < session->config->limits.max_streams) {
        struct rk_call *call = rk_call_open(session, stream_id);
        if (call != NULL) {
            rk_bucket_give(&session->glitches, GLITCHES_EARNED);
            return nghttp2_session_set_stream_user_data(h2, stream_id, call);
        }
        error = NGHTTP2_INTERNAL_ERROR;
    }
    /* Whoever sees our limit late is honest, whoever goes on past it is not. */
    count(session, &session->glitches);
    return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, stream_id, error) == 0
               ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
               : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int refuse_headers(nghttp2_session *h2, int32_t stream_id, uint32_t error)
{
    if (nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, stream_id, error) != 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* nghttp2 unpacks the rest for its tables' sake and tells us no more
                                                     of it */
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                     uint8_t flags, void *user_data)
{
    (void)flags;
    struct rk_grpc_session *session = user_data;
    struct rk_call *call = find_call(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    if (!rk_request_headers_add(&call->headers, &session->config->limits, session->pool, &session->metadata_budget,
                                name, value))
        return refuse_headers(h2, frame->hd.stream_id, NGHTTP2_ENHANCE_YOUR_CALM);
    return 0;
}

static int on_invalid_header(nghttp2_session *h2, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                             uint8_t flags, void *user_data)
{
    (void)name, (void)value, (void)flags, (void)user_data;
    return refuse_headers(h2, frame->hd.stream_id, NGHTTP2_PROTOCOL_ERROR); /* nghttp2 alone would drop the header */
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *bytes, size_t length,
                   void *user_data)
{
    (void)flags;
    struct rk_call *call = find_call(user_data, stream_id);
    const bool good =
        call != NULL ? rk_call_take(call, bytes, length) : nghttp2_session_consume(h2, stream_id, length) == 0;
    return good ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data)
{
    (void)h2;
    struct rk_grpc_session *session = user_data;
    bool ends_stream = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        if (frame->hd.length == frame->data.padlen && !ends_stream)
            count(session, &session->glitches);
        break;
    case NGHTTP2_HEADERS: {
        struct rk_call *call = find_call(session, frame->hd.stream_id);
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST && call != NULL)
            rk_call_headers_done(call);
        break;
    }
    case NGHTTP2_PING:
        rk_session_time_ping(session, &frame->ping);
        return 0;
    case NGHTTP2_SETTINGS:
        session->time.settings_known |= (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
        return 0;
    default:
        return 0;
    }
    /* Looked up anew: headers_done may have ended the call, but its memory stays until the stream closes. */
    struct rk_call *call = find_call(session, frame->hd.stream_id);
    if (ends_stream && call != NULL)
        rk_call_half_close(call);
    return 0;
}

/* Puts an answer before the RST_STREAM that nghttp2 has just made of unusual headers. An answer that does not touch
 * HPACK's tables must not come first after the peer has made its table smaller, for then the first block says so (RFC
 * 7541, section 4.2); such a peer gets the reset alone. */
static bool answer_before_reset(struct rk_grpc_session *session, int32_t stream_id)
{
    struct rk_call *call = find_call(session, stream_id);
    if (call == NULL || session->lead != NULL ||
        nghttp2_session_get_remote_settings(session->h2, NGHTTP2_SETTINGS_HEADER_TABLE_SIZE) <
            NGHTTP2_DEFAULT_HEADER_TABLE_SIZE)
        return false;
    session->lead = rk_call_answer_before_reset(call, &session->lead_bytes);
    session->lead_sent = 0;
    return session->lead != NULL;
}

static int on_frame_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data)
{
    struct rk_grpc_session *session = user_data;
    switch (frame->hd.type) {
    case NGHTTP2_RST_STREAM:
        if (frame->rst_stream.error_code == NGHTTP2_PROTOCOL_ERROR && answer_before_reset(session, frame->hd.stream_id))
            break; /* an unknown method like others, no fault of HTTP/2 that we would count */
        if (frame->rst_stream.error_code != NGHTTP2_NO_ERROR && frame->rst_stream.error_code != NGHTTP2_REFUSED_STREAM)
            count(session, &session->own_resets);
        break;
    case NGHTTP2_DATA:
        rk_session_time_sent(session);
        rk_bucket_give(&session->glitches, GLITCHES_EARNED); /* the peer may answer it with window updates */
        break;
    case NGHTTP2_HEADERS: {
        rk_session_time_sent(session);
        /* The answer is out before the request is complete: the rest of it is not wanted (RFC 9113, section 8.1). */
        struct rk_call *call = find_call(session, frame->hd.stream_id);
        if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0 && call != NULL && !call->half_closed)
            return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
        break;
    }
    default:
        break;
    }
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t error, void *user_data)
{
    (void)error;
    struct rk_call *call = find_call(user_data, stream_id);
    if (call != NULL) {
        nghttp2_session_set_stream_user_data(h2, stream_id, NULL);
        rk_call_close(call);
    }
    return 0;
}

/* ---- create and destroy ---- */

static nghttp2_session_callbacks *make_callbacks(void)
{
    nghttp2_session_callbacks *callbacks;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return NULL;
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, on_extension_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    return callbacks;
}

static nghttp2_option *make_options(const struct rk_grpc_limits *limits)
{
    nghttp2_option *option;
    if (nghttp2_option_new(&option) != 0)
        return NULL;
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_no_auto_window_update(option, 1); /* calls that are paused keep their window shut */
    nghttp2_option_set_max_outbound_ack(option, MAX_WAITING_ACKS);
    nghttp2_option_set_max_settings(option, MAX_SETTINGS_ENTRIES);
    /* Else nghttp2 passes over unknown frames without a word. */
    for (int type = FIRST_EXTENSION_FRAME; type <= UINT8_MAX; type++)
        nghttp2_option_set_user_recv_extension_type(option, (uint8_t)type);
    /* Ours is the limit that counts; nghttp2's must not cut in before it. */
    nghttp2_option_set_stream_reset_rate_limit(option, 2 * (uint64_t)limits->max_resets_per_s + 1,
                                               2 * (uint64_t)limits->max_resets_per_s + 1);
    return option;
}

static int create_h2(struct rk_grpc_session *session)
{
    nghttp2_mem memory = rk_h2_memory_for(&session->memory);
    nghttp2_session_callbacks *callbacks = make_callbacks();
    nghttp2_option *option = make_options(&session->config->limits);
    int result = NGHTTP2_ERR_NOMEM;
    if (callbacks != NULL && option != NULL)
        result = nghttp2_session_server_new3(&session->h2, callbacks, session, option, &memory);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return result;
}

static uint32_t stream_window_bytes(const struct rk_grpc_limits *limits)
{
    uint64_t bytes = limits->max_message_bytes;
    if (bytes < MIN_STREAM_WINDOW_BYTES)
        bytes = MIN_STREAM_WINDOW_BYTES;
    return bytes > MAX_STREAM_WINDOW_BYTES ? MAX_STREAM_WINDOW_BYTES : (uint32_t)bytes;
}

/* nghttp2 answers a stream past the limit that it announced by ending the connection; RFC 9113 (5.1.2) asks only for
 * the stream. So nghttp2 is told no limit, on_begin_headers keeps ours, and the announcement gets the right number on
 * its way out. */
static void announce_max_streams(struct rk_grpc_session *session, uint32_t max_streams)
{
    for (size_t at = FRAME_HEADER_BYTES; at + SETTINGS_ENTRY_BYTES <= session->chunk_bytes;
         at += SETTINGS_ENTRY_BYTES) {
        uint8_t *entry = session->preface + at;
        if (entry[0] != 0 || entry[1] != NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
            continue;
        const uint8_t value[4] = {(uint8_t)(max_streams >> 24), (uint8_t)(max_streams >> 16),
                                  (uint8_t)(max_streams >> 8), (uint8_t)max_streams};
        memcpy(entry + 2, value, sizeof value);
    }
}

static int submit_preface(struct rk_grpc_session *session)
{
    const struct rk_grpc_limits *limits = &session->config->limits;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_MAX_WINDOW_SIZE},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, stream_window_bytes(limits)},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits->max_header_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    int result = nghttp2_submit_settings(session->h2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings);
    if (result != 0)
        return result;
    const uint8_t *frame;
    ssize_t bytes = nghttp2_session_mem_send(session->h2, &frame);
    if (bytes < 0)
        return (int)bytes;
    assert((size_t)bytes <= sizeof session->preface);
    memcpy(session->preface, frame, (size_t)bytes);
    session->chunk = session->preface;
    session->chunk_bytes = (size_t)bytes;
    announce_max_streams(session, limits->max_streams);
    return nghttp2_session_set_local_window_size(session->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES);
}

static uint64_t assembly_budget(const struct rk_grpc_limits *limits)
{
    uint64_t bytes;
    return __builtin_mul_overflow(limits->max_message_bytes, UNFINISHED_MESSAGES, &bytes) ? UINT64_MAX : bytes;
}

enum rk_status rk_grpc_session_create(const struct rk_grpc_session_config *config, uint64_t now_us,
                                      struct rk_grpc_session **result)
{
    *result = NULL;
    struct rk_grpc_session *session = rk_pool_alloc(config->pool, sizeof *session);
    if (session == NULL)
        return RK_NO_MEMORY;
    *session = (struct rk_grpc_session){.config = config,
                                        .pool = config->pool,
                                        .memory.pool = config->pool,
                                        .now_us = now_us,
                                        .assembly_budget = assembly_budget(&config->limits),
                                        .metadata_budget = METADATA_BYTES};
    rk_session_time_init(session);
    rk_frame_filter_init(&session->filter);
    rk_bucket_init(&session->glitches, config->limits.max_glitches, now_us);
    rk_bucket_init(&session->resets, config->limits.max_resets_per_s, now_us);
    rk_bucket_init(&session->inflation, MAX_INFLATION_KIB_S, now_us);
    rk_bucket_init(&session->own_resets, MAX_OWN_RESETS_PER_S, now_us);
    if (create_h2(session) != 0 || submit_preface(session) != 0) {
        rk_grpc_session_destroy(session);
        return RK_NO_MEMORY;
    }
    *result = session;
    return RK_OK;
}

void rk_grpc_session_destroy(struct rk_grpc_session *session)
{
    if (session == NULL)
        return;
    assert(!session->receiving);
    while (session->calls != NULL)
        rk_call_close(session->calls);
    rk_deadlines_deinit(&session->deadlines, session->pool);
    rk_h2_memory_take_back(&session->memory);
    rk_pool_free(session->pool, session->lead);
    rk_pool_free(session->pool, session);
}

/* ---- bytes in, bytes out ---- */

/* The HTTP/2 error that a failure of nghttp2 stands for. */
static uint32_t http2_error_of(int result)
{
    switch (result) {
    case NGHTTP2_ERR_FLOODED:
    case NGHTTP2_ERR_TOO_MANY_SETTINGS:
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
        return NGHTTP2_ENHANCE_YOUR_CALM;
    case NGHTTP2_ERR_CALLBACK_FAILURE:
        return NGHTTP2_INTERNAL_ERROR;
    default:
        return NGHTTP2_PROTOCOL_ERROR;
    }
}

/* nghttp2 passes over DATA of streams that were reset without a word. A window full of small messages may honestly be
 * on its way when a call ends early; what goes on is a flood. */
static void count_ignored_data(struct rk_grpc_session *session)
{
    session->ignored_short_data += session->filter.short_data - session->heeded_short_data;
    session->heeded_short_data = session->filter.short_data;
    const uint32_t glitches = session->ignored_short_data / IGNORED_PER_GLITCH;
    session->ignored_short_data %= IGNORED_PER_GLITCH;
    if (glitches > 0 && !rk_bucket_take_many(&session->glitches, glitches, session->now_us))
        rk_grpc_session_break(session, NGHTTP2_ENHANCE_YOUR_CALM, "too many useless frames");
}

/* What came through the filter goes to nghttp2, until there is no more or the connection is broken. Should the HEADERS
 * of a stream follow whose reset was dropped, they open it as if nothing had been: the call is answered, or ends with
 * its deadline. */
static ssize_t receive_filtered(struct rk_grpc_session *session, struct rk_bytes input)
{
    while (!session->broken) {
        struct rk_bytes passed;
        switch (rk_frame_filter_next(&session->filter, &input, &passed)) {
        case RK_FILTERED_NOTHING:
            return 0;
        case RK_FILTERED_RESET:
            count(session, &session->resets);
            count(session, &session->glitches);
            break;
        case RK_FILTERED_ENDED:
            rk_grpc_session_break(session, NGHTTP2_STREAM_CLOSED, "a frame came on a stream that was ended");
            break;
        case RK_FILTERED_PASSED_OVER:
            rk_grpc_session_break(session, NGHTTP2_PROTOCOL_ERROR,
                                  "a frame came on a stream below the last one, never opened");
            break;
        case RK_FILTERED_TOO_LONG:
            rk_grpc_session_break(session, NGHTTP2_FRAME_SIZE_ERROR, "too large frame size");
            break;
        case RK_FILTERED_BYTES: {
            ssize_t result = nghttp2_session_mem_recv(session->h2, passed.at, passed.length);
            if (result < 0)
                return result;
            count_ignored_data(session);
            break;
        }
        }
    }
    return 0;
}

bool rk_grpc_session_receive(struct rk_grpc_session *session, const uint8_t *bytes, size_t length, uint64_t now_us)
{
    if (session->broken)
        return false;
    session->now_us = now_us;
    rk_session_time_heard(session);
    session->receiving = true;
    ssize_t result = receive_filtered(session, (struct rk_bytes){bytes, length});
    session->receiving = false;
    if (result == NGHTTP2_ERR_NOMEM)
        rk_grpc_session_kill(session);
    else if (result < 0)
        rk_grpc_session_break(session, http2_error_of((int)result), NULL);
    else if (nghttp2_session_get_outbound_queue_size(session->h2) >
             session->config->limits.max_queued_output_bytes / FRAME_BYTES)
        rk_grpc_session_break(session, NGHTTP2_ENHANCE_YOUR_CALM, "too much output waits");
    return !session->broken;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t take_lead(struct rk_grpc_session *session, uint8_t *buffer, size_t capacity)
{
    size_t part = smaller(session->lead_bytes - session->lead_sent, capacity);
    memcpy(buffer, session->lead + session->lead_sent, part);
    session->lead_sent += part;
    if (session->lead_sent == session->lead_bytes) {
        rk_pool_free(session->pool, session->lead);
        session->lead = NULL;
    }
    return part;
}

static size_t take_chunk(struct rk_grpc_session *session, uint8_t *buffer, size_t capacity)
{
    size_t part = smaller(session->chunk_bytes, capacity);
    memcpy(buffer, session->chunk, part);
    session->chunk += part;
    session->chunk_bytes -= part;
    return part;
}

size_t rk_grpc_session_output(struct rk_grpc_session *session, uint8_t *buffer, size_t capacity)
{
    size_t written = 0;
    while (written < capacity && !session->dead) {
        if (session->chunk_bytes == 0) {
            ssize_t bytes = nghttp2_session_mem_send(session->h2, &session->chunk);
            if (bytes < 0) {
                rk_grpc_session_kill(session);
                break;
            }
            if (bytes == 0)
                break;
            session->chunk_bytes = (size_t)bytes;
        }
        if (session->lead != NULL)
            written += take_lead(session, buffer + written, capacity - written);
        else
            written += take_chunk(session, buffer + written, capacity - written);
    }
    if (session->some_writable)
        rk_call_tell_writable(session);
    return written;
}

bool rk_grpc_session_wants_output(const struct rk_grpc_session *session)
{
    return !session->dead && (session->chunk_bytes > 0 || nghttp2_session_want_write(session->h2));
}

bool rk_grpc_session_finished(const struct rk_grpc_session *session)
{
    if (rk_grpc_session_wants_output(session))
        return false;
    return session->broken || !nghttp2_session_want_read(session->h2);
}

uint32_t rk_grpc_session_open_calls(const struct rk_grpc_session *session)
{
    return session->num_calls;
}

uint64_t rk_grpc_session_expire(struct rk_grpc_session *session, uint64_t now_us)
{
    session->now_us = now_us;
    struct rk_call *call;
    while ((call = rk_deadlines_first(&session->deadlines)) != NULL) {
        if (call->deadline_us > now_us)
            return call->deadline_us;
        rk_call_expire(call); /* leaves the heap */
    }
    return UINT64_MAX;
}

void rk_grpc_session_set_owner(struct rk_grpc_session *session, void *owner)
{
    session->owner = owner;
}

void *rk_grpc_session_owner(const struct rk_grpc_session *session)
{
    return session->owner;
}
