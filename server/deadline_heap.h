/* Waiting jobs, the one that is due first (job->due_us) on top; among those due together, the first to come. Bounded:
 * all memory is taken when it is made. A job knows its place (job->place), so that it can leave from anywhere. */
#ifndef RANKD_SERVER_DEADLINE_HEAP_H
#define RANKD_SERVER_DEADLINE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "server/job.h"

struct rk_deadline_heap {
    uint32_t num_jobs, capacity;
    struct rk_heap_entry {
        uint64_t due_us, order;
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

/* The work (job->work_ns) that is due by then. Every job that is looked at counts *looks down; at 0 the sum is not
 * whole. */
uint64_t rk_deadline_heap_work_by(const struct rk_deadline_heap *heap, uint64_t due_us, uint32_t *looks);

/* Is a to come before b? */
bool rk_heap_entry_before(const struct rk_heap_entry *a, const struct rk_heap_entry *b);

#endif
