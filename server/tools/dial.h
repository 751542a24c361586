/* Connects to "host:port" or "unix:/path". */
#ifndef RANKD_SERVER_TOOLS_DIAL_H
#define RANKD_SERVER_TOOLS_DIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/base/status.h"

/* A connected, non-blocking socket without Nagle's delay. Tries every address that the name has until timeout_us is
 * over. RK_INVALID: no such target. RK_IO: nobody answers; the text says why and what to do. */
enum rk_status rk_dial(const char *target, uint64_t timeout_us, int *fd, struct rk_error *error);

/* "host:port" or "[host]:port" in its two parts. False: it is neither. */
bool rk_dial_split(const char *target, char host[256], char port[16]);

uint64_t rk_dial_now_us(void); /* monotonic */

#endif
