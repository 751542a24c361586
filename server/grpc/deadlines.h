/* The calls of one session that have a deadline, earliest first. */
#ifndef RANKD_SERVER_GRPC_DEADLINES_H
#define RANKD_SERVER_GRPC_DEADLINES_H

#include <stdbool.h>
#include <stddef.h>

struct rk_call;
struct rk_pool;

#define RK_NO_DEADLINE_INDEX ((size_t)-1)

struct rk_deadlines {
    struct rk_call **heap; /* binary min-heap; every call knows its index */
    size_t count, capacity;
};

void rk_deadlines_deinit(struct rk_deadlines *deadlines, struct rk_pool *pool);

/* False when there is no memory. */
bool rk_deadlines_add(struct rk_deadlines *deadlines, struct rk_pool *pool, struct rk_call *call);
void rk_deadlines_remove(struct rk_deadlines *deadlines, struct rk_call *call); /* nothing when it is not in */

/* NULL when there is none. */
struct rk_call *rk_deadlines_first(const struct rk_deadlines *deadlines);

#endif
