/* Every connection is an rk_grpc_client; one loop polls them all. A call in flight has a slot that knows when it was
 * due; slots are recycled.
 *
 * Closed loop: a call that ends starts the next on its connection. Open loop: calls are due at times of their own and
 * go to the connections in turn, whether or not earlier ones were answered. One thread. */
#include "server/tools/load.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "server/tools/arrivals.h"
#include "server/tools/grpc_client.h"

#define MAX_OPEN    100000 /* calls of an open loop */
#define PATIENCE_US 5000000

struct slot {
    struct slot *next; /* spare */
    struct run *run;
    struct rk_grpc_client *client;
    uint64_t due_us;
    uint32_t candidates;
};

struct run {
    const struct rk_load *load;
    struct rk_load_result *result;
    struct rk_grpc_client **clients;
    struct pollfd *polls;
    struct slot *spare;
    uint64_t begin_us, end_us; /* of the measured time */
    uint64_t num_open, next_message, next_client;
    struct rk_arrivals arrivals; /* open loop: since start_us */
    uint64_t start_us;
};

static void start_call(struct run *run, struct rk_grpc_client *client, uint64_t due_us);

static bool is_refusal(enum rk_grpc_status status)
{
    return status == RK_GRPC_RESOURCE_EXHAUSTED || status == RK_GRPC_UNAVAILABLE;
}

/* The end of a call that was due in the measured time. */
static void count(struct run *run, const struct slot *slot, const struct rk_grpc_reply *reply, uint64_t now_us)
{
    const struct rk_load *load = run->load;
    struct rk_load_result *result = run->result;
    const uint64_t took_us = now_us - slot->due_us;
    const bool ok = reply->status == RK_GRPC_OK, good = ok && took_us <= load->call_timeout_us;
    result->by_status[reply->status]++;
    result->good += good;
    if (ok) {
        rk_latency_add(&result->latency_us, took_us);
        result->candidates += slot->candidates;
    } else if (result->first_error[0] == '\0') {
        snprintf(result->first_error, sizeof result->first_error, "%s", reply->message);
    }
    if (is_refusal(reply->status))
        rk_latency_add(&result->refused_us, took_us);
    if (load->intervals != NULL)
        rk_interval_add(&load->intervals[(slot->due_us - run->begin_us) / load->interval_us], took_us, ok, good,
                        is_refusal(reply->status));
}

static void on_done(void *context, const struct rk_grpc_reply *reply)
{
    struct slot *slot = context;
    struct run *run = slot->run;
    uint64_t now_us = rk_monotonic_us();
    run->num_open--;
    run->result->ended++;
    if (slot->due_us >= run->begin_us && slot->due_us < run->end_us)
        count(run, slot, reply, now_us);
    slot->next = run->spare;
    run->spare = slot;
    if (run->load->rate == 0 && now_us < run->end_us)
        start_call(run, slot->client, now_us);
}

static struct slot *take_slot(struct run *run)
{
    struct slot *slot = run->spare;
    if (slot != NULL)
        run->spare = slot->next;
    else
        slot = malloc(sizeof *slot);
    return slot;
}

static void start_call(struct run *run, struct rk_grpc_client *client, uint64_t due_us)
{
    struct slot *slot = take_slot(run);
    if (slot == NULL)
        return;
    const struct rk_load_message *message = &run->load->messages[run->next_message++ % run->load->num_messages];
    *slot = (struct slot){.run = run, .client = client, .due_us = due_us, .candidates = message->candidates};
    if (rk_grpc_client_start(client, run->load->path, message->bytes, message->length, run->load->call_timeout_us,
                             on_done, slot) == RK_OK) {
        run->num_open++;
        return;
    }
    slot->next = run->spare; /* the connection is gone, which the loop counts */
    run->spare = slot;
}

/* Starts what an open loop owes by now; returns when the next call is due. */
static uint64_t start_due(struct run *run, uint64_t now_us)
{
    const struct rk_load *load = run->load;
    for (;;) {
        uint64_t due_us = run->start_us + rk_arrivals_next_us(&run->arrivals);
        if (due_us > now_us || due_us >= run->end_us)
            return due_us;
        rk_arrivals_pass(&run->arrivals);
        struct rk_grpc_client *client = run->clients[run->next_client++ % load->connections];
        if (run->num_open >= MAX_OPEN || client == NULL) {
            run->result->unsent += due_us >= run->begin_us;
            continue;
        }
        if (due_us >= run->begin_us)
            rk_latency_add(&run->result->lag_us, now_us - due_us);
        start_call(run, client, due_us);
    }
}

