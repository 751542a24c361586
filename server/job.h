/* A job: one Rank request from the moment it was decoded until its answer left.
 *
 *   event loop: acquire, fill, enqueue -> workers: score slices; the last one calls `settled` -> event loop: deliver,
 * release
 *
 * A job outlives its call: when the client goes away the loop drops the call pointer and sets `cancelled`, and the job
 * comes back to the pool when no worker has a slice of it any more. Jobs and their arenas are recycled by the loop that
 * owns the pool. */
#ifndef RANKD_SERVER_JOB_H
#define RANKD_SERVER_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/request.h"
#include "quant/base/arena.h"
#include "quant/base/status.h"
#include "server/mailbox.h"
#include "server/refusal.h"
#include "server/registry.h"

struct rk_call;
struct rk_job_cost;
struct rk_job_pool;

struct rk_job {
    struct rk_mail mail; /* first: how the settled job travels back to its loop */
    struct rk_job *next; /* in the express lane, in a batch's dropped list or in the pool */
    struct rk_arena arena;

    /* Set by the loop before the job is queued, constant from then on. */
    const struct rk_served_model *model;
    struct rk_request request;
    float *logits;                       /* [num_candidates][num_heads] */
    uint64_t deadline_us;                /* monotonic; UINT64_MAX: none */
    uint32_t priority;                   /* which class it is of (server/priorities.h) */
    uint64_t client, connection;         /* whose it is, for fair shares: hashes */
    size_t bytes;                        /* of memory that it takes, for the queue's bound */
    void (*settled)(struct rk_job *job); /* by the thread that accounted for the last candidate */
    void *service;                       /* whose job it is */
    void *details;                       /* the service's own, in the arena */
    struct rk_job_cost *cost;            /* NULL unless the caller asked for it (server/job_cost.h) */

    /* Under the queue's lock. */
    uint32_t taken;               /* candidates given to workers so far */
    uint32_t place;               /* where it waits in its heap (server/deadline_heap.h); 0: it does not */
    struct rk_job *older, *newer; /* of its class, while it waits */
    uint64_t queued_us;           /* since when */
    uint64_t due_us;  /* what it is ordered by: its deadline, later for a client that is ahead of its share */
    uint64_t work_ns; /* of candidates not taken yet, predicted when it came */
    struct rk_job_refusal refusal; /* why it was not taken, or sent away while it waited */

    /* Shared between the loop and the workers. */
    _Atomic uint32_t unsettled; /* candidates neither scored nor dropped */
    _Atomic int status;         /* enum rk_status: the first failure */
    atomic_bool cancelled;

    /* The loop's alone. */
    struct rk_call *call; /* NULL once the client has gone */
};

/* A filled job is about to be queued: none of its candidates is taken or settled. */
void rk_job_begin(struct rk_job *job);

/* Its client has gone, or its deadline has passed. */
bool rk_job_unwanted(const struct rk_job *job, uint64_t now_us);

/* Accounts for `count` candidates; the call that accounts for the last one runs job->settled. The job may be gone
 * afterwards. */
void rk_job_settle(struct rk_job *job, uint32_t count, enum rk_status status);

/* One event loop's jobs. `ready` of them are made at once, each with one chunk of arena, so that a warm loop needs no
 * memory. */
struct rk_job_pool *rk_job_pool_create(uint32_t ready);
void rk_job_pool_destroy(struct rk_job_pool *pool); /* every job must have been released */

/* A job with an empty arena, everything else zero. NULL: out of memory. */
struct rk_job *rk_job_acquire(struct rk_job_pool *pool);
void rk_job_release(struct rk_job_pool *pool, struct rk_job *job);
uint32_t rk_job_pool_in_use(const struct rk_job_pool *pool);

#endif
