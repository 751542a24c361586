/* Addresses to listen on, as an operator writes them: "127.0.0.1:8470", "[::1]:0", "unix:/run/rankd.sock". */
#ifndef RANKD_SERVER_ADDRESS_H
#define RANKD_SERVER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "quant/base/status.h"

#define RK_UNIX_PREFIX   "unix:"
#define RK_ADDRESS_BYTES 300 /* the longest, its NUL included */

/* RK_INVALID says what is wrong; `option` is whose value it is. */
enum rk_status rk_address_check(const char *option, const char *text, struct rk_error *error);

/* Splits "host:port", "[v6]:port". RK_INVALID says what is wrong. */
enum rk_status rk_address_split(const char *option, const char *text, char *host, size_t host_capacity, char *port,
                                size_t port_capacity, struct rk_error *error);

/* Takes the next address of a list with commas; blanks around it do not count. False at the end. One that is too long
 * is cut, and so refused by the check. */
bool rk_address_next(const char **list, char address[RK_ADDRESS_BYTES]);

#endif
