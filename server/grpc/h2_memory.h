/* nghttp2's memory: blocks of a pool, kept in a list so that all of them can be taken back at once. nghttp2 1.52 frees
 * some things twice when it cleans up after an allocation has failed; whoever takes the memory back this way need not
 * ask it to. */
#ifndef RANKD_SERVER_GRPC_H2_MEMORY_H
#define RANKD_SERVER_GRPC_H2_MEMORY_H

#include <nghttp2/nghttp2.h>

struct rk_pool;
struct rk_h2_block;

struct rk_h2_memory {
    struct rk_pool *pool;
    struct rk_h2_block *blocks;
};

/* For nghttp2_session_*_new3; `memory` must outlive the session. */
nghttp2_mem rk_h2_memory_for(struct rk_h2_memory *memory);

/* Instead of nghttp2_session_del: the session and everything that it holds is gone. */
void rk_h2_memory_take_back(struct rk_h2_memory *memory);

#endif
