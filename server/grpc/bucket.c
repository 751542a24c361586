/* Time becomes tokens when one is asked for; the remainder of a token stays in filled_us. The owner's thread. */
#include "server/grpc/bucket.h"

#define SECOND_US UINT64_C(1000000)

void rk_bucket_init(struct rk_bucket *bucket, uint32_t capacity, uint64_t now_us)
{
    *bucket = (struct rk_bucket){.capacity = capacity, .tokens = capacity, .filled_us = now_us};
}

static void refill(struct rk_bucket *bucket, uint64_t now_us)
{
    if (now_us <= bucket->filled_us)
        return;
    uint64_t elapsed_us = now_us - bucket->filled_us;
    if (elapsed_us >= SECOND_US || bucket->capacity == 0) {
        rk_bucket_init(bucket, bucket->capacity, now_us);
        return;
    }
    uint64_t tokens = elapsed_us * bucket->capacity / SECOND_US;
    rk_bucket_give(bucket, (uint32_t)tokens);
    bucket->filled_us += tokens * SECOND_US / bucket->capacity;
}

bool rk_bucket_take(struct rk_bucket *bucket, uint64_t now_us)
{
    return bucket->capacity > 0 && rk_bucket_take_many(bucket, 1, now_us);
}

bool rk_bucket_take_many(struct rk_bucket *bucket, uint64_t tokens, uint64_t now_us)
{
    const uint32_t taken = tokens < bucket->capacity ? (uint32_t)tokens : bucket->capacity;
    if (bucket->tokens < taken)
        refill(bucket, now_us);
    if (bucket->tokens < taken)
        return false;
    bucket->tokens -= taken;
    return true;
}

void rk_bucket_give(struct rk_bucket *bucket, uint32_t tokens)
{
    uint32_t room = bucket->capacity - bucket->tokens;
    bucket->tokens += tokens < room ? tokens : room;
}
