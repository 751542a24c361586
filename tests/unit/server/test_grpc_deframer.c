/* Messages out of a stream of bytes, whatever its cuts. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc_peer.h"
#include "server/grpc/deframer.h"

Test(grpc_deframer, finds_the_messages_of_a_stream_cut_anywhere)
{
    uint64_t seed = test_seed();
    struct rk_pool *pool = rk_pool_create();
    for (int round = 0; round < 300; round++) {
        static uint8_t stream[200000];
        size_t lengths[8], total = 0;
        for (int m = 0; m < 8; m++) {
            lengths[m] = test_random(&seed) % ((size_t)1 << (test_random(&seed) % 15));
            const uint8_t prefix[5] = {0, 0, 0, (uint8_t)(lengths[m] >> 8), (uint8_t)lengths[m]};
            memcpy(stream + total, prefix, 5);
            memset(stream + total + 5, m, lengths[m]);
            total += 5 + lengths[m];
        }
        struct rk_deframer deframer = {0};
        uint64_t budget = 100000;
        int found = 0;
        for (size_t at = 0; at < total;) {
            size_t part = 1 + test_random(&seed) % ((size_t)1 << (test_random(&seed) % 15));
            part = part < total - at ? part : total - at;
            for (size_t end = at + part; at < end;) {
                size_t taken;
                enum rk_deframed what =
                    rk_deframer_feed(&deframer, pool, 32768, &budget, stream + at, end - at, &taken);
                at += taken;
                if (what == RK_DEFRAMED_MORE)
                    continue;
                cr_assert(eq(int, what, RK_DEFRAMED_MESSAGE));
                cr_assert(eq(sz, deframer.length, lengths[found]));
                for (size_t b = 0; b < deframer.length; b++)
                    cr_assert(eq(u8, deframer.message[b], (uint8_t)found));
                found++;
                rk_deframer_next(&deframer, pool, &budget);
            }
        }
        cr_assert(eq(int, found, 8));
        cr_assert(rk_deframer_at_boundary(&deframer));
        cr_assert(eq(u64, budget, 100000));
    }
    rk_pool_destroy(pool);
}

Test(grpc_deframer, takes_memory_only_for_bytes_that_arrived)
{
    struct rk_pool *pool = rk_pool_create();
    struct rk_deframer deframer = {0};
    uint64_t budget = UINT64_C(1) << 40;
    static const uint8_t prefix[5] = {0, 0x7f, 0xff, 0xff, 0xff};
    size_t taken;
    cr_expect(eq(int, rk_deframer_feed(&deframer, pool, UINT32_MAX, &budget, prefix, 5, &taken), RK_DEFRAMED_MORE));
    cr_expect(eq(u64, budget, UINT64_C(1) << 40));
    cr_expect(lt(u64, (UINT64_C(1) << 40) - budget, 16384)); /* what the message holds */
    cr_expect(le(sz, rk_pool_held_bytes(pool), 16 * 8192));  /* and the blocks that the pool got along with it */
    rk_deframer_next(&deframer, pool, &budget);
    cr_expect(eq(u64, budget, UINT64_C(1) << 40));
    rk_pool_destroy(pool);
}
