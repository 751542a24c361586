/* The queue and the batches that are made of it, with jobs that have no call. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/queue.h"

#define MAX_BATCH 16
#define FAR_US    (rk_clock_us() + 1000000000u)

static const struct rk_model_spec spec = {.num_heads = 2};
static const struct rk_served_model models[2] = {{.index = 0, .spec = &spec}, {.index = 1, .spec = &spec}};
static atomic_uint num_settled;

static void settled(struct rk_job *job)
{
    (void)job;
    atomic_fetch_add(&num_settled, 1);
}

static struct rk_queue *make_queue(uint32_t max_jobs)
{
    struct rk_queue *queue = NULL;
    struct rk_queue_config config = {.num_models = 2, .max_jobs = max_jobs, .max_batch = MAX_BATCH};
    cr_assert_eq(rk_queue_create(&config, &queue, NULL), RK_OK);
    atomic_store(&num_settled, 0);
    return queue;
}

static void init_job(struct rk_job *job, uint32_t model, uint32_t num_candidates, uint64_t deadline_us)
{
    memset(job, 0, sizeof *job);
    job->model = &models[model];
    job->request.num_candidates = num_candidates;
    job->deadline_us = deadline_us;
    job->settled = settled;
}

static enum rk_status push(struct rk_queue *queue, struct rk_job *job)
{
    return rk_queue_push(queue, job, rk_clock_us());
}

Test(queue, small_requests_of_one_model_share_a_batch_in_order)
{
    struct rk_queue *queue = make_queue(100);
    struct rk_batch batch;
    struct rk_job jobs[3];
    uint32_t model;
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    for (uint32_t i = 0; i < 3; i++) {
        init_job(&jobs[i], 0, i + 1, UINT64_MAX);
        cr_assert_eq(push(queue, &jobs[i]), RK_OK);
    }
    cr_expect_eq(rk_queue_depth(queue), 3);
    cr_assert(rk_queue_take(queue, &batch, &model));
    cr_expect_eq(model, 0);
    cr_expect_eq(batch.num_slices, 3);
    cr_expect_eq(batch.num_candidates, 6);
    for (uint32_t i = 0; i < 3; i++)
        cr_expect_eq(batch.jobs[i], &jobs[i]);
    rk_batch_settle(&batch, RK_OK);
    cr_expect_eq(atomic_load(&num_settled), 3);
    cr_expect_eq(rk_queue_depth(queue), 0);
    rk_batch_deinit(&batch);
    rk_queue_destroy(queue);
}

Test(queue, models_take_turns_and_never_share_a_batch)
{
    struct rk_queue *queue = make_queue(100);
    struct rk_batch batch;
    struct rk_job jobs[4];
    uint32_t model, order[2];
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    for (uint32_t i = 0; i < 4; i++) {
        init_job(&jobs[i], i % 2, 1, UINT64_MAX);
        cr_assert_eq(push(queue, &jobs[i]), RK_OK);
    }
    for (uint32_t i = 0; i < 2; i++) {
        cr_assert(rk_queue_take(queue, &batch, &model));
        cr_expect_eq(batch.num_slices, 2, "%u slices", batch.num_slices);
        for (uint32_t s = 0; s < batch.num_slices; s++)
            cr_expect_eq(batch.jobs[s]->model->index, model);
        order[i] = model;
        rk_batch_settle(&batch, RK_OK);
    }
    cr_expect_neq(order[0], order[1]);
    rk_batch_deinit(&batch);
    rk_queue_destroy(queue);
}

Test(queue, slices_of_a_large_request_are_even_and_cover_it_once)
{
    for (uint32_t candidates = 1; candidates <= 5 * MAX_BATCH + 1; candidates++) {
        struct rk_queue *queue = make_queue(100);
        struct rk_batch batch;
        struct rk_job job;
        uint32_t model, next = 0, least = UINT32_MAX, most = 0;
        float logits[2 * (5 * MAX_BATCH + 1)];
        cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
        init_job(&job, 0, candidates, UINT64_MAX);
        job.logits = logits;
        cr_assert_eq(push(queue, &job), RK_OK);
        while (next < candidates) {
            cr_assert_eq(atomic_load(&num_settled), 0, "settled after %u of %u", next, candidates);
            cr_assert(rk_queue_take(queue, &batch, &model));
            cr_assert_eq(batch.num_slices, 1);
            cr_assert_eq(batch.slices[0].first, next);
            cr_assert_eq(batch.slices[0].logits, logits + 2 * next);
            cr_assert_leq(batch.slices[0].count, MAX_BATCH);
            next += batch.slices[0].count;
            least = batch.slices[0].count < least ? batch.slices[0].count : least;
            most = batch.slices[0].count > most ? batch.slices[0].count : most;
            rk_batch_settle(&batch, RK_OK);
        }
        cr_assert_eq(next, candidates);
        cr_assert_eq(atomic_load(&num_settled), 1);
        uint32_t parts = (candidates + MAX_BATCH - 1) / MAX_BATCH;
        cr_assert_leq(most - least, parts, "%u candidates: slices of %u and of %u", candidates, most, least);
        rk_batch_deinit(&batch);
        rk_queue_destroy(queue);
    }
}

Test(queue, a_full_lane_refuses_and_leaves_the_other_models_alone)
{
    struct rk_queue *queue = make_queue(2);
    struct rk_job jobs[4];
    for (uint32_t i = 0; i < 3; i++)
        init_job(&jobs[i], 0, 1, UINT64_MAX);
    init_job(&jobs[3], 1, 1, UINT64_MAX);
    cr_expect_eq(push(queue, &jobs[0]), RK_OK);
    cr_expect_eq(push(queue, &jobs[1]), RK_OK);
    cr_expect_eq(push(queue, &jobs[2]), RK_EXHAUSTED);
    cr_expect_eq(push(queue, &jobs[3]), RK_OK);
    rk_queue_destroy(queue);
}

Test(queue, an_expired_request_is_refused_at_the_door)
{
    struct rk_queue *queue = make_queue(2);
    struct rk_job job;
    init_job(&job, 0, 1, rk_clock_us());
    cr_expect_eq(push(queue, &job), RK_DEADLINE);
    cr_expect_eq(rk_queue_depth(queue), 0);
    rk_queue_destroy(queue);
}

Test(queue, requests_that_expire_or_are_cancelled_while_they_wait_are_never_computed)
{
    struct rk_queue *queue = make_queue(100);
    struct rk_batch batch;
    struct rk_job jobs[4];
    uint32_t model;
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    for (uint32_t i = 0; i < 4; i++)
        init_job(&jobs[i], 0, 2, FAR_US);
    jobs[1].deadline_us = 1000;
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(rk_queue_push(queue, &jobs[i], 0), RK_OK); /* at a time when none was late */
    atomic_store(&jobs[2].cancelled, true);
    cr_assert(rk_queue_take(queue, &batch, &model));
    cr_expect_eq(batch.num_slices, 2);
    cr_expect_eq(batch.jobs[0], &jobs[0]);
    cr_expect_eq(batch.jobs[1], &jobs[3]);
    rk_batch_settle_dropped(&batch);
    cr_expect_eq(atomic_load(&num_settled), 2);
    cr_expect_eq(atomic_load(&jobs[1].status), RK_DEADLINE);
    cr_expect_eq(atomic_load(&jobs[2].status), RK_CANCELLED);
    rk_batch_settle(&batch, RK_OK);
    cr_expect_eq(atomic_load(&num_settled), 4);
    cr_expect_eq(atomic_load(&jobs[0].status), RK_OK);
    rk_batch_deinit(&batch);
    rk_queue_destroy(queue);
}

