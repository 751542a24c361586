/* The load generator: many calls over several connections, from one thread. */
#ifndef RANKD_SERVER_TOOLS_LOAD_H
#define RANKD_SERVER_TOOLS_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/grpc/status.h"
#include "server/tools/interval_log.h"
#include "server/tools/latency.h"

#define RK_GRPC_STATUS_COUNT (RK_GRPC_UNAUTHENTICATED + 1)

struct rk_load_message {
    const uint8_t *bytes;
    size_t length;
    uint32_t candidates;
};

struct rk_load {
    const char *target, *path;
    const struct rk_load_message *messages; /* sent in turn */
    size_t num_messages;
    uint64_t connections;
    uint64_t in_flight; /* closed loop: calls kept open on each connection */
    uint64_t rate;      /* open loop: calls a second, all connections together; 0: closed loop */
    bool poisson;       /* open loop: at random times, not at fixed intervals */
    uint64_t seed;      /* of these times */
    uint64_t connect_timeout_us, call_timeout_us;
    uint64_t warm_up_us, measure_us;
    uint64_t interval_us;          /* of the log */
    struct rk_interval *intervals; /* [(measure_us + interval_us - 1) / interval_us], zeros; NULL: no log */
};

struct rk_load_result {
    uint64_t elapsed_us;
    uint64_t by_status[RK_GRPC_STATUS_COUNT]; /* calls that began in the measured time, by how they ended */
    uint64_t candidates;                      /* in those that ended OK */
    uint64_t good;       /* those that ended OK within call_timeout_us, in an open loop from when they were due */
    uint64_t unsent;     /* open loop: calls that were due while MAX_OPEN were waiting */
    uint64_t unanswered; /* still open when the patience after the end was over */
    uint64_t lost_connections;
    uint64_t ended;               /* all calls, also those of the warm-up */
    uint64_t own_cpu_us;          /* processor time of the generator for them */
    uint64_t begin_us;            /* of the measured time, on the monotonic clock */
    char first_error[256];        /* the first message of a call that did not end OK */
    struct rk_latency latency_us; /* of calls that ended OK; in an open loop from when the call was due, so that a
                                     stalled server shows */
    struct rk_latency refused_us; /* of calls that ended RESOURCE_EXHAUSTED or UNAVAILABLE, from when they were due */
    struct rk_latency lag_us;     /* open loop: how long after it was due a call was sent; the generator's own fault */
};

/* RK_IO when it cannot connect. */
enum rk_status rk_load_run(const struct rk_load *load, struct rk_load_result *result, struct rk_error *error);

#endif
