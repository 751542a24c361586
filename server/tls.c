/* Makes OpenSSL contexts from files.
 *
 * A context is never changed once it serves: a reload makes a new one and swaps the pointer under the lock; sessions
 * hold a reference to theirs. Keys that encrypt session tickets are the context's own, so a reload ends resumption of
 * what was agreed before it. Clients with certificates cannot resume at all: their certificate is looked at every time,
 * so that a revoked or expired one is refused at once. */
#include "server/tls.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/text_file.h"

#define MAX_PEER_CHAIN_BYTES (32 << 10) /* of a client's certificates: what a stranger can make us hold */
#define TICKET_LIFE_S        3600

/* Forward secrecy and authenticated encryption; what RFC 9113, appendix A forbids is not among them. */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS      "X25519:P-256:P-384"

struct rk_tls {
    char *certificate, *key, *client_ca, *client_crl;
    bool client_may_be_unknown, only_1_3;
    pthread_mutex_t lock;
    SSL_CTX *context; /* under the lock */
};

static enum rk_status openssl_error(struct rk_error *error, const char *what, const char *path, const char *fix)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return rk_error_set(error, RK_INVALID, "%s %s%s%s; %s", what, path, reason != NULL ? ": " : "",
                        reason != NULL ? reason : "", fix);
}

/* ---- ALPN ---- */

static const unsigned char h2[] = {2, 'h', '2'};

static int select_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_bytes,
                           const unsigned char *offered, unsigned offered_bytes, void *context)
{
    (void)ssl, (void)context;
    unsigned char *found;
    if (SSL_select_next_proto(&found, chosen_bytes, h2, sizeof h2, offered, offered_bytes) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

/* Who offers no protocol at all never reaches the choice above: refused here, before anything costly. */
static int refuse_without_protocol(SSL *ssl, int *alert, void *context)
{
    (void)context;
    const unsigned char *extension;
    size_t bytes;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &extension, &bytes))
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
}

/* ---- files ---- */

static int no_passphrase(char *buffer, int capacity, int writing, void *context)
{
    (void)buffer, (void)capacity, (void)writing, (void)context;
    return -1; /* OpenSSL would ask the terminal */
}

static BIO *bio_of(const struct rk_text_file *file)
{
    return BIO_new_mem_buf(file->text, (int)file->length);
}

static void print_time(const ASN1_TIME *time, char text[32])
{
    struct tm parts = {0};
    ASN1_TIME_to_tm(time, &parts);
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

static enum rk_status check_dates(const X509 *certificate, const char *path, struct rk_error *error)
{
    char text[32];
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0) {
        print_time(X509_get0_notAfter(certificate), text);
        return rk_error_set(error, RK_INVALID, "tls_certificate %s: expired on %s; put a renewed certificate there",
                            path, text);
    }
    if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
        print_time(X509_get0_notBefore(certificate), text);
        return rk_error_set(error, RK_INVALID,
                            "tls_certificate %s: is not valid before %s; is this machine's clock right?", path, text);
    }
    return RK_OK;
}

