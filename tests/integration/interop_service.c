/* grpc.testing.TestService on rankd's event loop and gRPC layer, for gRPC's interoperability cases.
 *
 *   interop_service READY_FILE      listens on a free loopback port, writes the address, ends on SIGTERM after a drain
 *
 * Every call has a struct stream: the answers that it still owes, one after the other, each after its pause and when
 * the peer has taken enough of those before. A bidirectional call is paused while it owes any. Everything but main runs
 * on the loop's thread. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/connection.h"
#include "server/listener.h"
#include "server/loop.h"
#include "server/peers.h"
#include "tests/integration/interop.pb-c.h"

#define MAX_ANSWER_BYTES (64 << 20)
#define NO_MESSAGE       "this is no message of that type"
#define NO_SIZE          "no answer has such a size"
#define NOT_AS_SAID      "the message did not travel as it says: compressed, or not"
#define TYPE(name)       Grpc__Testing__##name

static uint8_t zeros[MAX_ANSWER_BYTES + 64];

struct owed {
    int32_t size, interval_us;
    int compressed; /* -1: as the server likes */
};

struct stream {
    struct rk_call *call;
    struct event timer;
    struct owed *owed; /* [num_owed], of which `given` are done */
    size_t num_owed, given;
    bool waited;  /* the pause before the next one is over */
    bool at_end;  /* nothing more will be asked for */
    bool is_bidi; /* paused while it owes */
    int64_t received_bytes;
};

static struct rk_loop *loop;

/* ---- messages ---- */

static void send_message(struct rk_call *call, const ProtobufCMessage *message)
{
    const size_t length = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(length + 1);
    if (bytes == NULL)
        abort();
    protobuf_c_message_pack(message, bytes);
    if (rk_call_send(call, bytes, length) != RK_OK)
        rk_call_finish(call, RK_GRPC_RESOURCE_EXHAUSTED, "the answer does not fit");
    free(bytes);
    rk_connection_touch(rk_grpc_session_owner(rk_call_session(call)));
}

/* The request's echoes: one header comes back at once, one at the end. */
static void echo_metadata(struct rk_call *call)
{
    const char *initial = rk_call_metadata(call, "x-grpc-test-echo-initial");
    const char *trailing = rk_call_metadata(call, "x-grpc-test-echo-trailing-bin");
    if (initial != NULL)
        rk_call_add_header(call, "x-grpc-test-echo-initial", initial);
    if (trailing != NULL)
        rk_call_add_trailer(call, "x-grpc-test-echo-trailing-bin", trailing);
}

static bool travelled_as_said(const struct rk_call *call, const TYPE(BoolValue) * expected)
{
    return expected == NULL || (expected->value != 0) == rk_call_message_was_compressed(call);
}

static bool size_is_good(int32_t size)
{
    return size >= 0 && size <= MAX_ANSWER_BYTES;
}

/* ---- unary ---- */

