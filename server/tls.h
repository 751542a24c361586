/* What the server shows and asks in TLS: certificate, key, which clients it trusts. Read from files, checked before
 * anything is served, and replaced as a whole: connections keep what they began with. Any thread. */
#ifndef RANKD_SERVER_TLS_H
#define RANKD_SERVER_TLS_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "quant/base/status.h"

struct rk_tls;

/* Paths of PEM files; "" where there is none. */
struct rk_tls_config {
    const char *certificate; /* the server's, then its chain */
    const char *key;
    const char *client_ca;      /* "": clients are not asked for certificates */
    const char *client_crl;     /* of every CA between a client and the root */
    bool client_may_be_unknown; /* one without a certificate may come in */
    bool only_1_3;
};

/* Copies the paths, reads and checks the files. RK_INVALID, RK_NOT_FOUND, RK_IO: the text names file and fix. */
enum rk_status rk_tls_create(const struct rk_tls_config *config, struct rk_tls **tls, struct rk_error *error);

/* Reads the files again, for connections from now on. When one is wrong, all stays as it was. */
enum rk_status rk_tls_reload(struct rk_tls *tls, struct rk_error *error);
void rk_tls_destroy(struct rk_tls *tls);

/* A TLS session of a new connection; NULL when there is no memory. Freed by SSL_free. */
SSL *rk_tls_new_session(struct rk_tls *tls);

/* "subject CN=rankd.example, until 2027-01-31T12:00:00Z", as snprintf does. */
int rk_tls_describe(struct rk_tls *tls, char *text, size_t capacity);

/* How many whole days the certificate is valid yet. */
int rk_tls_days_left(struct rk_tls *tls);

#endif