Test(queue, a_large_request_that_is_cancelled_half_way_settles_once)
{
    struct rk_queue *queue = make_queue(100);
    struct rk_batch first, second;
    struct rk_job job;
    uint32_t model;
    cr_assert_eq(rk_batch_init(&first, MAX_BATCH, NULL), RK_OK);
    cr_assert_eq(rk_batch_init(&second, MAX_BATCH, NULL), RK_OK);
    init_job(&job, 0, 3 * MAX_BATCH, UINT64_MAX);
    cr_assert_eq(push(queue, &job), RK_OK);
    cr_assert(rk_queue_take(queue, &first, &model));
    atomic_store(&job.cancelled, true);
    cr_assert(rk_queue_take(queue, &second, &model));
    cr_expect_eq(second.num_slices, 0);
    rk_batch_settle_dropped(&second);
    cr_expect_eq(atomic_load(&num_settled), 0, "settled while a slice is still being computed");
    rk_batch_settle(&first, RK_OK);
    cr_expect_eq(atomic_load(&num_settled), 1);
    cr_expect_eq(atomic_load(&job.status), RK_CANCELLED);
    rk_batch_deinit(&first);
    rk_batch_deinit(&second);
    rk_queue_destroy(queue);
}

Test(queue, the_first_failure_of_a_request_is_the_one_that_counts)
{
    struct rk_job job;
    init_job(&job, 0, 3, UINT64_MAX);
    atomic_store(&num_settled, 0);
    atomic_store(&job.unsettled, 3);
    rk_job_settle(&job, 1, RK_OK);
    rk_job_settle(&job, 1, RK_CORRUPT);
    rk_job_settle(&job, 1, RK_INTERNAL);
    cr_expect_eq(atomic_load(&num_settled), 1);
    cr_expect_eq(atomic_load(&job.status), RK_CORRUPT);
}

