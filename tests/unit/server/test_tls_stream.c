/* The server's side of TLS against OpenSSL's own client, in memory: any split of the bytes, and what is cut off. */
#include <criterion/criterion.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "certificates.h"
#include "server/tls.h"
#include "server/tls_stream.h"

#define PLAIN_BYTES (256u << 10)

struct pair {
    struct made_certificate made;
    struct rk_tls *tls;
    struct rk_tls_stream *stream;
    SSL_CTX *context;
    SSL *client;            /* writes to and reads from memory */
    uint8_t sent[1u << 20]; /* by the server, on its way to the client */
    struct rk_tls_output output;
    uint8_t plain[PLAIN_BYTES + RK_TLS_RECORD_BYTES];
    size_t plain_bytes;
    uint64_t now_us;
};

static struct pair pair;

static void set_up(void)
{
    pair.made = make_certificate(1);
    const struct rk_tls_config config = {.certificate = pair.made.certificate,
                                         .key = pair.made.key,
                                         .client_ca = "",
                                         .client_crl = ""};
    struct rk_error error = {0};
    cr_assert_eq(rk_tls_create(&config, &pair.tls, &error), RK_OK, "%s", error.text);
    pair.stream = rk_tls_stream_create(pair.tls, 0);
    cr_assert_not_null(pair.stream);
    pair.context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_alpn_protos(pair.context, (const unsigned char *)"\2h2", 3);
    pair.client = SSL_new(pair.context);
    SSL_set_bio(pair.client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(pair.client);
    pair.output = (struct rk_tls_output){.bytes = pair.sent, .capacity = sizeof pair.sent};
}

static void tear_down(void)
{
    SSL_free(pair.client);
    SSL_CTX_free(pair.context);
    rk_tls_stream_destroy(pair.stream);
    rk_tls_destroy(pair.tls);
    remove_certificate(&pair.made);
}

/* What the client has written goes to the server, `part` bytes at a time; its answer goes back. False when it breaks.
 */
static bool carry(size_t part)
{
    BIO *out = SSL_get_wbio(pair.client);
    uint8_t bytes[65536];
    int got;
    bool alive = true;
    while (alive && (got = BIO_read(out, bytes, (int)(part < sizeof bytes ? part : sizeof bytes))) > 0) {
        uint8_t plain[sizeof bytes + RK_TLS_RECORD_BYTES];
        ptrdiff_t count = rk_tls_stream_receive(pair.stream, bytes, (size_t)got, plain, pair.now_us, &pair.output);
        alive = count >= 0;
        if (!alive)
            break;
        memcpy(pair.plain + pair.plain_bytes, plain, (size_t)count);
        pair.plain_bytes += (size_t)count;
    }
    if (pair.output.length > 0)
        BIO_write(SSL_get_rbio(pair.client), pair.output.bytes, (int)pair.output.length);
    pair.output.length = 0;
    return alive;
}

static void shake_hands(size_t part)
{
    for (int turn = 0; turn < 10 && !(SSL_do_handshake(pair.client) == 1 && rk_tls_stream_ready(pair.stream)); turn++)
        cr_assert(carry(part), "%s", rk_tls_stream_why(pair.stream));
    cr_assert(rk_tls_stream_ready(pair.stream));
}

/* Both ways, in messages of several records. */
static void exchange(size_t part)
{
    enum { BYTES = 50000 };
    static uint8_t message[BYTES], back[BYTES];
    for (size_t i = 0; i < BYTES; i++)
        message[i] = (uint8_t)(i * 7 + part);
    cr_assert_eq(SSL_write(pair.client, message, BYTES), BYTES);
    pair.plain_bytes = 0;
    cr_assert(carry(part), "%s", rk_tls_stream_why(pair.stream));
    cr_assert_eq(pair.plain_bytes, BYTES);
    cr_assert_eq(memcmp(pair.plain, message, BYTES), 0);
    cr_assert(rk_tls_stream_send(pair.stream, message, BYTES, &pair.output));
    cr_assert(carry(part));
    size_t got = 0;
    for (int part_bytes; (part_bytes = SSL_read(pair.client, back + got, (int)(BYTES - got))) > 0;)
        got += (size_t)part_bytes;
    cr_assert_eq(got, BYTES);
    cr_assert_eq(memcmp(back, message, BYTES), 0);
}

static void both_versions(void (*test)(size_t part), size_t part)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < 2; i++) {
        set_up();
        SSL_set_max_proto_version(pair.client, versions[i]);
        test(part);
        cr_expect_eq(SSL_version(pair.client), versions[i]);
        tear_down();
    }
}

