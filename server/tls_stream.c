/* OpenSSL between two memory areas: a BIO that reads what rk_tls_stream_receive was given and writes to the output of
 * whoever called last. So one read of the socket feeds many records, and many records leave in one write.
 *
 * A peer may send records that carry no data for ever: key updates, handshakes anew, alerts. OpenSSL answers them all;
 * here each takes from a bucket, and when that is empty the stream breaks. */
#include "server/tls_stream.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "server/grpc/bucket.h"
#include "server/tls.h"

#define STRANGE_RECORDS_PER_S 16
#define MAX_NAMES             32

struct rk_tls_stream {
    SSL *ssl;
    const uint8_t *input; /* while rk_tls_stream_receive runs */
    size_t input_bytes;
    struct rk_tls_output *output; /* of the call that runs */
    struct rk_bucket strange;
    uint64_t now_us;
    const char *why;
    bool ready, flooded;
    uint32_t num_names;
    char **names; /* one block with their text */
};

/* ---- the BIO ---- */

static int bio_read(BIO *bio, char *to, int capacity)
{
    struct rk_tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (stream->flooded)
        return -1;
    if (stream->input_bytes == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t bytes = stream->input_bytes < (size_t)capacity ? stream->input_bytes : (size_t)capacity;
    memcpy(to, stream->input, bytes);
    stream->input += bytes;
    stream->input_bytes -= bytes;
    return (int)bytes;
}

static int bio_write(BIO *bio, const char *from, int length)
{
    const struct rk_tls_stream *stream = BIO_get_data(bio);
    struct rk_tls_output *output = stream->output;
    BIO_clear_retry_flags(bio);
    if (output == NULL || output->capacity - output->length < (size_t)length)
        return -1;
    memcpy(output->bytes + output->length, from, (size_t)length);
    output->length += (size_t)length;
    return length;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "rankd");
    if (method == NULL)
        return;
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_ctrl(method, bio_ctrl);
    BIO_meth_set_create(method, bio_create);
}

/* ---- records without data ---- */

/* OpenSSL tells of every record: in TLS 1.2 its header says what is in it, in TLS 1.3 the encrypted inner type does. */
static void on_record(int writing, int version, int content_type, const void *bytes, size_t length, SSL *ssl,
                      void *context)
{
    (void)version, (void)ssl;
    struct rk_tls_stream *stream = context;
    if (writing || !stream->ready || length == 0 ||
        (content_type != SSL3_RT_HEADER && content_type != SSL3_RT_INNER_CONTENT_TYPE))
        return;
    if (((const uint8_t *)bytes)[0] != SSL3_RT_APPLICATION_DATA && !rk_bucket_take(&stream->strange, stream->now_us))
        stream->flooded = true;
}

/* ---- life ---- */

struct rk_tls_stream *rk_tls_stream_create(struct rk_tls *tls, uint64_t now_us)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    struct rk_tls_stream *stream = calloc(1, sizeof *stream);
    BIO *bio = method != NULL ? BIO_new(method) : NULL;
    SSL *ssl = rk_tls_new_session(tls);
    if (stream == NULL || bio == NULL || ssl == NULL) {
        free(stream);
        BIO_free(bio);
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    stream->ssl = ssl;
    rk_bucket_init(&stream->strange, STRANGE_RECORDS_PER_S, now_us);
    BIO_set_data(bio, stream);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_msg_callback(ssl, on_record);
    SSL_set_msg_callback_arg(ssl, stream);
    SSL_set_accept_state(ssl);
    return stream;
}

void rk_tls_stream_destroy(struct rk_tls_stream *stream)
{
    if (stream == NULL)
        return;
    SSL_free(stream->ssl);
    free(stream->names);
    free(stream);
}

/* ---- the peer's names ---- */

struct name_list {
    char *texts[MAX_NAMES];
    uint32_t count;
    size_t bytes;
};

/* A name with a NUL inside would read shorter than what the CA signed. */
static void add_name(struct name_list *list, const ASN1_STRING *string)
{
    unsigned char *text = NULL;
    int length = list->count < MAX_NAMES ? ASN1_STRING_to_UTF8(&text, string) : -1;
    if (length > 0 && memchr(text, '\0', (size_t)length) == NULL) {
        list->texts[list->count++] = (char *)text;
        list->bytes += (size_t)length + 1;
        return;
    }
    OPENSSL_free(text);
}