static void drop(struct run *run, uint64_t index, const struct rk_error *why)
{
    if (run->result->first_error[0] == '\0')
        snprintf(run->result->first_error, sizeof run->result->first_error, "%.255s", why->text);
    rk_grpc_client_close(run->clients[index]);
    run->clients[index] = NULL;
    run->result->lost_connections++;
}

/* One round: moves every connection on, then waits until one is ready or `until_us`. False when none is left. */
static bool turn(struct run *run, uint64_t until_us)
{
    nfds_t count = 0;
    for (uint64_t i = 0; i < run->load->connections; i++) {
        struct rk_grpc_client *client = run->clients[i];
        struct rk_error error = {0};
        if (client == NULL)
            continue;
        if (rk_grpc_client_step(client, &error) != RK_OK) {
            drop(run, i, &error);
            continue;
        }
        uint64_t next_us = rk_grpc_client_expire(client);
        uint64_t now_us = rk_monotonic_us();
        if (next_us != UINT64_MAX && now_us + next_us < until_us)
            until_us = now_us + next_us;
        run->polls[count++] = (struct pollfd){.fd = rk_grpc_client_fd(client), .events = rk_grpc_client_events(client)};
    }
    uint64_t now_us = rk_monotonic_us();
    if (run->num_open == 0 && now_us >= run->end_us)
        return count > 0; /* that was the last answer */
    uint64_t wait_us = until_us > now_us ? until_us - now_us : 0;
    struct timespec wait = {(time_t)(wait_us / 1000000), (long)(wait_us % 1000000 * 1000)};
    if (count > 0)
        ppoll(run->polls, count, &wait, NULL);
    return count > 0;
}

static uint64_t own_cpu_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void run_all(struct run *run)
{
    const struct rk_load *load = run->load;
    const uint64_t cpu_us = own_cpu_us();
    if (load->rate > 0)
        rk_arrivals_init(&run->arrivals, load->rate, load->poisson, load->seed);
    run->start_us = rk_monotonic_us();
    run->begin_us = run->start_us + load->warm_up_us;
    run->end_us = run->begin_us + load->measure_us;
    run->result->begin_us = run->begin_us;
    for (uint64_t i = 0; load->rate == 0 && i < load->connections * load->in_flight; i++)
        start_call(run, run->clients[i % load->connections], rk_monotonic_us());
    uint64_t now_us;
    while ((now_us = rk_monotonic_us()) < run->end_us) {
        uint64_t until_us = load->rate > 0 ? start_due(run, now_us) : run->end_us;
        if (!turn(run, until_us < run->end_us ? until_us : run->end_us))
            break;
    }
    if (load->rate > 0)
        start_due(run, run->end_us); /* what came due since the last turn */
    now_us = rk_monotonic_us();
    run->result->elapsed_us = (now_us < run->end_us ? now_us : run->end_us) - run->begin_us;
    if (now_us < run->begin_us)
        run->result->elapsed_us = 0;
    uint64_t patience_us = now_us + PATIENCE_US;
    while (run->num_open > 0 && rk_monotonic_us() < patience_us && turn(run, patience_us))
        ;
    run->result->unanswered = run->num_open;
    run->result->own_cpu_us = own_cpu_us() - cpu_us;
}

static void free_all(struct run *run)
{
    for (uint64_t i = 0; run->clients != NULL && i < run->load->connections; i++)
        rk_grpc_client_close(run->clients[i]);
    while (run->spare != NULL) {
        struct slot *slot = run->spare;
        run->spare = slot->next;
        free(slot);
    }
    free(run->clients);
    free(run->polls);
}

enum rk_status rk_load_run(const struct rk_load *load, struct rk_load_result *result, struct rk_error *error)
{
    *result = (struct rk_load_result){0};
    struct run run = {.load = load, .result = result};
    enum rk_status status = RK_OK;
    run.clients = calloc(load->connections, sizeof(struct rk_grpc_client *));
    run.polls = calloc(load->connections, sizeof *run.polls);
    if (run.clients == NULL || run.polls == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
    for (uint64_t i = 0; status == RK_OK && i < load->connections; i++)
        status = rk_grpc_client_open(load->target, load->connect_timeout_us, &run.clients[i], error);
    if (status == RK_OK)
        run_all(&run);
    free_all(&run);
    return status;
}
