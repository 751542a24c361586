/* A client's connection: a socket, with TLS on it when the process has said so. Reads and writes like a non-blocking
 * socket. One thread at a time. */
#ifndef RANKD_SERVER_TOOLS_CHANNEL_H
#define RANKD_SERVER_TOOLS_CHANNEL_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "quant/base/status.h"

/* How this process's clients show who they are and check who they talk to. NULL: not given. */
struct rk_security {
    bool tls;                /* also when one of the next four is given */
    const char *ca;          /* file of CAs; else the system's */
    const char *certificate; /* the client's own, and its key */
    const char *key;
    const char *server_name; /* in the server's certificate; else the target's host */
    const char *token_file;  /* "authorization: Bearer TOKEN" with every call */
};

/* For all channels that are opened from now on; before threads start. Without it they are plain. Errors name the
 * file. */
enum rk_status rk_security_set(const struct rk_security *security, struct rk_error *error);
const char *rk_security_authorization(void); /* "Bearer ..."; NULL: none */
const char *rk_security_scheme(void);        /* "http", "https" */

struct rk_channel {
    int fd;   /* -1: closed */
    SSL *ssl; /* NULL: plain */
};

/* As rk_dial; RK_IO also when the server's certificate does not convince. */
enum rk_status rk_channel_open(const char *target, uint64_t timeout_us, struct rk_channel *channel,
                               struct rk_error *error);
void rk_channel_close(struct rk_channel *channel);

/* As send and recv: bytes moved, 0 at the end (receive only), -1 with errno; EAGAIN: later. */
ssize_t rk_channel_send(struct rk_channel *channel, const uint8_t *bytes, size_t length);
ssize_t rk_channel_receive(struct rk_channel *channel, uint8_t *buffer, size_t capacity);

#endif