static void talk(size_t part)
{
    shake_hands(part);
    exchange(part);
    const unsigned char *protocol;
    unsigned bytes;
    SSL_get0_alpn_selected(pair.client, &protocol, &bytes);
    cr_expect(bytes == 2 && memcmp(protocol, "h2", 2) == 0);
}

Test(tls_stream, bytes_may_come_in_pieces_of_any_size)
{
    static const size_t parts[] = {1, 2, 3, 5, 6, 17, 100, 1000, 16384, 16385, 65536};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        both_versions(talk, parts[i]);
}

Test(tls_stream, a_client_without_h2_is_refused_before_the_certificate_is_shown, .init = set_up, .fini = tear_down)
{
    static const char *const offers[] = {"", "\10http/1.1", "\3h2c\2h3"};
    for (size_t i = 0; i < 3; i++) {
        rk_tls_stream_destroy(pair.stream);
        pair.stream = rk_tls_stream_create(pair.tls, 0);
        SSL *client = SSL_new(pair.context);
        SSL_set_alpn_protos(client, (const unsigned char *)offers[i], (unsigned)strlen(offers[i]));
        SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_connect_state(client);
        SSL_do_handshake(client);
        uint8_t hello[4096], plain[4096 + RK_TLS_RECORD_BYTES];
        int got = BIO_read(SSL_get_wbio(client), hello, sizeof hello);
        pair.output.length = 0;
        cr_expect_eq(rk_tls_stream_receive(pair.stream, hello, (size_t)got, plain, 0, &pair.output), -1);
        cr_expect_str_eq(rk_tls_stream_why(pair.stream), "its peer does not offer h2 in ALPN");
        cr_expect_eq(pair.output.length, 7, "one alert, not %zu bytes", pair.output.length);
        cr_expect_eq(pair.output.bytes[6], SSL_AD_NO_APPLICATION_PROTOCOL);
        SSL_free(client);
    }
}

Test(tls_stream, what_is_not_tls_breaks_at_its_first_bytes, .init = set_up, .fini = tear_down)
{
    static const char *const openings[] = {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                                           "SSH-2.0-OpenSSH_9.2\r\n"};
    for (size_t i = 0; i < 3; i++) {
        rk_tls_stream_destroy(pair.stream);
        pair.stream = rk_tls_stream_create(pair.tls, 0);
        uint8_t plain[64 + RK_TLS_RECORD_BYTES];
        cr_expect_eq(rk_tls_stream_receive(pair.stream, (const uint8_t *)openings[i], strlen(openings[i]), plain, 0,
                                           &pair.output),
                     -1);
        cr_expect_str_eq(rk_tls_stream_why(pair.stream), "its peer does not speak TLS on a TLS port", "%s: %s",
                         openings[i], rk_tls_stream_why(pair.stream));
        cr_expect(!rk_tls_stream_ready(pair.stream));
    }
}

Test(tls_stream, a_flood_of_key_updates_is_cut_off_and_a_few_are_fine, .init = set_up, .fini = tear_down)
{
    shake_hands(65536);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(SSL_key_update(pair.client, SSL_KEY_UPDATE_REQUESTED), 1);
        exchange(65536);
    }
    pair.now_us += 1000000;
    int updates = 0;
    bool alive = true;
    for (; alive && updates < 1000; updates++) {
        SSL_key_update(pair.client, SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(pair.client);
        alive = carry(65536);
    }
    cr_expect(!alive, "%d key updates in a moment went through", updates);
    cr_expect(updates <= 32, "%d key updates", updates);
    cr_expect(strstr(rk_tls_stream_why(pair.stream), "without data") != NULL, "%s", rk_tls_stream_why(pair.stream));
}

Test(tls_stream, renegotiation_is_refused, .init = set_up, .fini = tear_down)
{
    SSL_set_max_proto_version(pair.client, TLS1_2_VERSION);
    shake_hands(65536);
    cr_assert_eq(SSL_renegotiate(pair.client), 1);
    SSL_do_handshake(pair.client); /* a new ClientHello */
    cr_expect(carry(65536), "%s", rk_tls_stream_why(pair.stream));
    SSL_do_handshake(pair.client); /* reads the answer, and gives up */
    cr_expect_eq(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION, "%s",
                 ERR_reason_error_string(ERR_peek_last_error()));
}

Test(tls_stream, a_goodbye_is_told_from_a_breach, .init = set_up, .fini = tear_down)
{
    shake_hands(65536);
    SSL_shutdown(pair.client);
    cr_expect(!carry(65536));
    cr_expect_null(rk_tls_stream_why(pair.stream));
    rk_tls_stream_end(pair.stream, &pair.output);
}

