/* The event loop's thread: libevent tells which sockets are ready, everything is done with plain reads and writes.
 *
 * Four sources of events: sockets (connection.c), the mailbox, one timer for the earliest deadline of any call, and a
 * tick every second for connections that hang. A turn handles all events that are ready, then the express lane, then
 * writes, so that all answers that became ready together leave together. Nothing here allocates once the loop is warm:
 * events live in their owners, blocks and jobs are recycled. */
#include "server/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/connection.h"
#include "server/grpc/pool.h"
#include "server/peers.h"

#define READY_JOBS        64
#define LEAST_DEADLINE_US 1000 /* deadlines that lie closer together are served by one wake-up */

struct socket_mail {
    struct rk_mail mail;
    struct rk_accepted accepted;
};

/* Writes the output of every touched connection. */
static void flush(struct rk_loop *loop)
{
    while (loop->dirty != NULL) {
        struct rk_connection *connection = loop->dirty;
        loop->dirty = connection->next_dirty;
        connection->dirty = false;
        rk_connection_flush(connection);
    }
}

/* ---- mail ---- */

static void deliver_all(struct rk_loop *loop)
{
    struct rk_mail *mail = rk_mailbox_collect(&loop->mailbox);
    while (mail != NULL) {
        struct rk_mail *next = mail->next;
        mail->deliver(loop, mail);
        mail = next;
    }
}

static void on_mail(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    deliver_all(argument);
}

static void deliver_socket(void *receiver, struct rk_mail *mail)
{
    struct rk_loop *loop = receiver;
    struct socket_mail *letter = (struct socket_mail *)mail;
    if (loop->draining) {
        rk_accepted_drop(&letter->accepted);
        rk_loop_connection_closed(loop, letter->accepted.peer_slot);
    } else {
        rk_connection_open(loop, &letter->accepted);
    }
    free(letter);
}

void rk_loop_adopt(struct rk_loop *loop, const struct rk_accepted *accepted)
{
    struct socket_mail *letter = malloc(sizeof *letter);
    if (letter == NULL) {
        rk_accepted_drop(accepted);
        rk_peers_leave(loop->peers, accepted->peer_slot);
        return;
    }
    *letter = (struct socket_mail){.mail.deliver = deliver_socket, .accepted = *accepted};
    atomic_fetch_add_explicit(&loop->num_connections, 1, memory_order_relaxed);
    rk_mailbox_post(&loop->mailbox, &letter->mail);
}

/* ---- leaving ---- */

