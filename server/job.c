/* Recycled jobs: a stack of free ones per event loop, the most recently used on top because its memory is warm. Acquire
 * and release are the owning loop's; rk_job_settle is called by workers, and orders their writes (logits, answer)
 * before whoever settles last. */
#include "server/job.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES (128u << 10)
#define ARENA_KEEP_BYTES  (1u << 20) /* an arena that a big request has swollen shrinks back to this */
#define MAX_FREE_JOBS     1024

struct rk_job_pool {
    struct rk_job *free_jobs;
    uint32_t num_free, in_use;
};

void rk_job_begin(struct rk_job *job)
{
    atomic_store_explicit(&job->unsettled, job->request.num_candidates, memory_order_relaxed);
    job->taken = 0;
    job->place = 0;
}

bool rk_job_unwanted(const struct rk_job *job, uint64_t now_us)
{
    return atomic_load_explicit(&job->cancelled, memory_order_relaxed) || job->deadline_us <= now_us;
}

void rk_job_settle(struct rk_job *job, uint32_t count, enum rk_status status)
{
    if (status != RK_OK) {
        int none = RK_OK;
        atomic_compare_exchange_strong_explicit(&job->status, &none, (int)status, memory_order_relaxed,
                                                memory_order_relaxed);
    }
    if (atomic_fetch_sub_explicit(&job->unsettled, count, memory_order_acq_rel) == count)
        job->settled(job);
}

static void free_job(struct rk_job *job)
{
    rk_arena_deinit(&job->arena);
    free(job);
}

static void push(struct rk_job_pool *pool, struct rk_job *job)
{
    job->next = pool->free_jobs;
    pool->free_jobs = job;
    pool->num_free++;
}

struct rk_job_pool *rk_job_pool_create(uint32_t ready)
{
    struct rk_job_pool *pool = calloc(1, sizeof *pool);
    for (uint32_t i = 0; pool != NULL && i < ready; i++) {
        struct rk_job *job = calloc(1, sizeof *job);
        if (job == NULL)
            break;
        rk_arena_init(&job->arena, ARENA_CHUNK_BYTES);
        rk_arena_alloc(&job->arena, 0); /* takes the first chunk now */
        push(pool, job);
    }
    return pool;
}

void rk_job_pool_destroy(struct rk_job_pool *pool)
{
    if (pool == NULL)
        return;
    while (pool->free_jobs != NULL) {
        struct rk_job *next = pool->free_jobs->next;
        free_job(pool->free_jobs);
        pool->free_jobs = next;
    }
    free(pool);
}

struct rk_job *rk_job_acquire(struct rk_job_pool *pool)
{
    struct rk_job *job = pool->free_jobs;
    if (job != NULL) {
        pool->free_jobs = job->next;
        pool->num_free--;
    } else {
        job = calloc(1, sizeof *job);
        if (job == NULL)
            return NULL;
        rk_arena_init(&job->arena, ARENA_CHUNK_BYTES);
    }
    pool->in_use++;
    struct rk_arena arena = job->arena;
    memset(job, 0, sizeof *job);
    job->arena = arena;
    rk_arena_reset(&job->arena, ARENA_KEEP_BYTES);
    return job;
}

void rk_job_release(struct rk_job_pool *pool, struct rk_job *job)
{
    pool->in_use--;
    if (pool->num_free >= MAX_FREE_JOBS) {
        free_job(job);
        return;
    }
    rk_arena_reset(&job->arena, ARENA_KEEP_BYTES);
    push(pool, job);
}

uint32_t rk_job_pool_in_use(const struct rk_job_pool *pool)
{
    return pool->in_use;
}
