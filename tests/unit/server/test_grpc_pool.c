/* Recycled blocks: what is freed is given out again, and sizes are kept. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "grpc_peer.h"

Test(grpc_pool, gives_a_freed_block_out_again)
{
    struct rk_pool *pool = rk_pool_create();
    void *first = rk_pool_alloc(pool, 100);
    size_t held = rk_pool_held_bytes(pool);
    rk_pool_free(pool, first);
    cr_expect(eq(ptr, rk_pool_alloc(pool, 90), first));
    cr_expect(eq(sz, rk_pool_held_bytes(pool), held));
    rk_pool_free(pool, first);
    rk_pool_destroy(pool);
}

Test(grpc_pool, aligns_every_size_and_keeps_its_content)
{
    struct rk_pool *pool = rk_pool_create();
    uint64_t seed = test_seed();
    uint8_t *blocks[200] = {NULL};
    size_t sizes[200] = {0};
    for (int step = 0; step < 20000; step++) {
        uint32_t i = test_random(&seed) % 200;
        for (size_t b = 0; b < sizes[i]; b += 97)
            cr_assert(eq(u8, blocks[i][b], (uint8_t)i));
        size_t bytes = (size_t)test_random(&seed) % ((size_t)1 << (test_random(&seed) % 19));
        if (test_random(&seed) % 2 == 0) {
            rk_pool_free(pool, blocks[i]);
            blocks[i] = rk_pool_alloc(pool, bytes);
        } else {
            uint8_t *grown = rk_pool_realloc(pool, blocks[i], bytes);
            for (size_t b = 0; b < sizes[i] && b < bytes; b += 97)
                cr_assert(eq(u8, grown[b], (uint8_t)i));
            blocks[i] = grown;
        }
        cr_assert(blocks[i] != NULL);
        cr_assert(eq(sz, (uintptr_t)blocks[i] % 16, 0));
        sizes[i] = bytes;
        memset(blocks[i], (int)i, bytes);
    }
    for (int i = 0; i < 200; i++)
        rk_pool_free(pool, blocks[i]);
    rk_pool_destroy(pool);
}

Test(grpc_pool, returns_large_blocks_and_bursts_to_the_system)
{
    struct rk_pool *pool = rk_pool_create();
    void *large = rk_pool_alloc(pool, 5 << 20);
    cr_expect(ge(sz, rk_pool_held_bytes(pool), 5 << 20));
    rk_pool_free(pool, large);
    cr_expect(eq(sz, rk_pool_held_bytes(pool), 0));
    static void *burst[1024];
    for (int i = 0; i < 1024; i++)
        burst[i] = rk_pool_alloc(pool, 100000);
    for (int i = 0; i < 1024; i++)
        rk_pool_free(pool, burst[i]);
    cr_expect(le(sz, rk_pool_held_bytes(pool), 32 << 20));
    rk_pool_destroy(pool);
}

Test(grpc_pool, refuses_sizes_that_overflow)
{
    struct rk_pool *pool = rk_pool_create();
    cr_expect(rk_pool_alloc(pool, SIZE_MAX) == NULL);
    cr_expect(rk_pool_alloc(pool, SIZE_MAX - 15) == NULL);
    rk_pool_free(pool, NULL);
    rk_pool_destroy(pool);
    rk_pool_destroy(NULL);
}
