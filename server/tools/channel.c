/* OpenSSL on the socket itself. What the process has set is here once, for all channels: a tool talks to one server. */
#include "server/tools/channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "server/tools/dial.h"

#define MAX_TOKEN_BYTES 4096

static SSL_CTX *context; /* NULL: plain */
static const char *expected_name;
static char authorization[MAX_TOKEN_BYTES + 16];

static const char *last_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return reason != NULL ? reason : "unknown reason";
}

static enum rk_status read_token(const char *path, struct rk_error *error)
{
    char token[MAX_TOKEN_BYTES];
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return rk_error_set(error, RK_IO, "cannot read the token file %s: %s", path, strerror(errno));
    size_t length = fread(token, 1, sizeof token, file);
    fclose(file);
    while (length > 0 && strchr(" \t\r\n", token[length - 1]) != NULL)
        length--;
    for (size_t i = 0; i < length; i++)
        if (token[i] <= ' ' || token[i] > '~')
            length = 0;
    if (length == 0 || length == sizeof token)
        return rk_error_set(error, RK_INVALID,
                            "the token file %s has to hold one token: printable text of at most %d bytes", path,
                            MAX_TOKEN_BYTES - 1);
    snprintf(authorization, sizeof authorization, "Bearer %.*s", (int)length, token);
    return RK_OK;
}

