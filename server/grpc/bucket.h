/* A token bucket: how much of something a peer may do at once, refilled with time. */
#ifndef RANKD_SERVER_GRPC_BUCKET_H
#define RANKD_SERVER_GRPC_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct rk_bucket {
    uint32_t capacity, tokens; /* one second refills the whole capacity */
    uint64_t filled_us;        /* until when time has been turned into tokens */
};

/* Full at now_us. A capacity of 0 gives nothing, ever. */
void rk_bucket_init(struct rk_bucket *bucket, uint32_t capacity, uint64_t now_us);

/* False when there is no token left. */
bool rk_bucket_take(struct rk_bucket *bucket, uint64_t now_us);

/* All of them or none; more than the capacity count as the capacity. */
bool rk_bucket_take_many(struct rk_bucket *bucket, uint64_t tokens, uint64_t now_us);

/* Credit for honest work; never above the capacity. */
void rk_bucket_give(struct rk_bucket *bucket, uint32_t tokens);

#endif
