/* Who may come in: TLS with its certificates. They come from files and can be read anew while
 * the server runs. */
#ifndef RANKD_SERVER_GATE_H
#define RANKD_SERVER_GATE_H

#include "server/options.h"
#include "server/tls.h"

struct rk_gate {
    struct rk_tls *tls; /* NULL: no TLS */
};

/* Do the options fit together? RK_INVALID says what is missing. */
enum rk_status rk_gate_check(const struct rk_options *options, struct rk_error *error);

enum rk_status rk_gate_open(const struct rk_options *options, struct rk_gate *gate, struct rk_error *error);
void rk_gate_close(struct rk_gate *gate);

/* Reads the certificates again; when one is wrong, they stay as they were. Logs what has changed and what has not. */
void rk_gate_reload(struct rk_gate *gate);

/* "tls: certificate ..., until ..."; "" when there is none. */
void rk_gate_describe(const struct rk_gate *gate, char *text, size_t capacity);

#endif
