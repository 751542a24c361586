/* Shards: where rows lie while they are served. (How they lie on the disk, cut into files, is struct rk_shard_spec's
 * business; what lies on which shard is decided in embeddings/placement.h.)
 *
 * A shard is a stretch of anonymous memory: in huge pages as far as the system gives them, so that a random read needs
 * no walk of the page tables in memory; preferring one NUMA node; read-only once it is filled; nobody outside can
 * change or truncate what is read from it. A process can hold many. */
#ifndef RANKD_EMBEDDINGS_SHARD_H
#define RANKD_EMBEDDINGS_SHARD_H

#include <stdint.h>

#include "quant/base/status.h"

struct rk_shard;

/* Reserves memory for `bytes` in pieces of multiples of RK_PIECE_ALIGNMENT; it is taken from the system as it is
 * written to. node: the NUMA node to prefer, or -1 for none. RK_NO_MEMORY. */
enum rk_status rk_shard_create(uint64_t bytes, int node, struct rk_shard **shard, struct rk_error *error);
void rk_shard_destroy(struct rk_shard *shard);

/* The next `bytes` of it, at a multiple of RK_PIECE_ALIGNMENT. All that is taken must fit in what it was created with.
 */
void *rk_shard_take(struct rk_shard *shard, uint64_t bytes);

/* From now on it is only read. */
void rk_shard_seal(struct rk_shard *shard);

/* Keeps it in memory: rk_memory_lock. */
enum rk_status rk_shard_lock(struct rk_shard *shard, struct rk_error *error);

/* The NUMA node that it prefers; -1: none, because none was asked for or the kernel refused. */
int rk_shard_node(const struct rk_shard *shard);

#endif