static void leave_when_empty(struct rk_loop *loop)
{
    if (!loop->draining || loop->left || loop->connections != NULL)
        return;
    loop->left = true;
    uint64_t one = 1;
    while (write(loop->left_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

static void deliver_drain(void *receiver, struct rk_mail *mail)
{
    (void)mail;
    struct rk_loop *loop = receiver;
    loop->draining = true;
    for (struct rk_connection *connection = loop->connections, *next; connection != NULL; connection = next) {
        next = connection->next;
        rk_connection_drain(connection); /* it may be gone then */
    }
    leave_when_empty(loop);
}

static void close_all(struct rk_loop *loop)
{
    while (loop->connections != NULL)
        rk_connection_close(loop->connections);
}

static void deliver_stop(void *receiver, struct rk_mail *mail)
{
    (void)mail;
    struct rk_loop *loop = receiver;
    loop->draining = true;
    close_all(loop);
    leave_when_empty(loop);
}

void rk_loop_drain(struct rk_loop *loop)
{
    rk_mailbox_post(&loop->mailbox, &loop->drain_mail);
}

void rk_loop_stop(struct rk_loop *loop)
{
    rk_mailbox_post(&loop->mailbox, &loop->stop_mail);
}

void rk_loop_connection_closed(struct rk_loop *loop, uint32_t peer_slot)
{
    rk_peers_leave(loop->peers, peer_slot);
    atomic_fetch_sub_explicit(&loop->num_connections, 1, memory_order_relaxed);
    leave_when_empty(loop);
}

/* ---- time ---- */

void rk_loop_wake_by(struct rk_loop *loop, uint64_t deadline_us)
{
    if (deadline_us >= loop->next_deadline_us)
        return;
    loop->next_deadline_us = deadline_us;
    uint64_t now_us = rk_clock_us();
    uint64_t wait_us = deadline_us > now_us + LEAST_DEADLINE_US ? deadline_us - now_us : LEAST_DEADLINE_US;
    struct timeval wait = {.tv_sec = (time_t)(wait_us / 1000000u), .tv_usec = (suseconds_t)(wait_us % 1000000u)};
    event_add(&loop->deadline, &wait);
}

static void on_deadline(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct rk_loop *loop = argument;
    uint64_t now_us = rk_clock_us();
    uint64_t next_us = UINT64_MAX;
    loop->next_deadline_us = 0; /* the timer is set once, below */
    for (struct rk_connection *connection = loop->connections; connection != NULL; connection = connection->next) {
        if (connection->next_deadline_us <= now_us) {
            rk_connection_expire(connection, now_us);
            rk_connection_touch(connection);
        }
        if (connection->next_deadline_us < next_us)
            next_us = connection->next_deadline_us;
    }
    loop->next_deadline_us = UINT64_MAX;
    rk_loop_wake_by(loop, next_us);
}

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    struct rk_loop *loop = argument;
    uint64_t now_us = rk_clock_us();
    struct rk_connection *next;
    for (struct rk_connection *connection = loop->connections; connection != NULL; connection = next) {
        next = connection->next;
        rk_connection_tick(connection, now_us);
    }
    /* Sessions may have something to say about the time that passed. */
    for (struct rk_connection *connection = loop->connections; connection != NULL; connection = connection->next)
        rk_connection_touch(connection);
}

/* ---- life ---- */

enum rk_status rk_loop_create(const struct rk_loop_config *config, struct rk_loop **result, struct rk_error *error)
{
    enum rk_status status = RK_NO_MEMORY;
    *result = NULL;
    struct rk_loop *loop = calloc(1, sizeof *loop);
    if (loop == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make an event loop: out of memory");
    loop->index = config->index;
    loop->left_fd = config->left_fd;
    loop->nice = config->nice;
    loop->handshake_timeout_us = config->handshake_timeout_us;
    loop->next_deadline_us = UINT64_MAX;
    loop->drain_mail.deliver = deliver_drain;
    loop->stop_mail.deliver = deliver_stop;
    loop->mailbox.fd = -1;
    struct event_config *event_config = event_config_new();
    if (event_config != NULL) {
        event_config_set_flag(event_config, EVENT_BASE_FLAG_NOLOCK);
        loop->base = event_base_new_with_config(event_config);
        event_config_free(event_config);
    }
    loop->pool = rk_pool_create();
    loop->jobs = rk_job_pool_create(READY_JOBS);
    loop->buffer = malloc(RK_TRANSPORT_BYTES);
    loop->peers = config->peers;
    bool has_memory = rk_transport_memory_init(&loop->transport, loop->pool);
    loop->grpc = (struct rk_grpc_session_config){.limits = config->limits, .times = config->times, .pool = loop->pool};
    if (loop->base == NULL || loop->pool == NULL || loop->jobs == NULL || loop->buffer == NULL || !has_memory) {
        rk_error_set(error, status, "failed to make an event loop: out of memory");
        goto fail;
    }
    status = rk_mailbox_init(&loop->mailbox, error);
    if (status != RK_OK)
        goto fail;
    event_assign(&loop->mail, loop->base, loop->mailbox.fd, EV_READ | EV_PERSIST, on_mail, loop);
    event_assign(&loop->deadline, loop->base, -1, 0, on_deadline, loop);
    event_assign(&loop->tick, loop->base, -1, EV_PERSIST, on_tick, loop);
    const struct timeval second = {.tv_sec = 1};
    if (event_add(&loop->mail, NULL) != 0 || event_add(&loop->tick, &second) != 0) {
        status = rk_error_set(error, RK_IO, "failed to start an event loop");
        goto fail;
    }
    *result = loop;
    return RK_OK;
fail:
    rk_loop_destroy(loop);
    return status;
}

static void *run(void *argument)
{
    struct rk_loop *loop = argument;
    if (loop->nice != 0)
        setpriority(PRIO_PROCESS, (id_t)gettid(), loop->nice);
    while (!loop->left) {
        event_base_loop(loop->base, EVLOOP_ONCE);
        if (loop->end_of_turn != NULL)
            loop->end_of_turn(loop->end_of_turn_context);
        flush(loop);
    }
    return NULL;
}

enum rk_status rk_loop_start(struct rk_loop *loop, const struct rk_method *methods, size_t num_methods,
                             struct rk_error *error)
{
    loop->grpc.methods = methods;
    loop->grpc.num_methods = num_methods;
    int code = pthread_create(&loop->thread, NULL, run, loop);
    if (code != 0)
        return rk_error_set(error, RK_EXHAUSTED, "failed to start an event loop: %s", strerror(code));
    loop->started = true;
    char name[16];
    if (loop->pass_on != NULL)
        snprintf(name, sizeof name, "handshakes");
    else
        snprintf(name, sizeof name, "loop-%u", loop->index % 10000u);
    pthread_setname_np(loop->thread, name);
    return RK_OK;
}

void rk_loop_join(struct rk_loop *loop)
{
    if (loop->started)
        pthread_join(loop->thread, NULL);
    loop->started = false;
}

void rk_loop_destroy(struct rk_loop *loop)
{
    if (loop == NULL)
        return;
    close_all(loop);
    if (loop->mailbox.fd >= 0)
        deliver_all(loop); /* jobs that settled after the thread had left */
    rk_mailbox_deinit(&loop->mailbox);
    rk_job_pool_destroy(loop->jobs);
    if (loop->pool != NULL)
        rk_pool_destroy(loop->pool);
    if (loop->base != NULL)
        event_base_free(loop->base);
    rk_transport_memory_deinit(&loop->transport);
    free(loop->buffer);
    free(loop);
}
