/* Who may come in: TLS with its certificates, and the rules of access. Both come from files and can be read anew while
 * the server runs. */
#ifndef RANKD_SERVER_GATE_H
#define RANKD_SERVER_GATE_H

#include "server/access.h"
#include "server/options.h"
#include "server/tls.h"

struct rk_gate {
    struct rk_tls *tls;       /* NULL: no TLS */
    struct rk_access *access; /* NULL: everybody may call everything */
};

/* Do the options fit together? RK_INVALID says what is missing. */
enum rk_status rk_gate_check(const struct rk_options *options, struct rk_error *error);

enum rk_status rk_gate_open(const struct rk_options *options, struct rk_gate *gate, struct rk_error *error);
void rk_gate_close(struct rk_gate *gate);

/* Reads certificates and rules again; each that is wrong stays as it was. Logs what has changed and what has not. */
void rk_gate_reload(struct rk_gate *gate);

/* "tls: certificate ..., until ...", "access: rules for 3 services, 2 tokens"; as snprintf does, "" when there is none.
 */
void rk_gate_describe(const struct rk_gate *gate, const char *between, char *text, size_t capacity);

#endif
