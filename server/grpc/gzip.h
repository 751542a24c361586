/* gRPC's message encoding "gzip" (RFC 1952). Memory comes from the pool, so that a warm event loop needs no malloc for
 * it. */
#ifndef RANKD_SERVER_GRPC_GZIP_H
#define RANKD_SERVER_GRPC_GZIP_H

#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

struct rk_pool;

/* How long the content of a member says that it is; 0 where it is too short to say. */
size_t rk_gzip_declared_bytes(const uint8_t *bytes, size_t length);

/* One member, which must end where the input does; *message is a pool block of *message_bytes. RK_EXHAUSTED: it would
 * be more than max_bytes; RK_CORRUPT: it is no gzip, damaged, or of another length than it says; RK_NO_MEMORY. */
enum rk_status rk_gzip_inflate(struct rk_pool *pool, const uint8_t *bytes, size_t length, uint64_t max_bytes,
                               uint8_t **message, size_t *message_bytes);

/* Writes at most `capacity` bytes to `compressed`. RK_EXHAUSTED: they do not suffice; RK_NO_MEMORY. */
enum rk_status rk_gzip_deflate(struct rk_pool *pool, const uint8_t *bytes, size_t length, uint8_t *compressed,
                               size_t capacity, size_t *compressed_bytes);

#endif
