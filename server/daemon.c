/* Who is there, and in which order they come and go.
 *
 *   start   queue, workers, loops, handshakes, listeners, scrubber
 *   drain   listeners, then the loops say goodbye to their clients
 *   end     handshakes stop, for they hand connections to the loops; loops stop, the queue stops, workers leave, then
 *           the loops' memory goes: jobs may come back until the last worker has left */
#include "server/daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/log.h"
#include "server/processors.h"

#define HANDSHAKE_NICE 10
#define LOOP_NICE      (-5)

/* How many keep the backend busy. */
static uint32_t default_workers(const struct rk_compute *compute)
{
    return compute->capabilities->num_runners > 0 ? compute->capabilities->num_runners : rk_processors_count();
}

uint64_t rk_daemon_num_connections(const struct rk_daemon *daemon)
{
    uint64_t open = 0;
    for (uint32_t i = 0; i < daemon->num_loops; i++)
        open += atomic_load_explicit(&daemon->loops[i].loop->num_connections, memory_order_relaxed);
    if (daemon->handshakes != NULL)
        open += atomic_load_explicit(&daemon->handshakes->num_connections, memory_order_relaxed);
    return open;
}

static const char *find_room(void *context, const struct sockaddr *address, struct rk_accepted *accepted)
{
    struct rk_daemon *daemon = context;
    if (rk_daemon_num_connections(daemon) >= daemon->options.max_connections)
        return "max_connections are open";
    return rk_peers_enter(daemon->peers, address, &accepted->peer_slot)
               ? NULL
               : "its address has max_connections_per_peer of them";
}

static void hand_over(void *context, const struct rk_accepted *accepted)
{
    struct rk_daemon *daemon = context;
    if (accepted->endpoint->tls != NULL)
        rk_loop_adopt(daemon->handshakes, accepted);
    else
        rk_loop_adopt(daemon->loops[daemon->turn++ % daemon->num_loops].loop, accepted);
}

/* On the handshakes' thread. */
static void hand_over_ready(void *context, const struct rk_accepted *accepted)
{
    struct rk_daemon *daemon = context;
    rk_loop_adopt(daemon->loops[daemon->ready_turn++ % daemon->num_loops].loop, accepted);
}

static void deliver_close_listeners(void *receiver, struct rk_mail *mail)
{
    (void)receiver;
    struct rk_daemon *daemon = (struct rk_daemon *)((char *)mail - offsetof(struct rk_daemon, close_listeners));
    rk_listeners_close(&daemon->listeners);
}

static void end_of_turn(void *context)
{
    struct rk_daemon_loop *entry = context;
    rk_express_run(entry->express);
    rk_services_turn(&entry->services);
}

static struct rk_loop_config loop_config(const struct rk_daemon *daemon, uint32_t index)
{
    const struct rk_options *options = &daemon->options;
    struct rk_loop_config config = {.index = index,
                                    .limits = RK_GRPC_LIMITS_DEFAULT,
                                    .handshake_timeout_us = options->handshake_timeout_s * 1000000u,
                                    .times = RK_GRPC_TIMES_DEFAULT,
                                    .peers = daemon->peers,
                                    .left_fd = daemon->left_fd};
    config.times.settings_us = options->settings_timeout_s * 1000000u;
    config.times.slow_us = options->slow_timeout_s * 1000000u;
    config.times.ping_interval_us = options->ping_interval_s * 1000000u;
    config.times.keepalive_us = options->keepalive_s * 1000000u;
    config.times.keepalive_timeout_us = options->keepalive_timeout_s * 1000000u;
    config.times.stall_us = options->stall_timeout_s * 1000000u;
    config.times.idle_us = options->idle_timeout_s * 1000000u;
    config.times.max_age_us = options->max_connection_age_s * 1000000u;
    config.times.age_grace_us = options->connection_age_grace_s * 1000000u;
    config.limits.max_streams = (uint32_t)options->max_streams;
    config.limits.max_header_count = (uint32_t)options->max_header_count;
    config.limits.max_header_bytes = (uint32_t)options->max_header_bytes;
    config.limits.max_resets_per_s = (uint32_t)options->max_resets_per_s;
    config.limits.max_glitches = (uint32_t)options->max_glitches_per_s;
    config.limits.max_queued_output_bytes = options->max_waiting_output_kib << 10;
    config.limits.max_message_bytes = options->max_message_bytes;
    config.limits.min_compressed_bytes = options->min_compressed_bytes;
    return config;
}

/* Signing takes longer than many requests: strangers who begin connection after connection must not hold up those who
 * are in. So TLS handshakes have a thread of their own, which gives way where others want the processor. */
