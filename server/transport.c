/* Moves bytes between a socket and its connection.
 *
 *   socket -> records -> TLS -> buffer        buffer -> TLS -> records -> socket
 *   socket ------------------> buffer         buffer ------------------> socket
 *                                                                    `-> pending, when the socket is full
 *
 * TLS speaks on its own, too: handshakes, alerts, new keys; that leaves at once, or waits in pending. Pending is
 * bounded: nothing is sent while something waits, and what TLS says on its own is small and counted. */
#include "server/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/grpc/pool.h"
#include "server/tls_stream.h"

#define MIN_PENDING_BYTES 4096
#define MAX_PENDING_BYTES (2u << 20)
#define RECORDS_BYTES     (RK_TRANSPORT_BYTES + (64u << 10)) /* headers, tags, a handshake's messages */

bool rk_transport_memory_init(struct rk_transport_memory *memory, struct rk_pool *pool)
{
    *memory = (struct rk_transport_memory){.pool = pool, .records = malloc(RECORDS_BYTES)};
    return memory->records != NULL;
}

void rk_transport_memory_deinit(struct rk_transport_memory *memory)
{
    free(memory->records);
    memory->records = NULL;
}

enum rk_status rk_transport_open(struct rk_transport *transport, const struct rk_transport_memory *memory, int fd,
                                 struct rk_tls *tls, uint64_t now_us)
{
    *transport = (struct rk_transport){.memory = memory, .fd = fd};
    if (tls == NULL)
        return RK_OK;
    transport->tls = rk_tls_stream_create(tls, now_us);
    return transport->tls != NULL ? RK_OK : RK_NO_MEMORY;
}

void rk_transport_open_ready(struct rk_transport *transport, const struct rk_transport_memory *memory, int fd,
                             struct rk_tls_stream *stream)
{
    *transport = (struct rk_transport){.memory = memory, .fd = fd, .tls = stream};
}

struct rk_tls_stream *rk_transport_give_away(struct rk_transport *transport)
{
    struct rk_tls_stream *stream = transport->tls;
    transport->tls = NULL;
    transport->fd = -1;
    return stream;
}

static void drop_pending(struct rk_transport *transport)
{
    rk_pool_free(transport->memory->pool, transport->pending);
    transport->pending = NULL;
    transport->pending_bytes = transport->pending_sent = 0;
}

void rk_transport_close(struct rk_transport *transport)
{
    drop_pending(transport);
    rk_tls_stream_destroy(transport->tls);
    transport->tls = NULL;
    if (transport->fd >= 0)
        close(transport->fd);
}

/* ---- the socket ---- */

