/* Any bytes as what a client sends, after the connection preface: the session answers, refuses or closes, and gives all
 * its memory back. The first byte says in what pieces the bytes arrive, the second how much time passes between them.
 */
#include <stdlib.h>
#include <string.h>

#include "server/grpc/pool.h"
#include "server/grpc/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_WAITING 64

static struct rk_call *waiting[MAX_WAITING];
static size_t num_waiting;

static void echo(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    rk_call_send(call, bytes, length);
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void wait_for_more(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service, (void)bytes, (void)length;
    if (num_waiting < MAX_WAITING)
        waiting[num_waiting++] = call;
    else
        rk_call_finish(call, RK_GRPC_RESOURCE_EXHAUSTED, "too many wait");
}

static void forget(void *service, struct rk_call *call)
{
    (void)service;
    for (size_t i = 0; i < num_waiting; i++) {
        if (waiting[i] == call)
            waiting[i--] = waiting[--num_waiting];
    }
}

static struct rk_call *paused; /* the last one that was; NULL: none, or it has ended */

/* Messages whose first byte is odd pause their call. */
static void bidi(void *service, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    (void)service;
    rk_call_send(call, bytes, length);
    if (length > 0 && bytes[0] % 2 == 1 && paused == NULL) {
        rk_call_pause(call);
        paused = call;
    }
}

static void bidi_forget(void *service, struct rk_call *call)
{
    (void)service;
    if (paused == call)
        paused = NULL;
}

static void bidi_end(void *service, struct rk_call *call)
{
    bidi_forget(service, call);
    rk_call_finish(call, RK_GRPC_OK, "done");
}

static const struct rk_method methods[] = {
    {.path = "/t/e", .kind = RK_METHOD_UNARY, .message = echo},
    {.path = "/t/w", .kind = RK_METHOD_UNARY, .message = wait_for_more, .cancelled = forget},
    {.path = "/t/b", .kind = RK_METHOD_BIDI, .message = bidi, .half_close = bidi_end, .cancelled = bidi_forget},
};

static void drain_output(struct rk_grpc_session *session)
{
    uint8_t buffer[512];
    while (rk_grpc_session_output(session, buffer, sizeof buffer) > 0)
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char magic[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if (size < 2)
        return 0;
    struct rk_grpc_session_config config = {.methods = methods,
                                            .num_methods = 3,
                                            .limits = RK_GRPC_LIMITS_DEFAULT,
                                            .times = RK_GRPC_TIMES_DEFAULT,
                                            .pool = rk_pool_create()};
    config.times.max_age_us = 2000000;
    config.limits.max_message_bytes = 4096;
    config.limits.max_queued_output_bytes = 65536;
    config.limits.max_streams = 16;
    config.limits.min_compressed_bytes = 8;
    paused = NULL;
    struct rk_grpc_session *session;
    uint64_t now_us = 1;
    num_waiting = 0;
    if (config.pool == NULL || rk_grpc_session_create(&config, now_us, &session) != RK_OK)
        abort();
    size_t step = data[0] == 0 ? size : data[0];
    bool open = rk_grpc_session_receive(session, (const uint8_t *)magic, strlen(magic), now_us);
    for (size_t at = 2; at < size && open;) {
        size_t part = step < size - at ? step : size - at;
        now_us += (uint64_t)data[1] * 1000;
        open = rk_grpc_session_receive(session, data + at, part, now_us);
        at += part;
        if (num_waiting > 4)
            rk_call_finish(waiting[--num_waiting], RK_GRPC_OK, "late");
        if (paused != NULL && at % 3 == 0) {
            struct rk_call *call = paused;
            paused = NULL; /* it may pause again */
            rk_call_resume(call);
        }
        rk_grpc_session_expire(session, now_us);
        open = open && rk_grpc_session_tick(session, now_us);
        if (data[1] % 4 != 3) /* else a peer that does not read */
            drain_output(session);
    }
    drain_output(session);
    if (!open && !rk_grpc_session_finished(session))
        abort();
    rk_grpc_session_destroy(session);
    if (num_waiting != 0)
        abort();
    rk_pool_destroy(config.pool); /* asserts that every block came back */
    return 0;
}