static enum rk_status start_handshakes(struct rk_daemon *daemon, struct rk_error *error)
{
    struct rk_loop_config config = loop_config(daemon, 0);
    config.nice = HANDSHAKE_NICE;
    enum rk_status status = rk_loop_create(&config, &daemon->handshakes, error);
    if (status != RK_OK)
        return status;
    daemon->handshakes->pass_on = hand_over_ready;
    daemon->handshakes->pass_on_context = daemon;
    return rk_loop_start(daemon->handshakes, NULL, 0, error);
}

static enum rk_status create_loop(struct rk_daemon *daemon, struct rk_daemon_loop *entry, struct rk_error *error)
{
    const struct rk_options *options = &daemon->options;
    const struct rk_compute *compute = daemon->registry.compute;
    struct rk_loop_config config = loop_config(daemon, (uint32_t)(entry - daemon->loops));
    config.nice =
        LOOP_NICE; /* a worker on the same processor computes for milliseconds; a refusal must not wait for it */
    entry->models = calloc(daemon->registry.num_models, sizeof *entry->models);
    if (entry->models == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to make an event loop: out of memory");
    enum rk_status status = rk_loop_create(&config, &entry->loop, error);
    if (status != RK_OK)
        return status;
    status = rk_access_view_create(daemon->gate->access, &entry->access, error);
    if (status != RK_OK)
        return status;
    if (daemon->gate->access != NULL || options->listen_admin[0] != '\0') {
        entry->loop->grpc.authorize = rk_access_authorize;
        entry->loop->grpc.access = entry->access;
    }
    status = rk_express_create(&daemon->registry, compute->capabilities->in_place ? options->in_place_us : 0,
                               &entry->express, error);
    if (status != RK_OK)
        return status;
    entry->loop->end_of_turn = end_of_turn;
    entry->loop->end_of_turn_context = entry;
    return rk_services_init(&entry->services, daemon, entry->loop, entry->express, entry->models, error);
}

static enum rk_status start_workers(struct rk_daemon *daemon, struct rk_error *error)
{
    const struct rk_options *options = &daemon->options;
    uint32_t count = options->workers > 0 ? (uint32_t)options->workers : default_workers(daemon->registry.compute);
    const struct rk_schedule_config config = {.models = daemon->registry.models,
                                              .num_models = daemon->registry.num_models,
                                              .priorities = &daemon->priorities,
                                              .max_jobs = (uint32_t)options->max_queued_requests,
                                              .max_batch = (uint32_t)options->max_batch,
                                              .num_workers = count,
                                              .max_wait_us = options->max_queued_ms * 1000u,
                                              .max_bytes = options->max_queued_mib << 20,
                                              .target_us = options->queue_target_us,
                                              .interval_us = options->queue_interval_ms * 1000u,
                                              .max_pushback_ms = (uint32_t)options->max_pushback_ms,
                                              .seed = rk_clock_ns()};
    enum rk_status status = rk_priorities_parse(options->priority_weights, &daemon->priorities, error);
    if (status == RK_OK)
        status = rk_queue_create(&config, &daemon->queue, error);
    daemon->workers = calloc(count, sizeof *daemon->workers);
    if (status == RK_OK && daemon->workers == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "failed to start the workers: out of memory");
    for (uint32_t i = 0; status == RK_OK && i < count; i++) {
        const struct rk_worker_config worker = {.registry = &daemon->registry,
                                                .queue = daemon->queue,
                                                .index = i,
                                                .max_batch = config.max_batch,
                                                .pinned = options->pin_workers != 0};
        status = rk_worker_start(&worker, &daemon->workers[i], error);
        if (status == RK_OK)
            daemon->num_workers++;
    }
    return status;
}

static enum rk_status start_loops(struct rk_daemon *daemon, struct rk_error *error)
{
    uint32_t count = (uint32_t)daemon->options.event_loops;
    enum rk_status status = rk_listeners_open(&daemon->options, daemon->gate->tls, &daemon->listeners, error);
    if (status == RK_OK)
        status = rk_peers_create((uint32_t)daemon->options.max_connections,
                                 (uint32_t)daemon->options.max_connections_per_peer, &daemon->peers, error);
    daemon->loops = calloc(count, sizeof *daemon->loops);
    if (status == RK_OK && daemon->loops == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "failed to start the event loops: out of memory");
    for (uint32_t i = 0; status == RK_OK && i < count; i++) {
        daemon->num_loops++; /* rk_daemon_destroy takes half-made ones apart too */
        status = create_loop(daemon, &daemon->loops[i], error);
    }
    if (status == RK_OK && daemon->gate->tls != NULL)
        status = start_handshakes(daemon, error);
    if (status == RK_OK)
        status =
            rk_listeners_attach(&daemon->listeners, daemon->loops[0].loop->base, hand_over, find_room, daemon, error);
    for (uint32_t i = count; status == RK_OK && i-- > 0;) /* the listeners' last: it hands sockets to the others */
        status = rk_loop_start(daemon->loops[i].loop, daemon->loops[i].services.methods,
                               daemon->loops[i].services.num_methods, error);
    return status;
}

enum rk_status rk_daemon_start(const struct rk_options *options, struct rk_gate *gate, struct rk_registry *registry,
                               struct rk_daemon **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_daemon *daemon = calloc(1, sizeof *daemon);
    if (daemon == NULL) {
        rk_registry_close(registry);
        return rk_error_set(error, RK_NO_MEMORY, "failed to start: out of memory");
    }
    daemon->options = *options;
    daemon->gate = gate;
    daemon->registry = *registry;
    *registry = (struct rk_registry){0};
    daemon->started_us = rk_clock_us();
    rk_memory_limit_init(&daemon->memory, options->memory_limit_mib);
    daemon->close_listeners.deliver = deliver_close_listeners;
    daemon->access_log = (struct rk_access_log_config){.sink.fd = -1,
                                                       .sample = options->access_log_sample,
                                                       .slow_us = options->access_log_slow_ms * 1000u};
    daemon->left_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    enum rk_status status =
        daemon->left_fd >= 0 ? RK_OK : rk_error_set(error, RK_IO, "failed to create an eventfd: %m");
    if (status == RK_OK && options->access_log[0] != '\0')
        status = rk_line_sink_open(&daemon->access_log.sink, options->access_log, error);
    if (status == RK_OK)
        status = start_workers(daemon, error);
    if (status == RK_OK)
        status = start_loops(daemon, error);
    if (status == RK_OK && options->scrub_interval_s > 0)
        status = rk_scrub_start(&daemon->registry, (uint32_t)options->scrub_interval_s,
                                (uint32_t)options->scrub_rate_mib_s, &daemon->scrub, error);
    if (status != RK_OK) {
        rk_daemon_destroy(daemon);
        return status;
    }
    *result = daemon;
    return RK_OK;
}

void rk_daemon_reopen_access_log(struct rk_daemon *daemon)
{
    struct rk_error error = {0};
    const char *path = daemon->options.access_log;
    if (path[0] == '\0')
        return;
    if (rk_line_sink_reopen(&daemon->access_log.sink, path, &error) == RK_OK)
        rk_log(RK_LOG_INFO, "SIGHUP: the access log goes on in %s", path);
    else
        rk_log(RK_LOG_ERROR, "SIGHUP: the access log stays as it was: %s", error.text);
}

void rk_daemon_drain(struct rk_daemon *daemon)
{
    if (atomic_exchange(&daemon->draining, true))
        return;
    rk_mailbox_post(&daemon->loops[0].loop->mailbox, &daemon->close_listeners);
    for (uint32_t i = 0; i < daemon->num_loops; i++)
        rk_loop_drain(daemon->loops[i].loop);
    if (daemon->handshakes != NULL)
        rk_loop_drain(daemon->handshakes);
}

static void free_loop(struct rk_daemon_loop *entry)
{
    rk_loop_destroy(entry->loop);
    rk_access_view_destroy(entry->access);
    rk_express_destroy(entry->express);
    rk_services_deinit(&entry->services);
    free(entry->models);
}

static void stop_loop(struct rk_loop *loop)
{
    if (loop == NULL || !loop->started)
        return;
    rk_loop_stop(loop);
    rk_loop_join(loop);
}

void rk_daemon_destroy(struct rk_daemon *daemon)
{
    if (daemon == NULL)
        return;
    rk_scrub_stop(daemon->scrub);
    stop_loop(daemon->handshakes); /* it hands connections to the others */
    for (uint32_t i = 0; i < daemon->num_loops; i++)
        stop_loop(daemon->loops[i].loop);
    rk_listeners_close(&daemon->listeners);
    if (daemon->queue != NULL)
        rk_queue_stop(daemon->queue);
    for (uint32_t i = 0; i < daemon->num_workers; i++)
        rk_worker_join(daemon->workers[i]);
    for (uint32_t i = 0; i < daemon->num_loops; i++)
        free_loop(&daemon->loops[i]);
    rk_loop_destroy(daemon->handshakes);
    rk_peers_destroy(daemon->peers);
    rk_queue_destroy(daemon->queue);
    rk_registry_close(&daemon->registry);
    rk_memory_limit_deinit(&daemon->memory);
    free(daemon->workers);
    free(daemon->loops);
    rk_line_sink_close(&daemon->access_log.sink);
    if (daemon->left_fd >= 0)
        close(daemon->left_fd);
    free(daemon);
}
