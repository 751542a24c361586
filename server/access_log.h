/* The access log: a JSON object a line for calls that have ended, e.g.
 *
 *   {"time":"2026-01-31T12:00:00.123456Z","method":"/rankd.v1.Ranking/Rank","status":"OK","us":412,"model":"steam","candidates":60,
 *    "request_bytes":5120,"response_bytes":560,"peer":"10.0.0.7:41244","trace_id":"4bf9...","parent_id":"00f0..."}
 *
 * without the line break; `client` is the first name of the client's certificate, where it showed one, trace_id and
 * parent_id are those of the caller's traceparent, where it sent one. One call in `sample` has its line, and all that
 * took `slow_us` or longer. Lines are gathered, and written when the loop has nothing else to do; those that the file
 * or pipe does not take at once are lost and counted. One sink for all loops, and a buffer for each. */
#ifndef RANKD_SERVER_ACCESS_LOG_H
#define RANKD_SERVER_ACCESS_LOG_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/counters.h"
#include "server/grpc/session.h"
#include "server/line_sink.h"

#define RK_ACCESS_BUFFER_BYTES (64u << 10)

struct rk_access_log_config {
    struct rk_line_sink sink;
    uint64_t sample; /* 1: every call */
    uint64_t slow_us;
};

struct rk_access_log {
    const struct rk_access_log_config *config;
    rk_counter lost; /* lines; any thread may read it */
    uint64_t turn;   /* calls since the last that was sampled */
    size_t used;
    char lines[RK_ACCESS_BUFFER_BYTES];
};

/* For rk_grpc_session_config.finished: `log` is a struct rk_access_log. */
void rk_access_log_finished(void *log, const struct rk_call *call, enum rk_grpc_status status);

/* Writes what was gathered. At the end of each turn of the loop. */
void rk_access_log_flush(struct rk_access_log *log);

#endif
