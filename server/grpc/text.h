/* The small texts of gRPC over HTTP/2: timeouts, percent-encoded messages, binary headers.
 * Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md */
#ifndef RANKD_SERVER_GRPC_TEXT_H
#define RANKD_SERVER_GRPC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "100m": 1 to 8 digits and a unit of n u m S M H, nothing else; nanoseconds are rounded up. */
bool rk_timeout_parse(const char *text, size_t length, uint64_t *timeout_us);

#define RK_TIMEOUT_TEXT_BYTES 16
/* The finest unit that holds the timeout in 8 digits, rounded up; at most 99999999 hours. */
void rk_timeout_print(uint64_t timeout_us, char text[RK_TIMEOUT_TEXT_BYTES]);

/* grpc-message: every byte outside 0x20..0x7e, and '%', becomes %XX. Writes at most 3 * length bytes to `encoded`, no
 * NUL; returns how many. */
size_t rk_percent_encode(const char *text, size_t length, char *encoded);

/* The reverse; an escape that is not one stays as it is. Writes at most `length` bytes. May work in place. */
size_t rk_percent_decode(const char *text, size_t length, char *decoded);

/* The value of a header whose name ends in "-bin": base64 with or without padding, or several separated by commas, each
 * with spaces around it or not. */
bool rk_binary_header_check(const char *text, size_t length);

#endif
