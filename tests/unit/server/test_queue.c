/* The queue and its threads, with jobs that have no call. What it gives to whom is test_schedule.c's. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "server/clock.h"
#include "server/queue.h"
#include "tests/unit/random.h"

#define MAX_BATCH 16

static const struct rk_model_spec spec = {.num_heads = 2};
#define COST                                                                                                           \
    {                                                                                                                  \
        .num_points = 2, .candidates = {1, MAX_BATCH}, .ns = {1000, 1000 * MAX_BATCH}, .full = MAX_BATCH, .least = 1   \
    }
static const struct rk_served_model models[2] = {{.index = 0, .spec = &spec, .cost = COST},
                                                 {.index = 1, .spec = &spec, .cost = COST}};
static const struct rk_priorities priorities = {.count = 2, .classes = {{"interactive", 8}, {"batch", 1}}};
static atomic_uint num_settled;

static void settled(struct rk_job *job)
{
    (void)job;
    atomic_fetch_add(&num_settled, 1);
}

static struct rk_queue *make_queue(uint32_t max_jobs)
{
    struct rk_queue *queue = NULL;
    const struct rk_schedule_config config = {.models = models,
                                              .num_models = 2,
                                              .priorities = &priorities,
                                              .max_jobs = max_jobs,
                                              .max_batch = MAX_BATCH,
                                              .num_workers = 4};
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

Test(queue, what_is_pushed_is_taken_and_counted_while_it_waits)
{
    struct rk_queue *queue = make_queue(100);
    struct rk_batch batch;
    struct rk_job jobs[3];
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    for (uint32_t i = 0; i < 3; i++) {
        init_job(&jobs[i], 0, i + 1, UINT64_MAX);
        cr_assert_eq(push(queue, &jobs[i]), RK_OK);
    }
    cr_expect_eq(rk_queue_num_jobs(queue), 3);
    cr_assert(rk_queue_take(queue, &batch));
    cr_expect_eq(batch.num_slices, 3);
    cr_expect_eq(rk_queue_num_jobs(queue), 0);
    rk_batch_settle(&batch, RK_OK);
    cr_expect_eq(atomic_load(&num_settled), 3);
    rk_batch_deinit(&batch);
    rk_queue_destroy(queue);
}

Test(queue, an_expired_request_is_refused_at_the_door_and_counted)
{
    struct rk_queue *queue = make_queue(2);
    struct rk_job job;
    init_job(&job, 0, 1, rk_clock_us());
    cr_expect_eq(push(queue, &job), RK_DEADLINE);
    cr_expect_eq(rk_queue_num_jobs(queue), 0);
    cr_expect_eq(rk_queue_num_late(queue), 1);
    rk_queue_destroy(queue);
}

Test(queue, a_request_that_is_cancelled_while_it_waits_is_settled_at_once)
{
    struct rk_queue *queue = make_queue(2);
    struct rk_job jobs[2];
    for (int i = 0; i < 2; i++) {
        init_job(&jobs[i], 0, 3, UINT64_MAX);
        cr_assert_eq(push(queue, &jobs[i]), RK_OK);
    }
    rk_queue_cancel(queue, &jobs[0]);
    cr_expect_eq(atomic_load(&num_settled), 1);
    cr_expect_eq(atomic_load(&jobs[0].status), RK_CANCELLED);
    cr_expect_eq(rk_queue_num_jobs(queue), 1);
    cr_expect_eq(rk_queue_num_late(queue), 0);
    rk_queue_cancel(queue, &jobs[0]); /* it is nowhere any more */
    cr_expect_eq(atomic_load(&num_settled), 1);
    rk_queue_cancel(queue, &jobs[1]);
    cr_expect_eq(rk_queue_num_jobs(queue), 0);
    rk_queue_destroy(queue);
}

Test(queue, a_large_request_that_is_cancelled_half_way_settles_once)
{
    struct rk_queue *queue = make_queue(100);
    struct rk_batch batch;
    struct rk_job job;
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    init_job(&job, 0, 3 * MAX_BATCH, UINT64_MAX);
    cr_assert_eq(push(queue, &job), RK_OK);
    cr_assert(rk_queue_take(queue, &batch));
    rk_queue_cancel(queue, &job);
    cr_expect_eq(atomic_load(&num_settled), 0, "settled while a slice is still being computed");
    rk_batch_settle(&batch, RK_OK);
    cr_expect_eq(atomic_load(&num_settled), 1);
    cr_expect_eq(atomic_load(&job.status), RK_CANCELLED);
    cr_expect_eq(rk_queue_num_jobs(queue), 0);
    rk_batch_deinit(&batch);
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
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    while (rk_queue_take(crew->queue, &batch)) {
        rk_batch_settle_dropped(&batch);
        for (uint32_t i = 0; i < batch.num_slices; i++)
            atomic_fetch_add(&crew->candidates, batch.slices[i].count);
        rk_batch_settle(&batch, RK_OK);
        batch.took_ns = 1;
    }
    rk_batch_deinit(&batch);
    return NULL;
}

Test(queue, many_workers_settle_every_job_once_and_leave_when_it_stops, .timeout = 120)
{
    struct random random = random_from_seed();
    struct crew crew = {.queue = make_queue(JOBS)};
    struct rk_job *jobs = calloc(JOBS, sizeof *jobs);
    float *logits = calloc(2 * 4 * MAX_BATCH, sizeof *logits);
    pthread_t threads[4];
    unsigned least = 0, most = 0;
    cr_assert(jobs != NULL && logits != NULL);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, work, &crew), 0);
    for (uint32_t i = 0; i < JOBS; i++) {
        const uint64_t deadline_us = random_below(&random, 2) ? UINT64_MAX : rk_clock_us() + 600000000u;
        init_job(&jobs[i], (uint32_t)random_below(&random, 2), (uint32_t)random_between(&random, 1, 4 * MAX_BATCH),
                 deadline_us);
        jobs[i].logits = logits;
        jobs[i].priority = (uint32_t)random_below(&random, 2);
        cr_assert_eq(push(crew.queue, &jobs[i]), RK_OK);
        most += jobs[i].request.num_candidates;
        if (random_below(&random, 4) == 0)
            rk_queue_cancel(crew.queue, &jobs[i]); /* all of it, some of it or nothing is still there */
        else
            least += jobs[i].request.num_candidates;
    }
    rk_queue_stop(crew.queue);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(atomic_load(&num_settled), JOBS, "%u", atomic_load(&num_settled));
    cr_expect(atomic_load(&crew.candidates) >= least);
    cr_expect(atomic_load(&crew.candidates) <= most);
    struct rk_job late;
    init_job(&late, 0, 1, UINT64_MAX);
    cr_expect_eq(push(crew.queue, &late), RK_CANCELLED);
    rk_queue_destroy(crew.queue);
    free(logits);
    free(jobs);
}
