/* A small gRPC client over one connection (server/tools/channel.h says whether it is TLS): unary calls, one at a time or many in flight, without threads.
 * rankctl, the load generator and tests use it.
 *
 *   open -> start, start, ... -> wait (until done is called) ... -> close
 *
 * Who drives many clients polls their descriptors itself: fd, events, step, expire. */
#ifndef RANKD_SERVER_TOOLS_GRPC_CLIENT_H
#define RANKD_SERVER_TOOLS_GRPC_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/grpc/status.h"

struct rk_grpc_client;

#define RK_NO_TIMEOUT UINT64_MAX

struct rk_grpc_reply {
    enum rk_grpc_status status;
    const char *message;  /* never NULL */
    const uint8_t *bytes; /* the response message; NULL when there is none */
    size_t length;
};

/* The reply is valid until this returns. It may start further calls. */
typedef void rk_grpc_done_fn(void *context, const struct rk_grpc_reply *reply);

/* target: "host:port", "1.2.3.4:port", "[::1]:port" or "unix:/path". RK_INVALID when it is none of these, RK_IO when nobody answers
 * in time. */
enum rk_status rk_grpc_client_open(const char *target, uint64_t timeout_us, struct rk_grpc_client **client,
                                   struct rk_error *error);
/* Forgets the calls in flight: their `done` is not called. */
void rk_grpc_client_close(struct rk_grpc_client *client);

/* Queues a call; path and message must stay as they are until it is done. The timeout is told to the server and kept
 * here too. A broken connection ends every call in flight with UNAVAILABLE. */
enum rk_status rk_grpc_client_start(struct rk_grpc_client *client, const char *path, const uint8_t *message,
                                    size_t length, uint64_t timeout_us, rk_grpc_done_fn *done, void *context);
uint32_t rk_grpc_client_in_flight(const struct rk_grpc_client *client);

/* Waits for the socket, at most timeout_us, and moves everything on. RK_IO when the connection is gone. */
enum rk_status rk_grpc_client_wait(struct rk_grpc_client *client, uint64_t timeout_us, struct rk_error *error);

/* One unary call from start to end. The reply is valid until the next call on this client; RK_OK also when its status
 * is an error. */
enum rk_status rk_grpc_client_call(struct rk_grpc_client *client, const char *path, const uint8_t *message,
                                   size_t length, uint64_t timeout_us, struct rk_grpc_reply *reply,
                                   struct rk_error *error);

/* For callers with their own poll loop. */
int rk_grpc_client_fd(const struct rk_grpc_client *client);
short rk_grpc_client_events(struct rk_grpc_client *client); /* POLLIN, POLLOUT */
enum rk_status rk_grpc_client_step(struct rk_grpc_client *client,
                                   struct rk_error *error); /* reads and writes what is possible now */
uint64_t
rk_grpc_client_expire(struct rk_grpc_client *client); /* ends late calls; returns microseconds to the next deadline */

uint64_t rk_monotonic_us(void);

#endif
