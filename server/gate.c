/* Opens both from the options. Main's thread. */
#include "server/gate.h"

#include <stdio.h>

#include "server/log.h"

#define WARN_DAYS 7

enum rk_status rk_gate_check(const struct rk_options *options, struct rk_error *error)
{
    const bool has_certificate = options->tls_certificate[0] != '\0', has_key = options->tls_key[0] != '\0';
    if (options->listen_tls[0] != '\0' && !(has_certificate && has_key))
        return rk_error_set(
            error, RK_INVALID,
            "listen_tls is '%.100s', but %s is not set; TLS needs tls_certificate and tls_key, PEM files",
            options->listen_tls, has_certificate ? "tls_key" : "tls_certificate");
    if (options->listen_tls[0] == '\0' && (has_certificate || has_key))
        return rk_error_set(error, RK_INVALID,
                            "%s is set, but listen_tls is not, so nothing would be served over TLS; set listen_tls: "
                            "HOST:PORT",
                            has_certificate ? "tls_certificate" : "tls_key");
    if (options->tls_client_ca[0] != '\0' && !has_certificate)
        return rk_error_set(error, RK_INVALID,
                            "tls_client_ca is set, but there is no TLS; set listen_tls, "
                            "tls_certificate and tls_key");
    if (options->tls_client_crl[0] != '\0' && options->tls_client_ca[0] == '\0')
        return rk_error_set(
            error, RK_INVALID,
            "tls_client_crl is set, but tls_client_ca is not: no client is asked for a certificate that "
            "could be revoked");
    return RK_OK;
}

/* In time for a person to do something about it. */
static void warn_of_expiry(struct rk_tls *tls)
{
    int days = rk_tls_days_left(tls);
    if (days < WARN_DAYS)
        rk_log(RK_LOG_WARN, "tls_certificate expires in %d days; put a renewed one in its place and send SIGHUP", days);
}

enum rk_status rk_gate_open(const struct rk_options *options, struct rk_gate *gate, struct rk_error *error)
{
    *gate = (struct rk_gate){0};
    enum rk_status status = rk_gate_check(options, error);
    const struct rk_tls_config tls = {.certificate = options->tls_certificate,
                                      .key = options->tls_key,
                                      .client_ca = options->tls_client_ca,
                                      .client_crl = options->tls_client_crl,
                                      .client_may_be_unknown = options->tls_client_certificates != 0,
                                      .only_1_3 = options->tls_min_version != 0};
    if (status == RK_OK && options->listen_tls[0] != '\0')
        status = rk_tls_create(&tls, &gate->tls, error);
    if (gate->tls != NULL)
        warn_of_expiry(gate->tls);
    if (status == RK_OK && options->access_file[0] != '\0')
        status = rk_access_create(options->access_file, options->tls_client_ca[0] != '\0', &gate->access, error);
    if (status != RK_OK)
        rk_gate_close(gate);
    return status;
}

void rk_gate_close(struct rk_gate *gate)
{
    rk_tls_destroy(gate->tls);
    rk_access_destroy(gate->access);
    *gate = (struct rk_gate){0};
}

void rk_gate_reload(struct rk_gate *gate)
{
    struct rk_error error = {0};
    char text[400];
    if (gate->tls == NULL && gate->access == NULL)
        rk_log(RK_LOG_INFO, "SIGHUP: there are no certificates and no access rules to read again");
    if (gate->tls != NULL && rk_tls_reload(gate->tls, &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "SIGHUP: the certificates stay as they were: %s", error.text);
    } else if (gate->tls != NULL) {
        rk_tls_describe(gate->tls, text, sizeof text);
        rk_log(RK_LOG_INFO, "SIGHUP: new connections get the %s", text);
        warn_of_expiry(gate->tls);
    }
    error = (struct rk_error){0};
    if (gate->access != NULL && rk_access_reload(gate->access, &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "SIGHUP: the access rules stay as they were: %s", error.text);
    } else if (gate->access != NULL) {
        rk_access_describe(gate->access, text, sizeof text);
        rk_log(RK_LOG_INFO, "SIGHUP: calls are judged by new %s", text);
    }
}

void rk_gate_describe(const struct rk_gate *gate, const char *between, char *text, size_t capacity)
{
    int end = 0;
    text[0] = '\0';
    if (gate->tls != NULL) {
        end = snprintf(text, capacity, "tls: ");
        end += rk_tls_describe(gate->tls, text + end, capacity - (size_t)end);
    }
    if (gate->access == NULL || (size_t)end + 64 > capacity)
        return;
    end += snprintf(text + end, capacity - (size_t)end, "%saccess: ", end > 0 ? between : "");
    rk_access_describe(gate->access, text + end, capacity - (size_t)end);
}