static enum rk_status fill_context(const struct rk_security *security, struct rk_error *error)
{
    static const unsigned char h2[] = {2, 'h', '2'};
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_set_alpn_protos(context, h2, sizeof h2) != 0)
        return rk_error_set(error, RK_NO_MEMORY, "cannot set up TLS: out of memory");
    if (security->ca == NULL)
        SSL_CTX_set_default_verify_paths(context);
    else if (SSL_CTX_load_verify_file(context, security->ca) != 1)
        return rk_error_set(error, RK_INVALID, "--ca %s: %s; it takes PEM certificates of CAs", security->ca,
                            last_reason());
    if ((security->certificate == NULL) != (security->key == NULL))
        return rk_error_set(error, RK_INVALID, "--cert and --key belong together: give both");
    if (security->certificate == NULL)
        return RK_OK;
    if (SSL_CTX_use_certificate_chain_file(context, security->certificate) != 1)
        return rk_error_set(error, RK_INVALID, "--cert %s: %s; it takes a PEM certificate", security->certificate,
                            last_reason());
    if (SSL_CTX_use_PrivateKey_file(context, security->key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return rk_error_set(error, RK_INVALID, "--key %s: %s; it takes the PEM key of --cert", security->key,
                            last_reason());
    return RK_OK;
}

enum rk_status rk_security_set(const struct rk_security *security, struct rk_error *error)
{
    enum rk_status status = security->token_file != NULL ? read_token(security->token_file, error) : RK_OK;
    if (status != RK_OK || !(security->tls || security->ca != NULL || security->certificate != NULL ||
                             security->key != NULL || security->server_name != NULL))
        return status;
    expected_name = security->server_name;
    context = SSL_CTX_new(TLS_client_method());
    return context != NULL ? fill_context(security, error)
                           : rk_error_set(error, RK_NO_MEMORY, "cannot set up TLS: out of memory");
}

const char *rk_security_authorization(void)
{
    return authorization[0] != '\0' ? authorization : NULL;
}

const char *rk_security_scheme(void)
{
    return context != NULL ? "https" : "http";
}

/* ---- the handshake ---- */

/* Whom the certificate has to name: a host, or an address. */
static bool expect_name(SSL *ssl, const char *target)
{
    char host[256], port[16];
    const char *name = expected_name;
    if (name == NULL && rk_dial_split(target, host, port))
        name = host;
    if (name == NULL)
        return false;
    uint8_t address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

/* NULL when it is done, else why not. */
static const char *shake_hands(const struct rk_channel *channel, uint64_t deadline_us)
{
    for (;;) {
        ERR_clear_error();
        errno = 0;
        int done = SSL_connect(channel->ssl);
        if (done == 1)
            break;
        int error = SSL_get_error(channel->ssl, done);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
            long verified = SSL_get_verify_result(channel->ssl);
            if (verified != X509_V_OK)
                return X509_verify_cert_error_string(verified);
            return error == SSL_ERROR_SYSCALL ? "the server closed the connection; does it speak TLS on this port?"
                                              : last_reason();
        }
        uint64_t now_us = rk_dial_now_us();
        if (now_us >= deadline_us)
            return strerror(ETIMEDOUT);
        uint64_t left_ms = (deadline_us - now_us) / 1000 + 1;
        struct pollfd wait = {.fd = channel->fd, .events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT};
        poll(&wait, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
    }
    const unsigned char *protocol;
    unsigned bytes;
    SSL_get0_alpn_selected(channel->ssl, &protocol, &bytes);
    return bytes == 2 && memcmp(protocol, "h2", 2) == 0 ? NULL : "the server does not offer h2 in ALPN";
}

enum rk_status rk_channel_open(const char *target, uint64_t timeout_us, struct rk_channel *channel,
                               struct rk_error *error)
{
    uint64_t deadline_us;
    if (__builtin_add_overflow(rk_dial_now_us(), timeout_us, &deadline_us))
        deadline_us = UINT64_MAX;
    *channel = (struct rk_channel){.fd = -1};
    enum rk_status status = rk_dial(target, timeout_us, &channel->fd, error);
    if (status != RK_OK || context == NULL)
        return status;
    const char *why = "out of memory";
    channel->ssl = SSL_new(context);
    if (channel->ssl != NULL && !expect_name(channel->ssl, target))
        why = "whose certificate should it be? Give --server-name";
    else if (channel->ssl != NULL && SSL_set_fd(channel->ssl, channel->fd) == 1)
        why = shake_hands(channel, deadline_us);
    if (why == NULL)
        return RK_OK;
    status = rk_error_set(error, RK_IO, "no TLS with %s: %s", target, why);
    rk_channel_close(channel);
    return status;
}

void rk_channel_close(struct rk_channel *channel)
{
    SSL_free(channel->ssl);
    if (channel->fd >= 0)
        close(channel->fd);
    *channel = (struct rk_channel){.fd = -1};
}

/* ---- bytes ---- */

/* What OpenSSL could not do, as errno. Returns 0 at the end of the stream, else -1. */
static ssize_t translate(const struct rk_channel *channel, int done)
{
    switch (SSL_get_error(channel->ssl, done)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        if (errno == 0)
            errno = ECONNRESET;
        return -1;
    default:
        errno = EPROTO;
        return -1;
    }
}

ssize_t rk_channel_send(struct rk_channel *channel, const uint8_t *bytes, size_t length)
{
    if (channel->ssl == NULL)
        return send(channel->fd, bytes, length, MSG_NOSIGNAL);
    ERR_clear_error();
    size_t sent;
    int done = SSL_write_ex(channel->ssl, bytes, length, &sent);
    if (done == 1)
        return (ssize_t)sent;
    ssize_t end = translate(channel, done);
    if (end == 0)
        errno = EPIPE;
    return -1;
}

/* Reads until the buffer is full or the socket is empty: what OpenSSL holds back, poll would not see. */
ssize_t rk_channel_receive(struct rk_channel *channel, uint8_t *buffer, size_t capacity)
{
    if (channel->ssl == NULL)
        return recv(channel->fd, buffer, capacity, 0);
    size_t got = 0;
    while (got < capacity) {
        ERR_clear_error();
        size_t part;
        int done = SSL_read_ex(channel->ssl, buffer + got, capacity - got, &part);
        if (done != 1)
            return got > 0 ? (ssize_t)got : translate(channel, done);
        got += part;
    }
    return (ssize_t)got;
}
