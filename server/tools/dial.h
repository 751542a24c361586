/* Connects to "host:port". */
#ifndef RANKD_SERVER_TOOLS_DIAL_H
#define RANKD_SERVER_TOOLS_DIAL_H

#include <stdint.h>

#include "quant/base/status.h"

/* A connected, non-blocking socket without Nagle's delay. Tries every address that the name has until timeout_us is
 * over. RK_INVALID: not host:port. RK_IO: nobody answers; the text says why and what to do. */
enum rk_status rk_dial(const char *target, uint64_t timeout_us, int *fd, struct rk_error *error);

#endif
