/* A binary min-heap by deadline: heap[i] is no later than heap[2i + 1] and heap[2i + 2]. A call carries its index, so
 * that a finished call leaves in logarithmic time. The session's thread. */
#include "server/grpc/deadlines.h"

#include "server/grpc/call.h"
#include "server/grpc/pool.h"

#define FIRST_CAPACITY 64

void rk_deadlines_deinit(struct rk_deadlines *deadlines, struct rk_pool *pool)
{
    rk_pool_free(pool, deadlines->heap);
    *deadlines = (struct rk_deadlines){0};
}

static void put(struct rk_deadlines *deadlines, size_t index, struct rk_call *call)
{
    deadlines->heap[index] = call;
    call->deadline_index = index;
}

static void sift_up(struct rk_deadlines *deadlines, size_t index, struct rk_call *call)
{
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (deadlines->heap[parent]->deadline_us <= call->deadline_us)
            break;
        put(deadlines, index, deadlines->heap[parent]);
        index = parent;
    }
    put(deadlines, index, call);
}

static void sift_down(struct rk_deadlines *deadlines, size_t index, struct rk_call *call)
{
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= deadlines->count)
            break;
        struct rk_call **heap = deadlines->heap;
        if (child + 1 < deadlines->count && heap[child + 1]->deadline_us < heap[child]->deadline_us)
            child++;
        if (call->deadline_us <= heap[child]->deadline_us)
            break;
        put(deadlines, index, heap[child]);
        index = child;
    }
    put(deadlines, index, call);
}

bool rk_deadlines_add(struct rk_deadlines *deadlines, struct rk_pool *pool, struct rk_call *call)
{
    if (deadlines->count == deadlines->capacity) {
        size_t capacity = deadlines->capacity == 0 ? FIRST_CAPACITY : 2 * deadlines->capacity;
        struct rk_call **heap = rk_pool_realloc(pool, deadlines->heap, capacity * sizeof(struct rk_call *));
        if (heap == NULL)
            return false;
        deadlines->heap = heap;
        deadlines->capacity = capacity;
    }
    sift_up(deadlines, deadlines->count++, call);
    return true;
}

void rk_deadlines_remove(struct rk_deadlines *deadlines, struct rk_call *call)
{
    size_t index = call->deadline_index;
    if (index == RK_NO_DEADLINE_INDEX)
        return;
    call->deadline_index = RK_NO_DEADLINE_INDEX;
    struct rk_call *last = deadlines->heap[--deadlines->count];
    if (last == call)
        return;
    if (index > 0 && deadlines->heap[(index - 1) / 2]->deadline_us > last->deadline_us)
        sift_up(deadlines, index, last);
    else
        sift_down(deadlines, index, last);
}

struct rk_call *rk_deadlines_first(const struct rk_deadlines *deadlines)
{
    return deadlines->count == 0 ? NULL : deadlines->heap[0];
}
