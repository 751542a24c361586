/* Moves bytes between a transport and its session.
 *
 *   readable -> receive -> (calls run) -> touch -> flush -> socket
 *                                                     `-> pending, when the socket is full -> writable -> flush
 *
 * One buffer of the loop serves every read and write; only output that the socket does not take at once is kept per
 * connection, and never more than one buffer of it: the session holds the rest under its own limit.
 *
 * The end: a connection whose session is finished shuts its sending side and reads to the end of the peer's (or for a
 * moment), because closing with unread bytes would make the kernel send a reset, which destroys answers that the peer
 * has not read yet. */
#include "server/connection.h"

#include <stdlib.h>
#include <string.h>

#include "server/clock.h"
#include "server/grpc/pool.h"
#include "server/grpc/session.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/peers.h"

#define PREFACE_BYTES      24 /* RFC 9113, section 3.4 */
#define READS_PER_TURN     4  /* then the other connections have theirs */
#define LINGER_US          1000000u
#define LEAVE_US           5000000u  /* for a peer without open calls to go after GOAWAY */
#define WRITE_STALL_US     30000000u /* a peer that takes nothing for so long is gone */
#define REPORT_INTERVAL_US 1000000u

/* ---- the end ---- */

/* A connection that ends other than by its peer's will: worth a line, but not one per connection when thousands do. */
static void report(const struct rk_connection *connection, const char *why)
{
    static struct rk_log_limit limit;
    if (!rk_log_allowed(&limit, REPORT_INTERVAL_US))
        return;
    rk_log(RK_LOG_WARN, "closing a connection from %s: %s; it was open for %.3f s and sent %llu bytes",
           connection->peer.address, why, (double)(rk_clock_us() - connection->opened_us) / 1e6,
           (unsigned long long)connection->received_bytes);
}

static void unlist_dirty(struct rk_connection *connection)
{
    struct rk_connection **link = &connection->loop->dirty;
    while (connection->dirty && *link != NULL) {
        if (*link == connection) {
            *link = connection->next_dirty;
            connection->dirty = false;
        } else {
            link = &(*link)->next_dirty;
        }
    }
}

static void drop_session(struct rk_connection *connection)
{
    rk_grpc_session_destroy(connection->session);
    connection->session = NULL;
    connection->next_deadline_us = UINT64_MAX;
    unlist_dirty(connection);
}

void rk_connection_close(struct rk_connection *connection)
{
    struct rk_loop *loop = connection->loop;
    drop_session(connection);
    event_del(&connection->readable);
    event_del(&connection->writable);
    rk_transport_close(&connection->transport);
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        loop->connections = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    uint32_t peer_slot = connection->peer_slot;
    rk_pool_free(loop->pool, connection);
    rk_loop_connection_closed(loop, peer_slot);
}

static void linger(struct rk_connection *connection)
{
    drop_session(connection);
    event_del(&connection->writable);
    if (!rk_transport_end(&connection->transport)) {
        rk_connection_close(connection);
        return;
    }
    connection->lingering = true;
    connection->leave_by_us = rk_clock_us() + LINGER_US;
    event_add(&connection->readable, NULL);
}

/* ---- output ---- */

/* Sends until there is nothing left or the socket is full. False when the connection is gone. */
static bool send_all(struct rk_connection *connection)
{
    struct rk_loop *loop = connection->loop;
    bool moved;
    if (!rk_transport_flush(&connection->transport, &moved))
        return false;
    if (moved)
        connection->moved_us = rk_clock_us();
    while (!rk_transport_pending(&connection->transport) && rk_transport_ready(&connection->transport)) {
        size_t length = rk_grpc_session_output(connection->session, loop->buffer, RK_TRANSPORT_BYTES);
        if (length == 0)
            return true;
        if (!rk_transport_send(&connection->transport, loop->buffer, length))
            return false;
        connection->moved_us = rk_clock_us();
    }
    return true;
}

void rk_connection_flush(struct rk_connection *connection)
{
    if (connection->lingering)
        return;
    if (!send_all(connection)) {
        rk_connection_close(connection);
        return;
    }
    if (rk_transport_pending(&connection->transport))
        event_add(&connection->writable, NULL);
    else if (connection->closing || rk_grpc_session_finished(connection->session)) {
        if (!connection->closing && !connection->leaving) /* a peer that goes, or one that nghttp2 sends away */
            rk_log(RK_LOG_DEBUG, "a connection has ended by GOAWAY");
        linger(connection);
    }
}

