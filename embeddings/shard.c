/* Shards in memory: one anonymous mapping each, given out from its start. The kernel gives huge pages for ranges of
 * 2 MiB on such boundaries, at the first write, when it is asked to and has them; where it has none, ordinary pages do
 * the same job slower. Filled by one thread, then immutable and read by all. */
#include "embeddings/shard.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "embeddings/memory.h"
#include "embeddings/placement.h"

#define HUGE_PAGE ((uint64_t)2 << 20)

struct rk_shard {
    unsigned char *data; /* at a multiple of HUGE_PAGE; NULL: it holds nothing */
    uint64_t bytes, mapped_bytes;
    uint64_t taken;
    int node;
};

/* Maps a huge page more than is needed and gives back what lies before and behind the boundaries. */
static enum rk_status reserve(struct rk_shard *shard, struct rk_error *error)
{
    if (shard->bytes > INT64_MAX - 2 * HUGE_PAGE)
        return rk_error_set(error, RK_NO_MEMORY, "no memory for a shard of %llu bytes",
                            (unsigned long long)shard->bytes);
    shard->mapped_bytes = (shard->bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    unsigned char *mapping = mmap(NULL, shard->mapped_bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return rk_error_set(error, RK_NO_MEMORY, "no memory for a shard of %llu bytes: %s",
                            (unsigned long long)shard->bytes, strerror(errno));
    const uint64_t before = -(uintptr_t)mapping % HUGE_PAGE;
    if (before > 0)
        munmap(mapping, before);
    if (before < HUGE_PAGE)
        munmap(mapping + before + shard->mapped_bytes, HUGE_PAGE - before);
    shard->data = mapping + before;
    madvise(shard->data, shard->mapped_bytes, MADV_HUGEPAGE);
    return RK_OK;
}

enum rk_status rk_shard_create(uint64_t bytes, int node, struct rk_shard **shard, struct rk_error *error)
{
    struct rk_shard *created = calloc(1, sizeof *created);
    if (created == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for a shard");
    created->bytes = bytes;
    created->node = -1;
    const enum rk_status status = bytes > 0 ? reserve(created, error) : RK_OK;
    if (status != RK_OK) {
        free(created);
        return status;
    }
    if (node >= 0 && bytes > 0 && rk_memory_prefer_node(created->data, created->mapped_bytes, (uint32_t)node))
        created->node = node;
    *shard = created;
    return RK_OK;
}

void rk_shard_destroy(struct rk_shard *shard)
{
    if (shard == NULL)
        return;
    if (shard->data != NULL)
        munmap(shard->data, shard->mapped_bytes);
    free(shard);
}

void *rk_shard_take(struct rk_shard *shard, uint64_t bytes)
{
    assert(bytes <= shard->bytes - shard->taken);
    void *piece = shard->data + shard->taken;
    const uint64_t end = shard->taken + (bytes + RK_PIECE_ALIGNMENT - 1) / RK_PIECE_ALIGNMENT * RK_PIECE_ALIGNMENT;
    shard->taken = end < shard->bytes ? end : shard->bytes;
    return piece;
}

void rk_shard_seal(struct rk_shard *shard)
{
    if (shard->data != NULL)
        mprotect(shard->data, shard->mapped_bytes, PROT_READ);
}

enum rk_status rk_shard_lock(struct rk_shard *shard, struct rk_error *error)
{
    return rk_memory_lock(shard->data, shard->bytes, error);
}

int rk_shard_node(const struct rk_shard *shard)
{
    return shard->node;
}