/* ---- threads ---- */

#define JOBS 20000

struct crew {
    struct rk_queue *queue;
    atomic_uint candidates;
};

static void *work(void *argument)
{
    struct crew *crew = argument;
    struct rk_batch batch;
    uint32_t model;
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    while (rk_queue_take(crew->queue, &batch, &model)) {
        rk_batch_settle_dropped(&batch);
        for (uint32_t i = 0; i < batch.num_slices; i++)
            atomic_fetch_add(&crew->candidates, batch.slices[i].count);
        rk_batch_settle(&batch, RK_OK);
    }
    rk_batch_deinit(&batch);
    return NULL;
}

Test(queue, many_workers_settle_every_job_once_and_leave_when_it_stops, .timeout = 120)
{
    const char *given = getenv("RANKD_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid();
    printf("seed %u\n", seed);
    struct crew crew = {.queue = make_queue(JOBS)};
    struct rk_job *jobs = calloc(JOBS, sizeof *jobs);
    float *logits = calloc(2 * 4 * MAX_BATCH, sizeof *logits);
    pthread_t threads[4];
    unsigned expected = 0;
    cr_assert(jobs != NULL && logits != NULL);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &crew), 0);
    for (uint32_t i = 0; i < JOBS; i++) {
        init_job(&jobs[i], (uint32_t)rand_r(&seed) % 2, 1 + (uint32_t)rand_r(&seed) % (4 * MAX_BATCH), UINT64_MAX);
        jobs[i].logits = logits;
        expected += jobs[i].request.num_candidates;
        cr_assert_eq(push(crew.queue, &jobs[i]), RK_OK);
    }
    rk_queue_stop(crew.queue);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(atomic_load(&num_settled), JOBS);
    cr_expect_eq(atomic_load(&crew.candidates), expected);
    struct rk_job late;
    init_job(&late, 0, 1, UINT64_MAX);
    cr_expect_eq(push(crew.queue, &late), RK_CANCELLED);
    rk_queue_destroy(crew.queue);
    free(logits);
    free(jobs);
}