static enum rk_status load_certificate(SSL_CTX *context, const char *path, struct rk_error *error)
{
    struct rk_text_file file;
    enum rk_status status = rk_text_file_read(path, "tls_certificate", &file, error);
    if (status != RK_OK)
        return status;
    BIO *bio = bio_of(&file);
    X509 *certificate = bio != NULL ? PEM_read_bio_X509_AUX(bio, NULL, no_passphrase, NULL) : NULL;
    if (certificate == NULL) {
        status =
            openssl_error(error, "tls_certificate", path, "it takes PEM: the server's certificate, then its chain");
        goto done;
    }
    status = check_dates(certificate, path, error);
    if (status == RK_OK && SSL_CTX_use_certificate(context, certificate) != 1)
        status =
            openssl_error(error, "tls_certificate", path, "make one with a key of at least 2048 bits RSA or P-256");
    for (X509 *link; status == RK_OK && (link = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL;) {
        if (SSL_CTX_add0_chain_cert(context, link) != 1) {
            X509_free(link);
            status = openssl_error(error, "tls_certificate", path, "a certificate of its chain cannot be used");
        }
    }
    ERR_clear_error(); /* "no start line" ends the file */
done:
    X509_free(certificate);
    BIO_free(bio);
    rk_text_file_free(&file);
    return status;
}

static enum rk_status load_key(SSL_CTX *context, const char *path, const char *certificate, struct rk_error *error)
{
    struct rk_text_file file;
    enum rk_status status = rk_text_file_read(path, "tls_key", &file, error);
    if (status != RK_OK)
        return status;
    BIO *bio = NULL;
    EVP_PKEY *key = NULL;
    if ((file.mode & 07) != 0) {
        status = rk_error_set(error, RK_INVALID, "tls_key %s is open to every user (mode %04o); run: chmod 0600 %s",
                              path, file.mode, path);
        goto done;
    }
    bio = bio_of(&file);
    key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    if (key == NULL)
        status = openssl_error(error, "tls_key", path, "it takes a private key as PEM without a passphrase");
    else if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1) {
        ERR_clear_error();
        status = rk_error_set(error, RK_INVALID, "tls_key %s does not belong to the first certificate of %s", path,
                              certificate);
    }
done:
    EVP_PKEY_free(key);
    BIO_free(bio);
    rk_text_file_free(&file);
    return status;
}

static enum rk_status load_client_ca(SSL_CTX *context, const struct rk_tls *tls, struct rk_error *error)
{
    struct rk_text_file file;
    enum rk_status status = rk_text_file_read(tls->client_ca, "tls_client_ca", &file, error);
    if (status != RK_OK)
        return status;
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    BIO *bio = bio_of(&file);
    int count = 0;
    for (X509 *ca; bio != NULL && (ca = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL; count++) {
        if (X509_STORE_add_cert(store, ca) != 1 || SSL_CTX_add_client_CA(context, ca) != 1)
            status = rk_error_set(error, RK_NO_MEMORY, "tls_client_ca %s: out of memory", tls->client_ca);
        X509_free(ca);
    }
    if (count == 0)
        status = openssl_error(error, "tls_client_ca", tls->client_ca, "it takes PEM certificates of CAs");
    ERR_clear_error();
    BIO_free(bio);
    rk_text_file_free(&file);
    return status;
}

static enum rk_status load_client_crl(SSL_CTX *context, const char *path, struct rk_error *error)
{
    struct rk_text_file file;
    enum rk_status status = rk_text_file_read(path, "tls_client_crl", &file, error);
    if (status != RK_OK)
        return status;
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    BIO *bio = bio_of(&file);
    int count = 0;
    for (X509_CRL *crl; bio != NULL && (crl = PEM_read_bio_X509_CRL(bio, NULL, no_passphrase, NULL)) != NULL; count++) {
        const ASN1_TIME *next = X509_CRL_get0_nextUpdate(crl);
        if (next != NULL && X509_cmp_current_time(next) <= 0) {
            char text[32];
            print_time(next, text);
            status =
                rk_error_set(error, RK_INVALID,
                             "tls_client_crl %s: its next update was due on %s, and until it is there every client "
                             "would be refused; get the CA's current list",
                             path, text);
        } else if (X509_STORE_add_crl(store, crl) != 1) {
            status = rk_error_set(error, RK_NO_MEMORY, "tls_client_crl %s: out of memory", path);
        }
        X509_CRL_free(crl);
    }
    if (count == 0)
        status = openssl_error(error, "tls_client_crl", path, "it takes PEM lists of revoked certificates");
    ERR_clear_error();
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    BIO_free(bio);
    rk_text_file_free(&file);
    return status;
}

/* ---- contexts ---- */

/* Clients without certificates may resume, with tickets that we do not have to remember. */
static void allow_resumption(SSL_CTX *context)
{
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_timeout(context, TICKET_LIFE_S);
}

static void ask_for_certificates(SSL_CTX *context, bool may_be_unknown)
{
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (may_be_unknown ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), NULL);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context, 0);
}