void rk_connection_touch(struct rk_connection *connection)
{
    if (connection->dirty)
        return;
    connection->dirty = true;
    connection->next_dirty = connection->loop->dirty;
    connection->loop->dirty = connection;
}

static void on_writable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct rk_connection *connection = argument;
    rk_connection_touch(connection);
}

/* ---- input ---- */

/* Its last words go out, then it ends. */
static void fail(struct rk_connection *connection, const char *why)
{
    report(connection, why);
    connection->closing = true;
    event_del(&connection->readable);
}

/* Plain bytes from the peer. False when it has broken a rule. */
static bool take(struct rk_connection *connection, const uint8_t *bytes, size_t length)
{
    if (connection->received_bytes == 0)
        connection->peer.num_names = rk_transport_names(&connection->transport, &connection->peer.names);
    connection->received_bytes += length;
    if (rk_grpc_session_receive(connection->session, bytes, length, connection->moved_us))
        return true;
    fail(connection, rk_grpc_session_why(connection->session));
    return false;
}

/* The handshake is over: another loop goes on, from the first plain bytes. The connection here is gone then. */
static void pass_on(struct rk_connection *connection, size_t early_bytes)
{
    struct rk_loop *loop = connection->loop;
    struct rk_accepted accepted = {.fd = connection->transport.fd,
                                   .peer_slot = connection->peer_slot,
                                   .endpoint = connection->peer.endpoint,
                                   .opened_us = connection->opened_us,
                                   .early = early_bytes > 0 ? malloc(early_bytes) : NULL,
                                   .early_bytes = early_bytes};
    if (early_bytes > 0 && accepted.early == NULL) {
        rk_connection_close(connection);
        return;
    }
    if (early_bytes > 0)
        memcpy(accepted.early, loop->buffer, early_bytes);
    memcpy(accepted.address, connection->peer.address, sizeof accepted.address);
    accepted.stream = rk_transport_give_away(&connection->transport);
    connection->peer_slot = RK_PEER_NONE;
    rk_connection_close(connection);
    loop->pass_on(loop->pass_on_context, &accepted);
}

enum received { RECEIVED, GONE, PASSED_ON };

/* Reads what is there into the session. */
static enum received receive(struct rk_connection *connection)
{
    struct rk_loop *loop = connection->loop;
    bool more = true;
    for (int turn = 0; more && turn < READS_PER_TURN; turn++) {
        uint64_t now_us = rk_clock_us();
        ssize_t got = rk_transport_receive(&connection->transport, loop->buffer, now_us, &more);
        if (got == RK_TRANSPORT_BROKEN) {
            fail(connection, rk_transport_why(&connection->transport));
            return RECEIVED;
        }
        if (got < 0)
            return GONE;
        connection->moved_us = now_us;
        if (loop->pass_on != NULL && rk_transport_ready(&connection->transport)) {
            if (rk_transport_pending(&connection->transport)) /* a few kilobytes, which it has not even read */
                return GONE;
            pass_on(connection, (size_t)got);
            return PASSED_ON;
        }
        if (got > 0 && !take(connection, loop->buffer, (size_t)got))
            return RECEIVED;
    }
    return RECEIVED;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct rk_connection *connection = argument;
    if (connection->lingering) {
        if (!rk_transport_discard(&connection->transport, connection->loop->buffer))
            rk_connection_close(connection);
        return;
    }
    enum received result = receive(connection);
    if (result == GONE) {
        rk_connection_close(connection);
    } else if (result == RECEIVED) {
        rk_connection_expire(connection, connection->moved_us);
        rk_connection_touch(connection);
    }
}

/* ---- time ---- */

void rk_connection_expire(struct rk_connection *connection, uint64_t now_us)
{
    if (connection->session == NULL)
        return;
    connection->next_deadline_us = rk_grpc_session_expire(connection->session, now_us);
    rk_loop_wake_by(connection->loop, connection->next_deadline_us);
}

