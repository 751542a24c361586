/* One client connection: a transport below, an rk_grpc_session above. All on its event loop's thread. */
#ifndef RANKD_SERVER_CONNECTION_H
#define RANKD_SERVER_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include "server/endpoint.h"
#include "server/transport.h"

struct rk_grpc_session;
struct rk_loop;

struct rk_connection {
    struct rk_connection *next, *previous; /* of the loop's connections */
    struct rk_connection *next_dirty;
    struct rk_loop *loop;
    struct rk_grpc_session *session; /* NULL while lingering */
    struct rk_transport transport;
    struct rk_peer peer;
    uint32_t peer_slot;
    bool dirty;     /* in the loop's list of those that may have output */
    bool closing;   /* the session is beyond repair: its last output, then the end */
    bool lingering; /* all is said; reads to the end so that the kernel does not reset what is still on its way */
    bool leaving;   /* was told that we go away */
    struct event readable, writable;
    uint64_t opened_us, moved_us; /* moved: when a byte last went either way */
    uint64_t leave_by_us;         /* while lingering or leaving */
    uint64_t received_bytes;
    uint64_t next_deadline_us; /* of its calls; UINT64_MAX: none */
};

/* Takes the socket over; closes it when there is no memory. */
void rk_connection_open(struct rk_loop *loop, const struct rk_accepted *accepted);

/* Its address, and its certificate's names once a request has come. Valid as long as the connection. */
const struct rk_peer *rk_connection_peer(const struct rk_connection *connection);

/* At once, without another word; open calls are cancelled. */
void rk_connection_close(struct rk_connection *connection);

/* Its session may have output: it is flushed before the loop sleeps. */
void rk_connection_touch(struct rk_connection *connection);

/* Writes what there is; may close the connection. */
void rk_connection_flush(struct rk_connection *connection);

/* Answers calls whose deadline has passed. */
void rk_connection_expire(struct rk_connection *connection, uint64_t now_us);

/* Once a second: closes what has been silent or stuck for too long. */
void rk_connection_tick(struct rk_connection *connection, uint64_t now_us);

/* No new calls; closes when the open ones are answered. */
void rk_connection_drain(struct rk_connection *connection);

#endif
