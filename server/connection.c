/* Moves bytes between a socket and its session.
 *
 *   readable -> receive -> (calls run) -> touch -> flush -> socket
 *                                                     `-> pending, when the socket is full -> writable -> flush
 *
 * One buffer of the loop serves every read and write; only output that the socket does not take at once is kept per
 * connection, and never more than one buffer of it: the session holds the rest under its own limit. TLS would stand
 * where read_some and write_some are.
 *
 * The end: a connection whose session is finished shuts its sending side and reads to the end of the peer's (or for a
 * moment), because closing with unread bytes would make the kernel send a reset, which destroys answers that the peer
 * has not read yet. */
#include "server/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/grpc/pool.h"
#include "server/grpc/session.h"
#include "server/log.h"
#include "server/loop.h"

#define PREFACE_BYTES      24 /* RFC 9113, section 3.4 */
#define READS_PER_TURN     4  /* then the other connections have theirs */
#define LINGER_US          1000000u
#define LEAVE_US           5000000u  /* for a peer without open calls to go after GOAWAY */
#define WRITE_STALL_US     30000000u /* a peer that takes nothing for so long is gone */
#define REPORT_INTERVAL_US 1000000u
#define MIN_PENDING_BYTES  4096

static ssize_t read_some(struct rk_connection *connection, uint8_t *buffer, size_t capacity)
{
    ssize_t got;
    do {
        got = recv(connection->fd, buffer, capacity, 0);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* How many bytes the socket took; -1 when the connection is gone. */
static ssize_t write_some(struct rk_connection *connection, const uint8_t *bytes, size_t length)
{
    size_t written = 0;
    while (written < length) {
        ssize_t sent = send(connection->fd, bytes + written, length - written, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (sent < 0)
            return -1;
        written += (size_t)sent;
    }
    return (ssize_t)written;
}

/* ---- the end ---- */

/* A connection that ends other than by its peer's will: worth a line, but not one per connection when thousands do. */
static void report(const struct rk_connection *connection, const char *why)
{
    static struct rk_log_limit limit;
    if (!rk_log_allowed(&limit, REPORT_INTERVAL_US))
        return;
    rk_log(RK_LOG_WARN, "closing a connection: %s; it was open for %.3f s and sent %llu bytes", why,
           (double)(rk_clock_us() - connection->opened_us) / 1e6, (unsigned long long)connection->received_bytes);
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
    struct rk_loop *loop = connection->loop;
    rk_grpc_session_destroy(connection->session);
    connection->session = NULL;
    rk_pool_free(loop->pool, connection->pending);
    connection->pending = NULL;
    connection->next_deadline_us = UINT64_MAX;
    unlist_dirty(connection);
}

void rk_connection_close(struct rk_connection *connection)
{
    struct rk_loop *loop = connection->loop;
    drop_session(connection);
    event_del(&connection->readable);
    event_del(&connection->writable);
    close(connection->fd);
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        loop->connections = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    rk_pool_free(loop->pool, connection);
    rk_loop_connection_closed(loop);
}

static void linger(struct rk_connection *connection)
{
    drop_session(connection);
    event_del(&connection->writable);
    if (shutdown(connection->fd, SHUT_WR) != 0) {
        rk_connection_close(connection);
        return;
    }
    connection->lingering = true;
    connection->leave_by_us = rk_clock_us() + LINGER_US;
    event_add(&connection->readable, NULL);
}

/* ---- output ---- */

/* Keeps what the socket did not take and waits for it. False when there is no memory. */
static bool keep_pending(struct rk_connection *connection, const uint8_t *bytes, size_t length)
{
    connection->pending =
        rk_pool_alloc(connection->loop->pool, length < MIN_PENDING_BYTES ? MIN_PENDING_BYTES : length);
    if (connection->pending == NULL)
        return false;
    memcpy(connection->pending, bytes, length);
    connection->pending_bytes = (uint32_t)length;
    connection->pending_sent = 0;
    return true;
}

/* Sends what was kept. False when the connection is gone. */
static bool send_pending(struct rk_connection *connection)
{
    ssize_t sent = write_some(connection, connection->pending + connection->pending_sent,
                              connection->pending_bytes - connection->pending_sent);
    if (sent < 0)
        return false;
    if (sent > 0)
        connection->moved_us = rk_clock_us();
    connection->pending_sent += (uint32_t)sent;
    if (connection->pending_sent == connection->pending_bytes) {
        rk_pool_free(connection->loop->pool, connection->pending);
        connection->pending = NULL;
    }
    return true;
}

/* Sends until there is nothing left or the socket is full. False when the connection is gone. */
static bool send_all(struct rk_connection *connection)
{
    struct rk_loop *loop = connection->loop;
    if (connection->pending != NULL && !send_pending(connection))
        return false;
    while (connection->pending == NULL) {
        size_t length = rk_grpc_session_output(connection->session, loop->buffer, RK_LOOP_BUFFER_BYTES);
        if (length == 0)
            return true;
        ssize_t sent = write_some(connection, loop->buffer, length);
        if (sent < 0)
            return false;
        connection->moved_us = rk_clock_us();
        if ((size_t)sent < length && !keep_pending(connection, loop->buffer + sent, length - (size_t)sent))
            return false;
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
    if (connection->pending != NULL)
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

/* Reads what is there into the session. False when the peer is gone. */
static bool receive(struct rk_connection *connection)
{
    struct rk_loop *loop = connection->loop;
    for (int turn = 0; turn < READS_PER_TURN; turn++) {
        ssize_t got = read_some(connection, loop->buffer, RK_LOOP_BUFFER_BYTES);
        if (got < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        if (got == 0)
            return false;
        if (connection->lingering)
            continue;
        connection->moved_us = rk_clock_us();
        connection->received_bytes += (uint64_t)got;
        if (!rk_grpc_session_receive(connection->session, loop->buffer, (size_t)got, connection->moved_us)) {
            report(connection, "its peer broke the protocol or a limit of it");
            connection->closing = true;
            event_del(&connection->readable);
            return true;
        }
        if (got < RK_LOOP_BUFFER_BYTES)
            return true;
    }
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct rk_connection *connection = argument;
    if (!receive(connection)) {
        rk_connection_close(connection);
    } else if (!connection->lingering) {
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
    if (connection->received_bytes < PREFACE_BYTES)
        connection->closing = true; /* there is nobody yet who could understand a farewell */
    else
        rk_grpc_session_drain(connection->session);
    rk_connection_touch(connection);
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
    bool stalled = connection->pending != NULL && silent_us >= WRITE_STALL_US;
    bool mute =
        connection->received_bytes < PREFACE_BYTES && now_us - connection->opened_us >= loop->handshake_timeout_us;
    bool idle = silent_us >= loop->idle_timeout_us;
    bool overdue = connection->leaving && now_us >= connection->leave_by_us &&
                   (idle || rk_grpc_session_open_calls(connection->session) == 0);
    if (stalled || mute || overdue) {
        report(connection, stalled ? "its peer takes no answers" : mute ? "no HTTP/2 preface came" : "it is idle");
        rk_connection_close(connection);
        return;
    }
    if (idle)
        rk_connection_drain(connection);
    rk_connection_expire(connection, now_us);
}

void rk_connection_open(struct rk_loop *loop, int fd)
{
    struct rk_connection *connection = rk_pool_alloc(loop->pool, sizeof *connection);
    struct rk_grpc_session *session = NULL;
    uint64_t now_us = rk_clock_us();
    if (connection == NULL || rk_grpc_session_create(&loop->grpc, now_us, &session) != RK_OK) {
        rk_pool_free(loop->pool, connection);
        close(fd);
        rk_loop_connection_closed(loop);
        return;
    }
    *connection = (struct rk_connection){.loop = loop,
                                         .session = session,
                                         .fd = fd,
                                         .opened_us = now_us,
                                         .moved_us = now_us,
                                         .next_deadline_us = UINT64_MAX,
                                         .next = loop->connections};
    if (connection->next != NULL)
        connection->next->previous = connection;
    loop->connections = connection;
    rk_grpc_session_set_owner(session, connection);
    event_assign(&connection->readable, loop->base, fd, EV_READ | EV_PERSIST, on_readable, connection);
    event_assign(&connection->writable, loop->base, fd, EV_WRITE, on_writable, connection);
    if (event_add(&connection->readable, NULL) != 0) {
        rk_connection_close(connection);
        return;
    }
    rk_connection_touch(connection); /* our settings */
}
