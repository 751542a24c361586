/* Each block starts with its links in a doubly linked list; 16 bytes, so the data behind stays aligned. One thread. */
#include "server/grpc/h2_memory.h"

#include <string.h>

#include "server/grpc/pool.h"

struct rk_h2_block {
    struct rk_h2_block *next, *previous;
    _Alignas(16) unsigned char data[];
};

static struct rk_h2_block *block_of(void *data)
{
    return (struct rk_h2_block *)((unsigned char *)data - sizeof(struct rk_h2_block));
}

static void link_block(struct rk_h2_memory *memory, struct rk_h2_block *block)
{
    block->next = memory->blocks;
    block->previous = NULL;
    if (block->next != NULL)
        block->next->previous = block;
    memory->blocks = block;
}

static void unlink_block(struct rk_h2_memory *memory, struct rk_h2_block *block)
{
    if (block->previous != NULL)
        block->previous->next = block->next;
    else
        memory->blocks = block->next;
    if (block->next != NULL)
        block->next->previous = block->previous;
}

static void *h2_malloc(size_t bytes, void *user_data)
{
    struct rk_h2_memory *memory = user_data;
    size_t block_bytes;
    if (__builtin_add_overflow(bytes, sizeof(struct rk_h2_block), &block_bytes))
        return NULL;
    struct rk_h2_block *block = rk_pool_alloc(memory->pool, block_bytes);
    if (block == NULL)
        return NULL;
    link_block(memory, block);
    return block->data;
}

static void h2_free(void *data, void *user_data)
{
    struct rk_h2_memory *memory = user_data;
    if (data == NULL)
        return;
    unlink_block(memory, block_of(data));
    rk_pool_free(memory->pool, block_of(data));
}

static void *h2_calloc(size_t number, size_t element_bytes, void *user_data)
{
    size_t bytes;
    if (__builtin_mul_overflow(number, element_bytes, &bytes))
        return NULL;
    void *data = h2_malloc(bytes, user_data);
    if (data != NULL)
        memset(data, 0, bytes);
    return data;
}

static void *h2_realloc(void *data, size_t bytes, void *user_data)
{
    struct rk_h2_memory *memory = user_data;
    size_t block_bytes;
    if (data == NULL)
        return h2_malloc(bytes, user_data);
    if (__builtin_add_overflow(bytes, sizeof(struct rk_h2_block), &block_bytes))
        return NULL;
    struct rk_h2_block *block = block_of(data);
    unlink_block(memory, block); /* it may move */
    struct rk_h2_block *larger = rk_pool_realloc(memory->pool, block, block_bytes);
    link_block(memory, larger != NULL ? larger : block);
    return larger != NULL ? larger->data : NULL;
}

nghttp2_mem rk_h2_memory_for(struct rk_h2_memory *memory)
{
    return (nghttp2_mem){memory, h2_malloc, h2_free, h2_calloc, h2_realloc};
}

void rk_h2_memory_take_back(struct rk_h2_memory *memory)
{
    while (memory->blocks != NULL) {
        struct rk_h2_block *block = memory->blocks;
        memory->blocks = block->next;
        rk_pool_free(memory->pool, block);
    }
}