Test(tls_stream, a_changed_byte_breaks_the_stream, .init = set_up, .fini = tear_down)
{
    shake_hands(65536);
    SSL_write(pair.client, "hello", 5);
    uint8_t record[256], plain[256 + RK_TLS_RECORD_BYTES];
    int got = BIO_read(SSL_get_wbio(pair.client), record, sizeof record);
    record[got / 2] ^= 1;
    cr_expect_eq(rk_tls_stream_receive(pair.stream, record, (size_t)got, plain, 0, &pair.output), -1);
    cr_expect_not_null(rk_tls_stream_why(pair.stream));
    cr_expect(pair.output.length > 0, "its peer is told");
    pair.output.length = 0;
    cr_expect(!rk_tls_stream_ready(pair.stream));
}

/* ---- memory ---- */

static uint64_t allocations, failing_one; /* 0: none fails */
static bool counting, from_then_on;

static bool fails_now(void)
{
    if (!counting)
        return false;
    allocations++;
    return allocations == failing_one || (from_then_on && failing_one > 0 && allocations > failing_one);
}

static void *allocate(size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    return fails_now() ? NULL : malloc(bytes);
}

static void *reallocate(void *block, size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    return fails_now() ? NULL : realloc(block, bytes);
}

static void give_back(void *block, const char *file, int line)
{
    (void)file, (void)line;
    free(block);
}

/* Before anything in this process uses OpenSSL. */
static bool memory_is_ours;

__attribute__((constructor)) static void take_memory(void)
{
    memory_is_ours = CRYPTO_set_mem_functions(allocate, reallocate, give_back) == 1;
}

/* The server's side of a connection, from its first byte to its end, with a client that has memory. */
static bool live(void)
{
    SSL *client = SSL_new(pair.context);
    SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(client);
    counting = true;
    struct rk_tls_stream *stream = rk_tls_stream_create(pair.tls, 0);
    bool alive = stream != NULL, answered = false;
    for (int turn = 0; alive && !answered && turn < 8; turn++) {
        static uint8_t bytes[65536], plain[sizeof bytes + RK_TLS_RECORD_BYTES];
        counting = false;
        if (SSL_do_handshake(client) == 1) {
            SSL_write(client, "question", 8);
            answered = SSL_read(client, bytes, sizeof bytes) == 6;
        }
        int got = BIO_read(SSL_get_wbio(client), bytes, sizeof bytes);
        counting = true;
        pair.output.length = 0;
        ptrdiff_t count = got > 0 ? rk_tls_stream_receive(stream, bytes, (size_t)got, plain, 0, &pair.output) : 0;
        alive = count >= 0 && (count == 0 || rk_tls_stream_send(stream, (const uint8_t *)"answer", 6, &pair.output));
        counting = false;
        BIO_write(SSL_get_rbio(client), pair.output.bytes, (int)pair.output.length);
        counting = true;
    }
    rk_tls_stream_destroy(stream);
    counting = false;
    SSL_free(client);
    return answered;
}

Test(tls_stream, an_allocation_that_fails_costs_one_connection_at_most)
{
    cr_assert(memory_is_ours);
    set_up();
    cr_assert(live());
    allocations = 0;
    cr_assert(live(), "a connection before any failure");
    const uint64_t count = allocations;
    uint64_t refused = 0;
    cr_assert(count > 10, "OpenSSL allocates through us");
    for (uint64_t i = 0; i < 2 * count; i++) {
        allocations = 0;
        failing_one = i / 2 + 1;
        from_then_on = i % 2 != 0;
        refused += !live();
    }
    failing_one = 0;
    cr_expect(refused > count, "%llu of %llu failures were of no account", (unsigned long long)(2 * count - refused),
              (unsigned long long)(2 * count));
    cr_expect(live(), "after %llu failures in turn", (unsigned long long)count);
    tear_down();
}

Test(tls_stream, a_certificate_that_has_expired_is_refused_by_name)
{
    struct made_certificate made = make_certificate(-1);
    const struct rk_tls_config config = {.certificate = made.certificate,
                                         .key = made.key,
                                         .client_ca = "",
                                         .client_crl = ""};
    struct rk_tls *tls;
    struct rk_error error = {0};
    cr_expect_eq(rk_tls_create(&config, &tls, &error), RK_INVALID);
    cr_expect(strstr(error.text, "expired on") != NULL && strstr(error.text, made.certificate) != NULL, "%s",
              error.text);
    remove_certificate(&made);
}
