/* All addresses that a server listens on: plaintext, TLS, and the operator's own. */
#ifndef RANKD_SERVER_LISTENERS_H
#define RANKD_SERVER_LISTENERS_H

#include "server/listener.h"
#include "server/options.h"

#define RK_MAX_LISTENERS 16

struct rk_listeners {
    struct rk_endpoint plain, tls, admin;
    uint32_t count;
    const char *kinds[RK_MAX_LISTENERS]; /* "", "tls ", "admin " */
    struct rk_listener *listeners[RK_MAX_LISTENERS];
};

/* May the addresses in these options be listened on? RK_INVALID says what is wrong. */
enum rk_status rk_listeners_check(const struct rk_options *options, struct rk_error *error);

/* Binds them all; `tls` NULL: there is no TLS. `listeners` must stay where it is as long as there are connections. */
enum rk_status rk_listeners_open(const struct rk_options *options, struct rk_tls *tls, struct rk_listeners *listeners,
                                 struct rk_error *error);

/* As rk_listener_attach and rk_listener_close. */
enum rk_status rk_listeners_attach(struct rk_listeners *listeners, struct event_base *base,
                                   rk_listener_accepted_fn *accepted, rk_listener_room_fn *room, void *context,
                                   struct rk_error *error);
void rk_listeners_close(struct rk_listeners *listeners);

/* "127.0.0.1:8470", "tls 0.0.0.0:8471", in the order of the options. */
void rk_listeners_print(const struct rk_listeners *listeners, const char *between, char *text, size_t capacity);

#endif
