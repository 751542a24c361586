/* Waiting jobs, the one with the earliest deadline on top; among equal deadlines, and those without one, the first to
 * come. Bounded: all memory is taken when it is made. A job knows its place (job->place), so that it can leave from
 * anywhere. */
#ifndef RANKD_SERVER_DEADLINE_HEAP_H
#define RANKD_SERVER_DEADLINE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "server/job.h"

struct rk_deadline_heap {
    uint32_t num_jobs, capacity;
    struct rk_heap_entry {
        uint64_t deadline_us, order;
        struct rk_job *job;
    } * entries; /* [1 + capacity]: the children of i are 2 i and 2 i + 1; 0 is free, so that a place is never 0 */
};

enum rk_status rk_deadline_heap_init(struct rk_deadline_heap *heap, uint32_t capacity, struct rk_error *error);
void rk_deadline_heap_deinit(struct rk_deadline_heap *heap);

/* order: higher than that of all that came before. False: the heap is full. */
bool rk_deadline_heap_add(struct rk_deadline_heap *heap, struct rk_job *job, uint64_t order);

const struct rk_heap_entry *rk_deadline_heap_top(const struct rk_deadline_heap *heap); /* NULL: empty */

/* It must be in this heap. */
void rk_deadline_heap_remove(struct rk_deadline_heap *heap, struct rk_job *job);

/* Is a to come before b? */
bool rk_heap_entry_before(const struct rk_heap_entry *a, const struct rk_heap_entry *b);

#endif
