/* Access control while the server runs: rules that can be read anew, and each event loop's view of them. */
#ifndef RANKD_SERVER_ACCESS_H
#define RANKD_SERVER_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "server/access_rules.h"

struct rk_access;
struct rk_access_view;
struct rk_call;

/* Reads `path`. `certificates`: clients are asked for them; without, a service that takes nothing else is an error. */
enum rk_status rk_access_create(const char *path, bool certificates, struct rk_access **access, struct rk_error *error);
void rk_access_destroy(struct rk_access *access); /* after its views; NULL is allowed */

/* Reads the file again. When it is wrong, all stays as it was. Any thread. */
enum rk_status rk_access_reload(struct rk_access *access, struct rk_error *error);

/* "rules for 3 services, 2 tokens", as snprintf does. */
int rk_access_describe(struct rk_access *access, char *text, size_t capacity);

/* One thread's. `access` NULL: everybody may call everything, but admin calls through the operator's door alone. */
enum rk_status rk_access_view_create(struct rk_access *access, struct rk_access_view **view, struct rk_error *error);
void rk_access_view_destroy(struct rk_access_view *view); /* NULL is allowed */

/* May this call go on? As rk_grpc_session_config's authorize; `view` is the rk_access_view of the call's loop, the
 * owner of the call's session its rk_connection. */
enum rk_grpc_status rk_access_authorize(void *view, struct rk_call *call, char *message, size_t capacity);

#endif
