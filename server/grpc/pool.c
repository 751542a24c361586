/* Size classes of powers of two, each with a list of free blocks:
 *
 *   block = [size class, size | data ...]      header of 16 bytes, so that data stays 16-byte aligned
 *   free[class] -> block -> block -> NULL      the link lies in the data
 *
 * A class that runs out gets several blocks at once, so that a warm loop that has a few more calls open than ever
 * before finds them there. A block goes back to its list, not to the system, until the lists together hold
 * MAX_FREE_BYTES: a burst of connections does not pin its memory for ever. A warm event loop moves within that bound
 * and never sees malloc. One thread. */
#include "server/grpc/pool.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(address, bytes)   ASAN_POISON_MEMORY_REGION(address, bytes)
#define UNPOISON(address, bytes) ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#else
#define POISON(address, bytes)   ((void)0)
#define UNPOISON(address, bytes) ((void)0)
#endif

#define MIN_SHIFT      6  /* 64 bytes, header included */
#define MAX_SHIFT      20 /* 1 MiB */
#define NUM_CLASSES    (MAX_SHIFT - MIN_SHIFT + 1)
#define LARGE          UINT32_MAX
#define MAX_FREE_BYTES ((size_t)32 << 20)
#define MAX_SPARES     15          /* blocks that a class gets beyond the one it needs */
#define SPARE_BYTES    (256 << 10) /* and their sum, so that large blocks come alone or nearly so */

struct block {
    uint64_t bytes;      /* of the whole block */
    uint32_t size_class; /* LARGE: straight from the system */
    uint32_t unused;
    _Alignas(16) unsigned char data[];
};

struct rk_pool {
    struct block *free[NUM_CLASSES];
    size_t held_bytes, free_bytes;
    size_t num_used; /* blocks given out */
};

struct rk_pool *rk_pool_create(void)
{
    return calloc(1, sizeof(struct rk_pool));
}

static struct block *next_free(struct block *block)
{
    struct block *next;
    memcpy(&next, block->data, sizeof next);
    return next;
}

void rk_pool_destroy(struct rk_pool *pool)
{
    if (pool == NULL)
        return;
    assert(pool->num_used == 0);
    for (int i = 0; i < NUM_CLASSES; i++) {
        while (pool->free[i] != NULL) {
            struct block *block = pool->free[i];
            UNPOISON(block->data, block->bytes - sizeof *block);
            pool->free[i] = next_free(block);
            free(block);
        }
    }
    free(pool);
}

static uint32_t class_of(size_t block_bytes)
{
    if (block_bytes > (size_t)1 << MAX_SHIFT)
        return LARGE;
    if (block_bytes <= (size_t)1 << MIN_SHIFT)
        return 0;
    return (uint32_t)(64 - __builtin_clzl(block_bytes - 1)) - MIN_SHIFT;
}

static void *give(struct rk_pool *pool, struct block *block)
{
    pool->num_used++;
    return block->data;
}

static struct block *take_from_system(struct rk_pool *pool, size_t block_bytes, uint32_t size_class)
{
    struct block *block = malloc(block_bytes);
    if (block == NULL)
        return NULL;
    block->bytes = block_bytes;
    block->size_class = size_class;
    pool->held_bytes += block_bytes;
    return block;
}

static void keep_free(struct rk_pool *pool, struct block *block)
{
    memcpy(block->data, &pool->free[block->size_class], sizeof block);
    pool->free[block->size_class] = block;
    pool->free_bytes += block->bytes;
    POISON(block->data, block->bytes - sizeof *block);
}

/* Without them the caller still has its own block. */
static void add_spares(struct rk_pool *pool, size_t block_bytes, uint32_t size_class)
{
    for (size_t more = SPARE_BYTES / block_bytes < MAX_SPARES ? SPARE_BYTES / block_bytes : MAX_SPARES; more > 0;
         more--) {
        struct block *spare = take_from_system(pool, block_bytes, size_class);
        if (spare == NULL)
            return;
        keep_free(pool, spare);
    }
}

void *rk_pool_alloc(struct rk_pool *pool, size_t bytes)
{
    size_t block_bytes;
    if (__builtin_add_overflow(bytes, sizeof(struct block), &block_bytes))
        return NULL;
    uint32_t size_class = class_of(block_bytes);
    if (size_class != LARGE) {
        block_bytes = (size_t)1 << (MIN_SHIFT + size_class);
        struct block *block = pool->free[size_class];
        if (block != NULL) {
            UNPOISON(block->data, block_bytes - sizeof *block);
            pool->free[size_class] = next_free(block);
            pool->free_bytes -= block_bytes;
            return give(pool, block);
        }
    }
    struct block *block = take_from_system(pool, block_bytes, size_class);
    if (block == NULL)
        return NULL;
    if (size_class != LARGE)
        add_spares(pool, block_bytes, size_class);
    return give(pool, block);
}

static struct block *block_of(void *data)
{
    return (struct block *)((unsigned char *)data - offsetof(struct block, data));
}

void *rk_pool_realloc(struct rk_pool *pool, void *data, size_t bytes)
{
    if (data == NULL)
        return rk_pool_alloc(pool, bytes);
    size_t held = block_of(data)->bytes - sizeof(struct block);
    if (bytes <= held)
        return data;
    void *larger = rk_pool_alloc(pool, bytes);
    if (larger == NULL)
        return NULL;
    memcpy(larger, data, held);
    rk_pool_free(pool, data);
    return larger;
}

void rk_pool_free(struct rk_pool *pool, void *data)
{
    if (data == NULL)
        return;
    struct block *block = block_of(data);
    assert(pool->num_used > 0);
    pool->num_used--;
    if (block->size_class == LARGE || pool->free_bytes + block->bytes > MAX_FREE_BYTES) {
        pool->held_bytes -= block->bytes;
        free(block);
        return;
    }
    keep_free(pool, block);
}

size_t rk_pool_held_bytes(const struct rk_pool *pool)
{
    return pool->held_bytes;
}
