/* A binary heap in an array. Keys stand in the entries, so that sifting reads no job, and tells only those that move
 * where they are. Its owner locks. */
#include "server/deadline_heap.h"

#include <stdlib.h>

enum rk_status rk_deadline_heap_init(struct rk_deadline_heap *heap, uint32_t capacity, struct rk_error *error)
{
    *heap = (struct rk_deadline_heap){.capacity = capacity};
    heap->entries = calloc((size_t)capacity + 1, sizeof *heap->entries);
    if (heap->entries == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %u waiting requests", capacity);
    return RK_OK;
}

void rk_deadline_heap_deinit(struct rk_deadline_heap *heap)
{
    free(heap->entries);
    *heap = (struct rk_deadline_heap){0};
}

bool rk_heap_entry_before(const struct rk_heap_entry *a, const struct rk_heap_entry *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void put(struct rk_deadline_heap *heap, uint32_t place, struct rk_heap_entry entry)
{
    heap->entries[place] = entry;
    entry.job->place = place;
}

/* Finds the entry's place between `place`, which is free, and the top; then puts it there. */
static void sift_up(struct rk_deadline_heap *heap, uint32_t place, struct rk_heap_entry entry)
{
    for (; place > 1 && rk_heap_entry_before(&entry, &heap->entries[place / 2]); place /= 2)
        put(heap, place, heap->entries[place / 2]);
    put(heap, place, entry);
}

static void sift_down(struct rk_deadline_heap *heap, uint32_t place, struct rk_heap_entry entry)
{
    for (uint32_t child; (child = 2 * place) <= heap->num_jobs; place = child) {
        if (child < heap->num_jobs && rk_heap_entry_before(&heap->entries[child + 1], &heap->entries[child]))
            child++;
        if (!rk_heap_entry_before(&heap->entries[child], &entry))
            break;
        put(heap, place, heap->entries[child]);
    }
    put(heap, place, entry);
}

bool rk_deadline_heap_add(struct rk_deadline_heap *heap, struct rk_job *job, uint64_t order)
{
    if (heap->num_jobs == heap->capacity)
        return false;
    const struct rk_heap_entry entry = {.due_us = job->due_us, .order = order, .job = job};
    sift_up(heap, ++heap->num_jobs, entry);
    return true;
}

const struct rk_heap_entry *rk_deadline_heap_top(const struct rk_deadline_heap *heap)
{
    return heap->num_jobs > 0 ? &heap->entries[1] : NULL;
}

void rk_deadline_heap_remove(struct rk_deadline_heap *heap, struct rk_job *job)
{
    const uint32_t place = job->place;
    const struct rk_heap_entry last = heap->entries[heap->num_jobs--];
    job->place = 0;
    if (last.job == job)
        return;
    if (place > 1 && rk_heap_entry_before(&last, &heap->entries[place / 2]))
        sift_up(heap, place, last);
    else
        sift_down(heap, place, last);
}

/* Nothing below an entry is due before it. */
static uint64_t work_below(const struct rk_deadline_heap *heap, uint32_t place, uint64_t due_us, uint32_t *looks)
{
    if (place > heap->num_jobs || *looks == 0)
        return 0;
    (*looks)--;
    if (heap->entries[place].due_us > due_us)
        return 0;
    return heap->entries[place].job->work_ns + work_below(heap, 2 * place, due_us, looks) +
           work_below(heap, 2 * place + 1, due_us, looks);
}

uint64_t rk_deadline_heap_work_by(const struct rk_deadline_heap *heap, uint64_t due_us, uint32_t *looks)
{
    return work_below(heap, 1, due_us, looks);
}
