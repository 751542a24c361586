/* An event loop: one thread that owns a share of the connections, the calls on them and their jobs.
 *
 * Others reach it through its mailbox alone: workers send settled jobs, the listener sends sockets, main says drain and
 * stop. */
#ifndef RANKD_SERVER_LOOP_H
#define RANKD_SERVER_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "server/counters.h"
#include "server/endpoint.h"
#include "server/grpc/session.h"
#include "server/job.h"
#include "server/mailbox.h"
#include "server/transport.h"

struct rk_connection;
struct rk_peers;

struct rk_loop_config {
    uint32_t index;
    struct rk_grpc_limits limits;
    struct rk_grpc_times times;
    uint64_t handshake_timeout_us;
    struct rk_peers *peers; /* told of each connection that ends */
    int nice;               /* of its thread, as far as the system lets it */
    int left_fd;            /* an eventfd that is written when a draining loop has no connection left */
};

struct rk_loop {
    struct rk_loop_counters counters; /* may be read by any thread; all else is the loop's own */
    struct rk_mailbox mailbox;        /* anybody may post */
    _Atomic uint32_t num_connections; /* adopted and not closed yet; sockets in the mail count too */
    struct event_base *base;
    struct event mail, deadline, tick;
    struct rk_pool *pool;
    struct rk_job_pool *jobs;
    struct rk_grpc_session_config grpc;
    uint64_t handshake_timeout_us;
    struct rk_peers *peers;
    struct rk_transport_memory transport;
    uint8_t *buffer; /* RK_TRANSPORT_BYTES */
    struct rk_connection *connections, *dirty;
    /* For a loop that does handshakes alone: who takes a connection when its handshake is over. NULL: it stays. */
    void (*pass_on)(void *context, const struct rk_accepted *accepted);
    void *pass_on_context;
    void (*end_of_turn)(
        void *context); /* NULL, or called when all that was ready has been handled, before output is written */
    void *end_of_turn_context;
    uint64_t next_deadline_us; /* when `deadline` fires; UINT64_MAX: it is not set */
    bool draining, left;
    int nice, left_fd;
    uint32_t index;
    struct rk_mail drain_mail, stop_mail;
    pthread_t thread;
    bool started;
};

enum rk_status rk_loop_create(const struct rk_loop_config *config, struct rk_loop **loop, struct rk_error *error);

/* The methods must outlive the loop. */
enum rk_status rk_loop_start(struct rk_loop *loop, const struct rk_method *methods, size_t num_methods,
                             struct rk_error *error);

/* From any thread: hands over an accepted socket. */
void rk_loop_adopt(struct rk_loop *loop, const struct rk_accepted *accepted);

/* From any thread, once each: take no new calls and leave when the open ones are answered; leave now. */
void rk_loop_drain(struct rk_loop *loop);
void rk_loop_stop(struct rk_loop *loop);

/* Waits for the thread to leave. */
void rk_loop_join(struct rk_loop *loop);

/* After the workers have gone too, so that no mail can come any more. */
void rk_loop_destroy(struct rk_loop *loop);

/* ---- for what runs on the loop's thread ---- */

/* Makes sure that deadlines are looked at then. */
void rk_loop_wake_by(struct rk_loop *loop, uint64_t deadline_us);

/* A connection that was adopted has ended. */
void rk_loop_connection_closed(struct rk_loop *loop, uint32_t peer_slot);

#endif
