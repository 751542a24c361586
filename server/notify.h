/* Telling others that rankd serves, or stops: the ready file, and the service manager's socket. */
#ifndef RANKD_SERVER_NOTIFY_H
#define RANKD_SERVER_NOTIFY_H

#include "quant/base/status.h"

/* Writes "<address>\n" to `path` by way of a temporary name, so that a reader sees all of it or nothing. */
enum rk_status rk_notify_write_ready_file(const char *path, const char *address, struct rk_error *error);

/* Sends e.g. "READY=1" to the service manager, if NOTIFY_SOCKET names one (sd_notify(3)); best effort. */
void rk_notify_manager(const char *state);

#endif