static enum rk_status make_context(const struct rk_tls *tls, SSL_CTX **result, struct rk_error *error)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to set up TLS: out of memory");
    SSL_CTX_set_min_proto_version(context, tls->only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA);
    /* Read ahead: bytes come in memory, many records at once. Buffers go back while a connection is idle. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, MAX_PEER_CHAIN_BYTES);
    SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
    SSL_CTX_set_client_hello_cb(context, refuse_without_protocol, NULL);
    enum rk_status status = RK_OK;
    if (SSL_CTX_set_cipher_list(context, CIPHERS_1_2) != 1 || SSL_CTX_set1_groups_list(context, GROUPS) != 1)
        status = rk_error_set(error, RK_UNSUPPORTED, "failed to set up TLS: this OpenSSL lacks " CIPHERS_1_2);
    if (status == RK_OK)
        status = load_certificate(context, tls->certificate, error);
    if (status == RK_OK)
        status = load_key(context, tls->key, tls->certificate, error);
    if (status == RK_OK && tls->client_ca[0] != '\0')
        status = load_client_ca(context, tls, error);
    if (status == RK_OK && tls->client_crl[0] != '\0')
        status = load_client_crl(context, tls->client_crl, error);
    if (status != RK_OK) {
        SSL_CTX_free(context);
        return status;
    }
    if (tls->client_ca[0] != '\0')
        ask_for_certificates(context, tls->client_may_be_unknown);
    else
        allow_resumption(context);
    *result = context;
    return RK_OK;
}

enum rk_status rk_tls_create(const struct rk_tls_config *config, struct rk_tls **result, struct rk_error *error)
{
    *result = NULL;
    struct rk_tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "failed to set up TLS: out of memory");
    pthread_mutex_init(&tls->lock, NULL);
    tls->certificate = strdup(config->certificate);
    tls->key = strdup(config->key);
    tls->client_ca = strdup(config->client_ca);
    tls->client_crl = strdup(config->client_crl);
    tls->client_may_be_unknown = config->client_may_be_unknown;
    tls->only_1_3 = config->only_1_3;
    enum rk_status status = RK_OK;
    if (tls->certificate == NULL || tls->key == NULL || tls->client_ca == NULL || tls->client_crl == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "failed to set up TLS: out of memory");
    if (status == RK_OK)
        status = make_context(tls, &tls->context, error);
    if (status != RK_OK) {
        rk_tls_destroy(tls);
        return status;
    }
    *result = tls;
    return RK_OK;
}

enum rk_status rk_tls_reload(struct rk_tls *tls, struct rk_error *error)
{
    SSL_CTX *context;
    enum rk_status status = make_context(tls, &context, error);
    if (status != RK_OK)
        return status;
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *old = tls->context;
    tls->context = context;
    pthread_mutex_unlock(&tls->lock);
    SSL_CTX_free(old);
    return RK_OK;
}

void rk_tls_destroy(struct rk_tls *tls)
{
    if (tls == NULL)
        return;
    SSL_CTX_free(tls->context);
    pthread_mutex_destroy(&tls->lock);
    free(tls->certificate);
    free(tls->key);
    free(tls->client_ca);
    free(tls->client_crl);
    free(tls);
}

SSL *rk_tls_new_session(struct rk_tls *tls)
{
    pthread_mutex_lock(&tls->lock);
    SSL *ssl = SSL_new(tls->context);
    pthread_mutex_unlock(&tls->lock);
    if (ssl == NULL)
        ERR_clear_error();
    return ssl;
}

int rk_tls_describe(struct rk_tls *tls, char *text, size_t capacity)
{
    char subject[200] = "", until[32];
    pthread_mutex_lock(&tls->lock);
    const X509 *certificate = SSL_CTX_get0_certificate(tls->context);
    X509_NAME_oneline(X509_get_subject_name(certificate), subject, sizeof subject);
    print_time(X509_get0_notAfter(certificate), until);
    pthread_mutex_unlock(&tls->lock);
    return snprintf(text, capacity, "certificate %s, until %s", subject, until);
}

int rk_tls_days_left(struct rk_tls *tls)
{
    int days = 0, seconds;
    pthread_mutex_lock(&tls->lock);
    ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(SSL_CTX_get0_certificate(tls->context)));
    pthread_mutex_unlock(&tls->lock);
    return days;
}