static void collect_names(const X509 *certificate, struct name_list *list)
{
    GENERAL_NAMES *alternatives = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(alternatives, i);
        if (name->type == GEN_DNS || name->type == GEN_URI)
            add_name(list, name->d.ia5);
    }
    GENERAL_NAMES_free(alternatives);
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at >= 0)
        add_name(list, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

/* False when there is no memory. */
static bool keep_names(struct rk_tls_stream *stream)
{
    X509 *certificate = SSL_get0_peer_certificate(stream->ssl);
    if (certificate == NULL || SSL_get_verify_result(stream->ssl) != X509_V_OK)
        return true;
    struct name_list list = {0};
    collect_names(certificate, &list);
    size_t pointers = list.count * sizeof *stream->names;
    stream->names = malloc(pointers + list.bytes + 1); /* not NULL even when it has no name that we know */
    char *text = stream->names != NULL ? (char *)stream->names + pointers : NULL;
    for (uint32_t i = 0; i < list.count; i++) {
        if (text != NULL) {
            stream->names[i] = text;
            text = stpcpy(text, list.texts[i]) + 1;
        }
        OPENSSL_free(list.texts[i]);
    }
    stream->num_names = list.count;
    return stream->names != NULL;
}

uint32_t rk_tls_stream_names(const struct rk_tls_stream *stream, const char *const **names)
{
    *names = (const char *const *)stream->names;
    return stream->num_names;
}

/* ---- bytes ---- */

/* OpenSSL's reason, in the words of what its peer did. */
static const char *reason_of(const struct rk_tls_stream *stream)
{
    if (stream->flooded)
        return "its peer sends TLS records without data, again and again";
    long verified = SSL_get_verify_result(stream->ssl);
    if (verified != X509_V_OK)
        return X509_verify_cert_error_string(verified);
    unsigned long code = ERR_peek_error();
    static const struct {
        int code;
        const char *text;
    } known[] = {
        {SSL_R_HTTP_REQUEST, "its peer does not speak TLS on a TLS port"},
        {SSL_R_WRONG_VERSION_NUMBER, "its peer does not speak TLS on a TLS port"},
        {SSL_R_NO_APPLICATION_PROTOCOL, "its peer does not offer h2 in ALPN"},
        {SSL_R_CALLBACK_FAILED, "its peer does not offer h2 in ALPN"},
        {SSL_R_UNSUPPORTED_PROTOCOL, "its peer's TLS version is below tls_min_version"},
        {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, "its peer has shown no certificate"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0] && ERR_GET_LIB(code) == ERR_LIB_SSL; i++)
        if (ERR_GET_REASON(code) == known[i].code)
            return known[i].text;
    const char *reason = ERR_reason_error_string(code);
    return reason != NULL ? reason : "TLS failed";
}

/* -1, with the reason kept and OpenSSL's list of errors empty for the thread's next stream. */
static ptrdiff_t give_up(struct rk_tls_stream *stream, int error)
{
    if (error != SSL_ERROR_ZERO_RETURN)
        stream->why = reason_of(stream);
    stream->ready = false;
    ERR_clear_error();
    return -1;
}

static bool shake_hands(struct rk_tls_stream *stream, int *error)
{
    int done = SSL_do_handshake(stream->ssl);
    if (done != 1) {
        *error = SSL_get_error(stream->ssl, done);
        return false;
    }
    stream->ready = keep_names(stream);
    *error = stream->ready ? SSL_ERROR_NONE : SSL_ERROR_SSL;
    return stream->ready;
}

ptrdiff_t rk_tls_stream_receive(struct rk_tls_stream *stream, const uint8_t *bytes, size_t length, uint8_t *plain,
                                uint64_t now_us, struct rk_tls_output *output)
{
    size_t capacity = length + RK_TLS_RECORD_BYTES, got = 0;
    int error = SSL_ERROR_NONE;
    stream->input = bytes;
    stream->input_bytes = length;
    stream->output = output;
    stream->now_us = now_us;
    ERR_clear_error(); /* what others left on this thread is not about this stream */
    if (!stream->ready && !shake_hands(stream, &error))
        return error == SSL_ERROR_WANT_READ ? 0 : give_up(stream, error);
    while (stream->input_bytes > 0 || SSL_has_pending(stream->ssl)) {
        size_t part;
        int done = SSL_read_ex(stream->ssl, plain + got, capacity - got, &part);
        if (done == 1) {
            got += part;
            continue;
        }
        error = SSL_get_error(stream->ssl, done);
        if (error == SSL_ERROR_WANT_READ)
            break;
        if (error == SSL_ERROR_ZERO_RETURN && got > 0)
            break; /* the next call says so, or the socket's end does */
        return give_up(stream, error);
    }
    return stream->flooded ? give_up(stream, SSL_ERROR_SSL) : (ptrdiff_t)got;
}

bool rk_tls_stream_ready(const struct rk_tls_stream *stream)
{
    return stream->ready;
}

bool rk_tls_stream_send(struct rk_tls_stream *stream, const uint8_t *plain, size_t length, struct rk_tls_output *output)
{
    size_t sent;
    stream->input_bytes = 0;
    stream->output = output;
    if (length == 0 || (SSL_write_ex(stream->ssl, plain, length, &sent) == 1 && sent == length))
        return true;
    give_up(stream, SSL_ERROR_SSL);
    return false;
}

void rk_tls_stream_end(struct rk_tls_stream *stream, struct rk_tls_output *output)
{
    stream->input_bytes = 0;
    stream->output = output;
    if (stream->ready)
        SSL_shutdown(stream->ssl);
    ERR_clear_error();
}

const char *rk_tls_stream_why(const struct rk_tls_stream *stream)
{
    return stream->why;
}