static ssize_t read_some(const struct rk_transport *transport, uint8_t *buffer, size_t capacity)
{
    ssize_t got;
    do {
        got = recv(transport->fd, buffer, capacity, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    return got > 0 ? got : RK_TRANSPORT_GONE;
}

/* How many bytes the socket took; -1 when the connection is gone. */
static ssize_t write_some(const struct rk_transport *transport, const uint8_t *bytes, size_t length)
{
    size_t written = 0;
    while (written < length) {
        ssize_t sent = send(transport->fd, bytes + written, length - written, MSG_NOSIGNAL);
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

/* ---- output ---- */

/* Puts it behind what waits already. False when there is no memory, or far too much waits. */
static bool keep_pending(struct rk_transport *transport, const uint8_t *bytes, size_t length)
{
    size_t whole = transport->pending_bytes + length;
    if (whole > MAX_PENDING_BYTES)
        return false;
    uint8_t *grown = rk_pool_realloc(transport->memory->pool, transport->pending,
                                     whole < MIN_PENDING_BYTES ? MIN_PENDING_BYTES : whole);
    if (grown == NULL)
        return false;
    memcpy(grown + transport->pending_bytes, bytes, length);
    transport->pending = grown;
    transport->pending_bytes = (uint32_t)whole;
    return true;
}

/* Sends, or keeps what cannot be sent now. False when the connection is gone. */
static bool put(struct rk_transport *transport, const uint8_t *bytes, size_t length)
{
    if (length == 0)
        return true;
    if (transport->pending != NULL)
        return keep_pending(transport, bytes, length);
    ssize_t sent = write_some(transport, bytes, length);
    if (sent < 0)
        return false;
    return (size_t)sent == length || keep_pending(transport, bytes + sent, length - (size_t)sent);
}

bool rk_transport_flush(struct rk_transport *transport, bool *moved)
{
    *moved = false;
    if (transport->pending == NULL)
        return true;
    ssize_t sent = write_some(transport, transport->pending + transport->pending_sent,
                              transport->pending_bytes - transport->pending_sent);
    if (sent < 0)
        return false;
    *moved = sent > 0;
    transport->pending_sent += (uint32_t)sent;
    if (transport->pending_sent == transport->pending_bytes)
        drop_pending(transport);
    return true;
}

bool rk_transport_pending(const struct rk_transport *transport)
{
    return transport->pending != NULL;
}

bool rk_transport_ready(const struct rk_transport *transport)
{
    return transport->tls == NULL || rk_tls_stream_ready(transport->tls);
}

static struct rk_tls_output output_of(const struct rk_transport *transport)
{
    return (struct rk_tls_output){.bytes = transport->memory->records, .capacity = RECORDS_BYTES};
}

bool rk_transport_send(struct rk_transport *transport, const uint8_t *bytes, size_t length)
{
    if (transport->tls == NULL)
        return put(transport, bytes, length);
    struct rk_tls_output output = output_of(transport);
    return rk_tls_stream_send(transport->tls, bytes, length, &output) && put(transport, output.bytes, output.length);
}

bool rk_transport_end(struct rk_transport *transport)
{
    bool mid_record = transport->pending != NULL;
    drop_pending(transport);
    if (transport->tls != NULL && !mid_record) {
        struct rk_tls_output output = output_of(transport);
        rk_tls_stream_end(transport->tls, &output);
        write_some(transport, output.bytes, output.length); /* a full socket: its peer is not listening anyhow */
    }
    return shutdown(transport->fd, SHUT_WR) == 0;
}

/* ---- input ---- */

static ssize_t receive_tls(struct rk_transport *transport, uint8_t *buffer, uint64_t now_us, bool *more)
{
    /* One part of the buffer for what comes in, the rest for what TLS answers meanwhile. */
    const size_t most = RK_TRANSPORT_BYTES - RK_TLS_RECORD_BYTES;
    uint8_t *records = transport->memory->records;
    ssize_t got = read_some(transport, records, most);
    if (got <= 0)
        return got;
    *more = (size_t)got == most;
    struct rk_tls_output output = {.bytes = records + most, .capacity = RECORDS_BYTES - most};
    ptrdiff_t plain = rk_tls_stream_receive(transport->tls, records, (size_t)got, buffer, now_us, &output);
    if (!put(transport, output.bytes, output.length))
        return RK_TRANSPORT_GONE;
    if (plain >= 0)
        return plain;
    return rk_tls_stream_why(transport->tls) != NULL ? RK_TRANSPORT_BROKEN : RK_TRANSPORT_GONE;
}

ssize_t rk_transport_receive(struct rk_transport *transport, uint8_t *buffer, uint64_t now_us, bool *more)
{
    *more = false;
    if (transport->tls != NULL)
        return receive_tls(transport, buffer, now_us, more);
    ssize_t got = read_some(transport, buffer, RK_TRANSPORT_BYTES);
    *more = got == RK_TRANSPORT_BYTES;
    return got;
}

bool rk_transport_discard(struct rk_transport *transport, uint8_t *buffer)
{
    return read_some(transport, buffer, RK_TRANSPORT_BYTES) >= 0;
}

const char *rk_transport_why(const struct rk_transport *transport)
{
    const char *why = transport->tls != NULL ? rk_tls_stream_why(transport->tls) : NULL;
    return why != NULL ? why : "it is gone";
}

uint32_t rk_transport_names(const struct rk_transport *transport, const char *const **names)
{
    *names = NULL;
    return transport->tls != NULL ? rk_tls_stream_names(transport->tls, names) : 0;
}
