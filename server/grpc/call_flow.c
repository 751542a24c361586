/* How fast a call's messages come and go: what a paused call's peer sends is kept until it is resumed, and its window
 * stays shut meanwhile, so that this is never more than one window; a method whose answers are not taken is told when
 * they are.
 *
 * The connection's window is given back at once, so that a paused call holds up no other. The session's thread. */
#include <assert.h>
#include <string.h>

#include "server/grpc/call.h"
#include "server/grpc/pool.h"
#include "server/grpc/session_internal.h"

#define MIN_HELD_BYTES 4096

void rk_call_drop_held(struct rk_call *call)
{
    if (call->held == NULL)
        return;
    call->session->assembly_budget += call->held_capacity;
    rk_pool_free(call->session->pool, call->held);
    call->held = NULL;
    call->held_bytes = call->held_fed = call->held_capacity = 0;
}

static bool grow_held(struct rk_call *call, size_t needed)
{
    struct rk_grpc_session *session = call->session;
    size_t capacity = call->held_capacity > 0 ? call->held_capacity : MIN_HELD_BYTES;
    while (capacity < needed)
        capacity *= 2;
    const size_t more = capacity - call->held_capacity;
    if (more > session->assembly_budget)
        return false;
    uint8_t *grown = rk_pool_realloc(session->pool, call->held, capacity);
    if (grown == NULL)
        return false;
    session->assembly_budget -= more;
    call->held = grown;
    call->held_capacity = capacity;
    return true;
}

static void hold(struct rk_call *call, const uint8_t *bytes, size_t length)
{
    const size_t needed = call->held_bytes + length;
    if (needed > call->held_capacity && !grow_held(call, needed)) {
        rk_call_fail(
            call, RK_GRPC_RESOURCE_EXHAUSTED,
            "this connection has too many request messages that wait: read its answers, or send fewer at once");
        return;
    }
    memcpy(call->held + call->held_bytes, bytes, length);
    call->held_bytes = needed;
}

/* Gives the peer its window back, unless the call is paused. */
static bool give_window(struct rk_call *call)
{
    if (call->paused && !call->ended)
        return true;
    const size_t bytes = call->unconsumed;
    call->unconsumed = 0;
    return bytes == 0 || nghttp2_session_consume_stream(call->session->h2, call->stream_id, bytes) == 0;
}

bool rk_call_take(struct rk_call *call, const uint8_t *bytes, size_t length)
{
    const size_t taken = call->held == NULL ? rk_call_feed(call, bytes, length) : 0;
    if (taken < length && !call->ended)
        hold(call, bytes + taken, length - taken);
    call->unconsumed += length;
    call->session->moved_bytes += length;
    return nghttp2_session_consume_connection(call->session->h2, length) == 0 && give_window(call);
}

void rk_call_pause(struct rk_call *call)
{
    assert(call->method->kind == RK_METHOD_BIDI);
    call->paused = true;
}

void rk_call_resume(struct rk_call *call)
{
    if (!call->paused)
        return;
    call->paused = false;
    if (call->feeding) /* by a method that is being given a message: the next one follows */
        return;
    if (call->held != NULL) {
        const size_t fed = rk_call_feed(call, call->held + call->held_fed, call->held_bytes - call->held_fed);
        call->held_fed += fed;
        if (!call->ended && call->held_fed < call->held_bytes) /* paused again */
            return;
        rk_call_drop_held(call);
    }
    if (!give_window(call))
        rk_grpc_session_kill(call->session);
    else if (call->half_closed && !call->ended && !call->paused)
        rk_call_end_input(call);
}

void rk_call_tell_writable(struct rk_grpc_session *session)
{
    session->some_writable = false;
    for (struct rk_call *call = session->calls; call != NULL; call = call->next) { /* ended ones stay in the list */
        if (!call->over_mark || call->queued_bytes > RK_CALL_OUTPUT_MARK / 2)
            continue;
        call->over_mark = false;
        if (!call->ended && call->method->writable != NULL)
            call->method->writable(call->method->service, call);
    }
}