void rk_connection_drain(struct rk_connection *connection)
{
    if (connection->lingering || connection->leaving)
        return;
    connection->leaving = true;
    connection->leave_by_us = rk_clock_us() + LEAVE_US;
    if (connection->received_bytes < PREFACE_BYTES) { /* what has arrived may not have been read yet */
        const enum received result = receive(connection);
        if (result == GONE)
            rk_connection_close(connection);
        if (result != RECEIVED)
            return;
    }
    if (connection->received_bytes < PREFACE_BYTES)
        connection->closing = true; /* there is nobody yet who could understand a farewell */
    else
        rk_grpc_session_drain(connection->session);
    rk_connection_touch(connection);
}

static const char *silence_of(const struct rk_connection *connection)
{
    return rk_transport_ready(&connection->transport) ? "no HTTP/2 preface came" : "the TLS handshake takes too long";
}

void rk_connection_tick(struct rk_connection *connection, uint64_t now_us)
{
    struct rk_loop *loop = connection->loop;
    if (connection->lingering) {
        if (now_us >= connection->leave_by_us)
            rk_connection_close(connection);
        return;
    }
    uint64_t silent_us = now_us > connection->moved_us ? now_us - connection->moved_us : 0;
    bool stalled = rk_transport_pending(&connection->transport) && silent_us >= WRITE_STALL_US;
    bool mute =
        connection->received_bytes < PREFACE_BYTES && now_us - connection->opened_us >= loop->handshake_timeout_us;
    bool overdue = connection->leaving && now_us >= connection->leave_by_us &&
                   rk_grpc_session_open_calls(connection->session) == 0;
    if (stalled || mute || overdue) {
        report(connection, stalled ? "its peer takes no answers" : mute ? silence_of(connection) : "it is idle");
        rk_connection_close(connection);
        return;
    }
    if (!connection->closing && rk_transport_ready(&connection->transport) &&
        !rk_grpc_session_tick(connection->session, now_us))
        fail(connection, rk_grpc_session_why(connection->session));
    rk_connection_expire(connection, now_us);
}

const struct rk_peer *rk_connection_peer(const struct rk_connection *connection)
{
    return &connection->peer;
}

void rk_connection_open(struct rk_loop *loop, const struct rk_accepted *accepted)
{
    struct rk_connection *connection = rk_pool_alloc(loop->pool, sizeof *connection);
    struct rk_grpc_session *session = NULL;
    uint64_t now_us = rk_clock_us();
    int fd = accepted->fd;
    if (connection == NULL || rk_grpc_session_create(&loop->grpc, now_us, &session) != RK_OK)
        goto fail;
    *connection = (struct rk_connection){.loop = loop,
                                         .session = session,
                                         .peer = {.endpoint = accepted->endpoint},
                                         .peer_slot = accepted->peer_slot,
                                         .opened_us = accepted->opened_us > 0 ? accepted->opened_us : now_us,
                                         .moved_us = now_us,
                                         .next_deadline_us = UINT64_MAX,
                                         .next = loop->connections};
    memcpy(connection->peer.address, accepted->address, sizeof accepted->address);
    if (accepted->stream != NULL)
        rk_transport_open_ready(&connection->transport, &loop->transport, fd, accepted->stream);
    else if (rk_transport_open(&connection->transport, &loop->transport, fd, accepted->endpoint->tls, now_us) != RK_OK)
        goto fail;
    if (connection->next != NULL)
        connection->next->previous = connection;
    loop->connections = connection;
    rk_grpc_session_set_owner(session, connection);
    event_assign(&connection->readable, loop->base, fd, EV_READ | EV_PERSIST, on_readable, connection);
    event_assign(&connection->writable, loop->base, fd, EV_WRITE, on_writable, connection);
    bool watched = event_add(&connection->readable, NULL) == 0;
    if (watched && accepted->early_bytes > 0 && take(connection, accepted->early, accepted->early_bytes))
        rk_connection_expire(connection, now_us);
    free(accepted->early);
    if (watched)
        rk_connection_touch(connection); /* our settings */
    else
        rk_connection_close(connection);
    return;
fail:
    if (session != NULL)
        rk_grpc_session_destroy(session);
    rk_pool_free(loop->pool, connection);
    rk_accepted_drop(accepted);
    rk_loop_connection_closed(loop, accepted->peer_slot);
}
