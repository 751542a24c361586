/* What time does to a connection. Looked at once a second, so each limit is kept to the second.
 *
 *   settings   our SETTINGS are not acknowledged
 *   keepalive  nothing was heard: we ping; no answer to that either: the peer is gone
 *   stall      a call's oldest waiting answer is not taken: a shut window, or one opened byte by byte
 *   slow       much memory is held for a peer that hardly sends or takes anything: shut windows, windows opened byte by
 *              byte, requests left half sent; sooner than a stall, for it costs us more
 *   idle       no call is open: we leave
 *   age        old enough: we leave, open calls finish; past the grace they are cut off
 *   leaving    told to go: the last stream is named though the ping was not answered, and a peer without calls that
 *              stays is cut off
 *
 * And the other way round, pings that come too often, as gRPC's servers judge them
 * (https://github.com/grpc/grpc/blob/master/doc/keepalive.md). The session's thread. */
#include <string.h>

#include "server/grpc/call.h"
#include "server/grpc/session_internal.h"

#define MAX_PING_STRIKES 2
#define SLOW_BYTES       (192u << 10) /* what a connection may hold for as long as it likes */
#define CALL_BYTES       1024         /* about, with nghttp2's part */
#define SLOW_BYTES_PER_S (16u << 10)
#define LEAVE_US         5000000u /* for the answer to the drain's ping, and for a peer without calls to go */

static const uint8_t alive_ping[] = "rk alive", drain_ping[] = "rk drain"; /* 8 bytes each, and the NUL */

/* ---- the peer's pings ---- */

static void judge_ping(struct rk_grpc_session *session)
{
    struct rk_session_time *time = &session->time;
    const uint64_t least_us = session->config->times.ping_interval_us;
    const bool hasty = time->was_pinged && session->now_us - time->pinged_us < least_us;
    time->was_pinged = true;
    time->pinged_us = session->now_us;
    if (hasty && ++time->ping_strikes > MAX_PING_STRIKES)
        rk_grpc_session_break(session, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
}

void rk_session_time_sent(struct rk_grpc_session *session)
{
    session->time.was_pinged = false;
    session->time.ping_strikes = 0;
}

/* ---- leaving ---- */

static void name_last_stream(struct rk_grpc_session *session)
{
    session->time.named_last = true;
    session->time.named_us = session->now_us;
    if (nghttp2_submit_goaway(session->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session->h2),
                              NGHTTP2_NO_ERROR, NULL, 0) != 0)
        rk_grpc_session_kill(session);
}

void rk_session_time_ping(struct rk_grpc_session *session, const nghttp2_ping *ping)
{
    if ((ping->hd.flags & NGHTTP2_FLAG_ACK) == 0)
        judge_ping(session);
    /* Every stream that the peer opened before it heard of our draining has arrived. */
    else if (session->time.leaving && !session->time.named_last &&
             memcmp(ping->opaque_data, drain_ping, sizeof ping->opaque_data) == 0)
        name_last_stream(session);
}

void rk_grpc_session_drain(struct rk_grpc_session *session)
{
    if (session->broken || session->time.leaving)
        return;
    session->time.leaving = true;
    session->time.left_us = session->now_us;
    if (nghttp2_submit_shutdown_notice(session->h2) != 0 ||
        nghttp2_submit_ping(session->h2, NGHTTP2_FLAG_NONE, drain_ping) != 0) {
        rk_grpc_session_kill(session);
        return;
    }
    for (struct rk_call *call = session->calls; call != NULL; call = call->next) /* ended ones stay in the list */
        rk_call_leaving(call);
}

static void keep_leaving(struct rk_grpc_session *session, uint64_t now_us)
{
    struct rk_session_time *time = &session->time;
    const uint64_t grace_us = session->config->times.age_grace_us;
    if (!time->named_last) {
        if (now_us - time->left_us >= LEAVE_US)
            name_last_stream(session);
        return;
    }
    if (session->num_calls == 0 && now_us - time->named_us >= LEAVE_US)
        rk_grpc_session_break(session, NGHTTP2_NO_ERROR, "told to go, but it stays");
    else if (time->is_old && grace_us > 0 && now_us - time->left_us >= grace_us)
        rk_grpc_session_break(session, NGHTTP2_NO_ERROR, "past its age, calls are still open after the grace");
}

/* ---- once a second ---- */

static void check_settings(struct rk_grpc_session *session, uint64_t now_us)
{
    const struct rk_session_time *time = &session->time;
    const uint64_t timeout_us = session->config->times.settings_us;
    if (timeout_us > 0 && !time->settings_known && now_us - time->began_us >= timeout_us)
        rk_grpc_session_break(session, NGHTTP2_SETTINGS_TIMEOUT, "SETTINGS are not acknowledged");
}

