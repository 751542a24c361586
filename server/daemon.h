/* The daemon as a whole: models, queue, workers, event loops, and how they start and stop. */
#ifndef RANKD_SERVER_DAEMON_H
#define RANKD_SERVER_DAEMON_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/gate.h"
#include "server/listeners.h"
#include "server/loop.h"
#include "server/options.h"
#include "server/peers.h"
#include "server/priorities.h"
#include "server/queue.h"
#include "server/registry.h"
#include "server/scrub.h"
#include "server/services.h"
#include "server/worker.h"

/* An event loop and the services that run on it. */
struct rk_daemon_loop {
    struct rk_loop *loop;
    struct rk_access_view *access;
    struct rk_express *express;
    struct rk_model_counters *models; /* [registry.num_models] */
    struct rk_services services;
};

struct rk_daemon {
    struct rk_options options;
    struct rk_registry registry;
    struct rk_priorities priorities;
    struct rk_memory_limit memory;
    struct rk_queue *queue;
    struct rk_worker **workers;
    uint32_t num_workers;
    struct rk_daemon_loop *loops;
    struct rk_loop *handshakes; /* of TLS; NULL: there is none */
    uint32_t ready_turn;        /* as turn, for connections that come from there */
    uint32_t num_loops, turn; /* turn: the loop that gets the next connection; the listeners' thread alone */
    struct rk_gate *gate;
    struct rk_listeners listeners;
    struct rk_peers *peers;
    struct rk_mail close_listeners;
    struct rk_scrub *scrub;
    struct rk_access_log_config access_log; /* its sink's fd is -1: there is none */
    uint64_t started_us;
    atomic_bool draining;
    int left_fd; /* an eventfd that counts the loops that have left */
};

/* Starts everything on a registry that was opened and measured (server/cost_measure.h); takes the registry over, also
 * when it fails. The gate must outlive it. */
enum rk_status rk_daemon_start(const struct rk_options *options, struct rk_gate *gate, struct rk_registry *registry,
                               struct rk_daemon **daemon, struct rk_error *error);

/* Opens the access log anew, if there is one: it may have been renamed. Any thread. */
void rk_daemon_reopen_access_log(struct rk_daemon *daemon);

/* Takes no new connections and calls; loops leave one by one when their open calls are answered, and count up left_fd.
 */
void rk_daemon_drain(struct rk_daemon *daemon);

/* Open ones, handshakes included. Any thread. */
uint64_t rk_daemon_num_connections(const struct rk_daemon *daemon);

/* Closes what is left at once, waits for all threads, frees everything. NULL is allowed. */
void rk_daemon_destroy(struct rk_daemon *daemon);

#endif
