/* Recycled memory blocks: power-of-two size classes with free lists, so that streams, header buffers and messages of a
 * warm event loop cost no malloc. One thread. Blocks over 1 MiB go straight to the system. */
#ifndef RANKD_SERVER_GRPC_POOL_H
#define RANKD_SERVER_GRPC_POOL_H

#include <stddef.h>

struct rk_pool;

struct rk_pool *rk_pool_create(void);
void rk_pool_destroy(struct rk_pool *pool); /* every block must have been freed */

void *rk_pool_alloc(struct rk_pool *pool, size_t bytes); /* NULL when the system refuses */
void *rk_pool_realloc(struct rk_pool *pool, void *block, size_t bytes);
void rk_pool_free(struct rk_pool *pool, void *block); /* NULL is allowed */

size_t rk_pool_held_bytes(const struct rk_pool *pool); /* taken from the system */

#endif
