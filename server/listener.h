/* Listening sockets: accept clients on one event loop's base and hand the sockets on. */
#ifndef RANKD_SERVER_LISTENER_H
#define RANKD_SERVER_LISTENER_H

#include <stdbool.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "quant/base/status.h"
#include "server/endpoint.h"

struct rk_listener;

/* Takes a non-blocking socket with TCP_NODELAY set. */
typedef void rk_listener_accepted_fn(void *context, const struct rk_accepted *accepted);
/* May another connection be opened from there? If so, returns NULL and sets peer_slot. When not, it is accepted and
 * closed at once, so that its client knows; the answer says why. */
typedef const char *rk_listener_room_fn(void *context, const struct sockaddr *address, struct rk_accepted *accepted);

/* Binds and listens, so that clients queue up from now on. `address` as in rk_address_check; the endpoint must outlive
 * the connections. */
enum rk_status rk_listener_open(const char *address, const struct rk_endpoint *endpoint, struct rk_listener **listener,
                                struct rk_error *error);

/* Begins to accept; before the base's thread starts. */
enum rk_status rk_listener_attach(struct rk_listener *listener, struct event_base *base,
                                  rk_listener_accepted_fn *accepted, rk_listener_room_fn *room, void *context,
                                  struct rk_error *error);

/* On the base's thread, or once that has ended; NULL is allowed. Removes the file of a Unix socket. */
void rk_listener_close(struct rk_listener *listener);

/* "127.0.0.1:8470", with the port that was bound; "unix:/run/rankd.sock". */
const char *rk_listener_address(const struct rk_listener *listener);

#endif