static void keep_alive(struct rk_grpc_session *session, uint64_t now_us)
{
    const struct rk_grpc_times *times = &session->config->times;
    struct rk_session_time *time = &session->time;
    if (times->keepalive_us == 0 || now_us - time->heard_us < times->keepalive_us)
        return;
    if (!time->asked) {
        time->asked = true;
        time->asked_us = now_us;
        if (nghttp2_submit_ping(session->h2, NGHTTP2_FLAG_NONE, alive_ping) != 0)
            rk_grpc_session_kill(session);
    } else if (now_us - time->asked_us >= times->keepalive_timeout_us) {
        rk_grpc_session_break(session, NGHTTP2_NO_ERROR, "keepalive pings are not answered");
    }
}

static void reset_stalled(struct rk_grpc_session *session, uint64_t now_us)
{
    const uint64_t stall_us = session->config->times.stall_us;
    if (stall_us == 0 || session->queued_bytes == 0)
        return;
    for (struct rk_call *call = session->calls; call != NULL; call = call->next) {
        if (call->queued_bytes == 0 || now_us - call->waiting_us < stall_us)
            continue;
        call->waiting_us = now_us; /* said once */
        if (nghttp2_submit_rst_stream(session->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_ENHANCE_YOUR_CALM) != 0)
            rk_grpc_session_kill(session);
    }
}

/* Does the call wait for its peer, to take an answer or to send the rest of a request? What a paused call keeps is its
 * method's doing, and a stream between two messages may be silent. */
static bool waits_for_peer(const struct rk_call *call)
{
    if (call->queued_bytes > 0)
        return true;
    if (call->ended || call->half_closed)
        return false;
    return call->method == NULL || call->method->kind != RK_METHOD_BIDI || !rk_deframer_at_boundary(&call->deframer);
}

static uint64_t held_for_peer(const struct rk_grpc_session *session)
{
    uint64_t bytes = session->queued_bytes;
    for (const struct rk_call *call = session->calls; call != NULL; call = call->next)
        if (waits_for_peer(call))
            bytes += CALL_BYTES + call->deframer.capacity + call->headers.metadata_bytes;
    return bytes;
}

static void check_slow(struct rk_grpc_session *session, uint64_t now_us)
{
    struct rk_session_time *time = &session->time;
    const uint64_t slow_us = session->config->times.slow_us;
    const bool moves = session->moved_bytes >= SLOW_BYTES_PER_S;
    session->moved_bytes = 0;
    if (slow_us == 0 || moves || held_for_peer(session) <= SLOW_BYTES)
        time->steady_us = now_us;
    else if (now_us - time->steady_us >= slow_us)
        rk_grpc_session_break(session, NGHTTP2_ENHANCE_YOUR_CALM, "it keeps much waiting and hardly moves");
}

/* Connections that opened together do not leave together: their ages differ by up to a tenth either way. */
static uint64_t age_limit_us(const struct rk_grpc_session *session)
{
    const uint64_t age_us = session->config->times.max_age_us;
    return age_us - age_us / 10 + age_us / 5 * session->time.jitter / UINT8_MAX;
}

static void leave_when_due(struct rk_grpc_session *session, uint64_t now_us)
{
    const struct rk_grpc_times *times = &session->config->times;
    struct rk_session_time *time = &session->time;
    time->is_old = times->max_age_us > 0 && now_us - time->began_us >= age_limit_us(session);
    const bool is_idle =
        times->idle_us > 0 && session->num_calls == 0 && now_us - time->idle_since_us >= times->idle_us;
    if (time->is_old || is_idle)
        rk_grpc_session_drain(session);
}

bool rk_grpc_session_tick(struct rk_grpc_session *session, uint64_t now_us)
{
    session->now_us = now_us;
    if (!session->broken && session->time.began_us > 0) {
        check_settings(session, now_us);
        keep_alive(session, now_us);
        check_slow(session, now_us);
        reset_stalled(session, now_us);
        if (session->time.leaving)
            keep_leaving(session, now_us);
        else
            leave_when_due(session, now_us);
    }
    return !session->broken;
}

/* ---- what happens ---- */

void rk_session_time_init(struct rk_grpc_session *session)
{
    /* Addresses and clocks differ enough; nobody gains by guessing it. */
    const uint64_t mixed = (session->now_us ^ (uintptr_t)session >> 4) * UINT64_C(0x9e3779b97f4a7c15);
    session->time = (struct rk_session_time){.jitter = (uint8_t)(mixed >> 56)};
}

void rk_session_time_heard(struct rk_grpc_session *session)
{
    struct rk_session_time *time = &session->time;
    if (time->began_us == 0)
        time->began_us = time->idle_since_us = time->steady_us = session->now_us;
    time->heard_us = session->now_us;
    time->asked = false;
}