static void empty_call(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service, (void)bytes, (void)length;
    rk_call_send(call, zeros, 0);
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void answer_unary(struct rk_call *call, const TYPE(SimpleRequest) * request)
{
    TYPE(Payload) payload = GRPC__TESTING__PAYLOAD__INIT;
    TYPE(SimpleResponse) response = GRPC__TESTING__SIMPLE_RESPONSE__INIT;
    payload.body = (ProtobufCBinaryData){(size_t)request->response_size, zeros};
    response.payload = &payload;
    if (request->response_compressed != NULL)
        rk_call_compress(call, request->response_compressed->value);
    send_message(call, &response.base);
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void unary_call(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    TYPE(SimpleRequest) *request =
        (TYPE(SimpleRequest) *)protobuf_c_message_unpack(&grpc__testing__simple_request__descriptor, NULL, length,
                                                         bytes);
    if (request == NULL) {
        rk_call_finish(call, RK_GRPC_INVALID_ARGUMENT, NO_MESSAGE);
        return;
    }
    echo_metadata(call);
    const TYPE(EchoStatus) *status = request->response_status;
    if (!travelled_as_said(call, request->expect_compressed))
        rk_call_finish(call, RK_GRPC_INVALID_ARGUMENT, NOT_AS_SAID);
    else if (!size_is_good(request->response_size))
        rk_call_finish(call, RK_GRPC_INVALID_ARGUMENT, NO_SIZE);
    else if (status != NULL && status->code != 0)
        rk_call_finish(call, (enum rk_grpc_status)status->code, status->message);
    else
        answer_unary(call, request);
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

/* ---- streams ---- */

static void give_what_is_due(struct stream *stream);

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct stream *stream = argument;
    stream->waited = true;
    give_what_is_due(stream);
}

static struct stream *stream_of(struct rk_call *call, bool is_bidi)
{
    struct stream *stream = rk_call_data(call);
    if (stream != NULL)
        return stream;
    stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        abort();
    stream->call = call;
    stream->is_bidi = is_bidi;
    event_assign(&stream->timer, loop->base, -1, 0, on_timer, stream);
    rk_call_set_data(call, stream);
    echo_metadata(call);
    return stream;
}

static void forget(struct stream *stream)
{
    event_del(&stream->timer);
    free(stream->owed);
    free(stream);
}

static void finish(struct stream *stream, enum rk_grpc_status status, const char *message)
{
    struct rk_call *call = stream->call;
    forget(stream);
    rk_call_finish(call, status, message);
    rk_connection_touch(rk_grpc_session_owner(rk_call_session(call)));
}

static void stream_cancelled(void *service, struct rk_call *call)
{
    (void)service;
    struct stream *stream = rk_call_data(call);
    if (stream != NULL)
        forget(stream);
}

static void give(struct stream *stream, const struct owed *owed)
{
    TYPE(Payload) payload = GRPC__TESTING__PAYLOAD__INIT;
    TYPE(StreamingOutputCallResponse) response = GRPC__TESTING__STREAMING_OUTPUT_CALL_RESPONSE__INIT;
    payload.body = (ProtobufCBinaryData){(size_t)owed->size, zeros};
    response.payload = &payload;
    if (owed->compressed >= 0)
        rk_call_compress(stream->call, owed->compressed > 0);
    send_message(stream->call, &response.base);
}

static void give_what_is_due(struct stream *stream)
{
    while (stream->given < stream->num_owed) {
        const struct owed *owed = &stream->owed[stream->given];
        if (owed->interval_us > 0 && !stream->waited) {
            const struct timeval pause = {owed->interval_us / 1000000, owed->interval_us % 1000000};
            event_add(&stream->timer, &pause);
            return;
        }
        if (rk_call_queued_bytes(stream->call) >= RK_CALL_OUTPUT_MARK)
            return; /* until `writable` */
        stream->waited = false;
        stream->given++;
        give(stream, owed);
    }
    if (stream->at_end)
        finish(stream, RK_GRPC_OK, NULL);
    else if (stream->is_bidi)
        rk_call_resume(stream->call);
}

static void stream_writable(void *service, struct rk_call *call)
{
    (void)service;
    struct stream *stream = rk_call_data(call);
    if (stream != NULL && !event_pending(&stream->timer, EV_TIMEOUT, NULL))
        give_what_is_due(stream);
}

/* False: the call has ended. */
static bool owe(struct stream *stream, TYPE(ResponseParameters) * *parameters, size_t count)
{
    free(stream->owed);
    stream->owed = calloc(count + 1, sizeof *stream->owed);
    if (stream->owed == NULL)
        abort();
    stream->num_owed = count;
    stream->given = 0;
    for (size_t i = 0; i < count; i++) {
        if (!size_is_good(parameters[i]->size)) {
            finish(stream, RK_GRPC_INVALID_ARGUMENT, NO_SIZE);
            return false;
        }
        const TYPE(BoolValue) *compressed = parameters[i]->compressed;
        stream->owed[i] = (struct owed){parameters[i]->size, parameters[i]->interval_us,
                                        compressed != NULL ? compressed->value != 0 : -1};
    }
    /* The response's headers say whether any of it may be compressed. */
    for (size_t i = 0; i < count; i++)
        if (stream->owed[i].compressed > 0)
            rk_call_compress(stream->call, true);
    return true;
}

static void ask(struct rk_call *call, const uint8_t *bytes, size_t length, bool is_bidi)
{
    struct stream *stream = stream_of(call, is_bidi);
    TYPE(StreamingOutputCallRequest) *request = (TYPE(StreamingOutputCallRequest) *)
        protobuf_c_message_unpack(&grpc__testing__streaming_output_call_request__descriptor, NULL, length, bytes);
    if (request == NULL) {
        finish(stream, RK_GRPC_INVALID_ARGUMENT, NO_MESSAGE);
        return;
    }
    const TYPE(EchoStatus) *status = request->response_status;
    if (status != NULL && status->code != 0) {
        finish(stream, (enum rk_grpc_status)status->code, status->message);
    } else if (owe(stream, request->response_parameters, request->n_response_parameters)) {
        stream->at_end = !is_bidi;
        if (is_bidi)
            rk_call_pause(call);
        give_what_is_due(stream);
    }
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

static void streaming_output(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    ask(call, bytes, length, false);
}

static void full_duplex(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    ask(call, bytes, length, true);
}

static void full_duplex_half_close(void *service, struct rk_call *call)
{
    (void)service;
    finish(stream_of(call, true), RK_GRPC_OK, NULL); /* it owes nothing: it was paused until then */
}

static void streaming_input(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    struct stream *stream = stream_of(call, false);
    TYPE(StreamingInputCallRequest) *request = (TYPE(StreamingInputCallRequest) *)
        protobuf_c_message_unpack(&grpc__testing__streaming_input_call_request__descriptor, NULL, length, bytes);
    if (request == NULL) {
        finish(stream, RK_GRPC_INVALID_ARGUMENT, NO_MESSAGE);
        return;
    }
    if (!travelled_as_said(call, request->expect_compressed))
        finish(stream, RK_GRPC_INVALID_ARGUMENT, NOT_AS_SAID);
    else if (request->payload != NULL)
        stream->received_bytes += (int64_t)request->payload->body.len;
    protobuf_c_message_free_unpacked(&request->base, NULL);
}

static void streaming_input_half_close(void *service, struct rk_call *call)
{
    (void)service;
    struct stream *stream = stream_of(call, false);
    TYPE(StreamingInputCallResponse) response = GRPC__TESTING__STREAMING_INPUT_CALL_RESPONSE__INIT;
    response.aggregated_payload_size = (int32_t)stream->received_bytes;
    send_message(call, &response.base);
    finish(stream, RK_GRPC_OK, NULL);
}

#define PATH "/grpc.testing.TestService/"
static const struct rk_method methods[] = {
    {.path = PATH "EmptyCall", .kind = RK_METHOD_UNARY, .message = empty_call},
    {.path = PATH "UnaryCall", .kind = RK_METHOD_UNARY, .message = unary_call},
    {.path = PATH "StreamingOutputCall",
     .kind = RK_METHOD_SERVER_STREAM,
     .message = streaming_output,
     .cancelled = stream_cancelled,
     .writable = stream_writable},
    {.path = PATH "FullDuplexCall",
     .kind = RK_METHOD_BIDI,
     .message = full_duplex,
     .half_close = full_duplex_half_close,
     .cancelled = stream_cancelled,
     .writable = stream_writable},
    /* One answer to many messages: a bidirectional call that keeps to it. */
    {.path = PATH "StreamingInputCall",
     .kind = RK_METHOD_BIDI,
     .message = streaming_input,
     .half_close = streaming_input_half_close,
     .cancelled = stream_cancelled},
};

/* ---- the server ---- */

static void accepted(void *context, const struct rk_accepted *socket)
{
    (void)context;
    rk_loop_adopt(loop, socket);
}

static const char *room(void *context, const struct sockaddr *address, struct rk_accepted *socket)
{
    (void)context, (void)address;
    socket->peer_slot = RK_PEER_NONE;
    return NULL;
}

static void nothing_at_the_end_of_a_turn(void *context)
{
    (void)context;
}

static bool write_ready_file(const char *path, const char *address)
{
    char temporary[PATH_MAX];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "w");
    if (file == NULL)
        return false;
    fprintf(file, "%s\n", address);
    return fclose(file) == 0 && rename(temporary, path) == 0;
}

int main(int argc, char **argv)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before the loop's thread */
    struct rk_error error = {0};
    struct rk_peers *peers = NULL;
    struct rk_listener *listener = NULL;
    const struct rk_endpoint plain = {0};
    const int left_fd = eventfd(0, EFD_CLOEXEC);
    struct rk_loop_config config = {.limits = RK_GRPC_LIMITS_DEFAULT,
                                    .times = RK_GRPC_TIMES_DEFAULT,
                                    .handshake_timeout_us = 10000000,
                                    .left_fd = left_fd};
    if (argc != 2) {
        fprintf(stderr, "usage: interop_service READY_FILE\n");
        return 2;
    }
    if (rk_peers_create(64, 0, &peers, &error) != RK_OK)
        goto fail;
    config.peers = peers;
    if (rk_loop_create(&config, &loop, &error) != RK_OK)
        goto fail;
    loop->end_of_turn = nothing_at_the_end_of_a_turn;
    if (rk_listener_open("127.0.0.1:0", &plain, &listener, &error) != RK_OK ||
        rk_listener_attach(listener, loop->base, accepted, room, NULL, &error) != RK_OK ||
        rk_loop_start(loop, methods, sizeof methods / sizeof *methods, &error) != RK_OK)
        goto fail;
    if (!write_ready_file(argv[1], rk_listener_address(listener))) {
        rk_error_set(&error, RK_IO, "failed to write %s: %s", argv[1], strerror(errno));
        goto fail;
    }
    int signal_number;
    sigwait(&signals, &signal_number);
    rk_loop_drain(loop);
    uint64_t one;
    if (read(left_fd, &one, sizeof one) != sizeof one)
        return 1;
    rk_loop_join(loop);
    rk_listener_close(listener);
    rk_loop_destroy(loop);
    rk_peers_destroy(peers);
    close(left_fd);
    return 0;
fail:
    fprintf(stderr, "interop_service: %s\n", error.text);
    return 1;
}
