/* Who is computed next and with whom: the schedule against a clock that the tests turn. A candidate costs 100 us and a
 * batch 1 ms on its own, exactly, unless a test says otherwise. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/schedule.h"
#include "tests/unit/random.h"

#define MAX_BATCH 64
#define EACH_US   100u
#define FIXED_US  1000u
#define NOW_US    1000000000u
#define MS        1000u

static const struct rk_model_spec spec = {.num_heads = 2};
static struct rk_served_model models[2];
static struct rk_priorities priorities;
static struct rk_schedule *schedule;
static struct rk_batch batch;
static uint64_t now_us;
static unsigned num_settled;

static void settled(struct rk_job *job)
{
    (void)job;
    num_settled++;
}

static void make(const char *weights, uint32_t max_jobs, uint32_t num_workers)
{
    for (uint32_t m = 0; m < 2; m++) {
        models[m] = (struct rk_served_model){.index = m,
                                             .spec = &spec,
                                             .cost = {.num_points = 2,
                                                      .candidates = {1, MAX_BATCH},
                                                      .ns = {(FIXED_US + EACH_US) * 1000,
                                                             (FIXED_US + EACH_US * MAX_BATCH) * 1000},
                                                      .request_ns = 0}};
        rk_cost_curve_finish(&models[m].cost);
    }
    const struct rk_schedule_config config = {.models = models,
                                              .num_models = 2,
                                              .priorities = &priorities,
                                              .max_jobs = max_jobs,
                                              .max_batch = MAX_BATCH,
                                              .num_workers = num_workers};
    cr_assert_eq(rk_priorities_parse(weights, &priorities, NULL), RK_OK);
    cr_assert_eq(rk_schedule_create(&config, &schedule, NULL), RK_OK);
    cr_assert_eq(rk_batch_init(&batch, MAX_BATCH, NULL), RK_OK);
    now_us = NOW_US;
}

static void init(void)
{
    make("high=8,low=1", 100, 1);
}

static void deinit(void)
{
    rk_batch_deinit(&batch);
    rk_schedule_destroy(schedule);
}

static struct rk_job *init_job(struct rk_job *job, uint32_t model, uint32_t priority, uint32_t num_candidates,
                               uint64_t deadline_us)
{
    memset(job, 0, sizeof *job);
    job->model = &models[model];
    job->priority = priority;
    job->request.num_candidates = num_candidates;
    job->deadline_us = deadline_us;
    job->settled = settled;
    return job;
}

static void add(struct rk_job *job)
{
    cr_assert_eq(rk_schedule_add(schedule, job, now_us), RK_OK);
}

static bool fill(uint32_t num_idle)
{
    return rk_schedule_fill(schedule, &batch, now_us, num_idle);
}

/* Time passes as the batch was predicted to take it. */
static void compute(void)
{
    now_us += batch.predicted_ns / 1000;
    batch.took_ns = batch.predicted_ns;
    rk_batch_settle_dropped(&batch);
    rk_batch_settle(&batch, RK_OK);
    rk_schedule_learn(schedule, &batch);
}

static uint64_t batch_us(uint32_t num_candidates)
{
    return FIXED_US + EACH_US * num_candidates;
}

/* ---- order ---- */

Test(schedule, earlier_deadlines_come_first_and_those_without_last_as_they_came, .init = init, .fini = deinit)
{
    static const uint64_t after_ms[] = {0, 900, 500, 0, 700, 500};
    static const int expected[] = {2, 5, 4, 1, 0, 3}; /* 0: none */
    struct rk_job jobs[6];
    for (int i = 0; i < 6; i++)
        add(init_job(&jobs[i], i % 2, 0, MAX_BATCH, after_ms[i] != 0 ? NOW_US + after_ms[i] * MS : UINT64_MAX));
    for (int i = 0; i < 6; i++) {
        cr_assert(fill(0));
        cr_assert_eq(batch.num_slices, 1);
        cr_expect_eq(batch.jobs[0], &jobs[expected[i]], "batch %d is of job %td", i, batch.jobs[0] - jobs);
        compute();
    }
    cr_expect(!fill(0));
}

Test(schedule, small_requests_of_one_model_and_class_share_a_batch, .init = init, .fini = deinit)
{
    struct rk_job jobs[8];
    for (uint32_t i = 0; i < 8; i++)
        add(init_job(&jobs[i], i % 2, i / 4, 1, UINT64_MAX));
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert(fill(0));
        cr_expect_eq(batch.num_slices, 2);
        cr_expect_eq(batch.jobs[0]->model, batch.jobs[1]->model);
        cr_expect_eq(batch.jobs[0]->priority, batch.jobs[1]->priority);
        cr_expect_eq(batch.model, batch.jobs[0]->model->index);
        compute();
    }
    cr_expect(!fill(0));
    cr_expect_eq(num_settled, 8);
}

/* ---- classes ---- */

/* The time that each class has had, while both have work all the time; the share of the first. */
static double share_of_first(uint32_t first_candidates, uint32_t second_candidates, uint64_t for_us)
{
    enum { WAITING = 4 };
    struct rk_job jobs[2][WAITING];
    const uint32_t sizes[2] = {first_candidates, second_candidates};
    uint64_t used_us[2] = {0, 0};
    for (uint32_t c = 0; c < 2; c++)
        for (int i = 0; i < WAITING; i++)
            add(init_job(&jobs[c][i], 0, c, sizes[c], UINT64_MAX));
    while (used_us[0] + used_us[1] < for_us) {
        cr_assert(fill(0));
        const uint32_t class = batch.jobs[0]->priority;
        struct rk_job *done[WAITING];
        uint32_t num_done = 0;
        for (uint32_t s = 0; s < batch.num_slices; s++)
            if (batch.jobs[s]->place == 0)
                done[num_done++] = batch.jobs[s];
        used_us[class] += batch.predicted_ns / 1000;
        compute();
        for (uint32_t i = 0; i < num_done; i++) /* each is followed by another */
            add(init_job(done[i], 0, class, sizes[class], UINT64_MAX));
    }
    return (double)used_us[0] / (double)for_us;
}

Test(schedule, classes_with_work_have_time_by_their_weights_whatever_their_requests_are_like)
{
    static const struct {
        const char *weights;
        double share;
    } cases[] = {{"a=8,b=1", 8.0 / 9}, {"a=1,b=1", 0.5}, {"a=3,b=7", 0.3}, {"a=1,b=99", 0.01}};
    static const uint32_t sizes[][2] = {{1, 1}, {60, 1}, {1, 60}, {17, 5}, {1000, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            make(cases[i].weights, 100, 1);
            const double share = share_of_first(sizes[s][0], sizes[s][1], 100000000);
            cr_expect(fabs(share - cases[i].share) < 0.005, "%s, %u and %u candidates: the first has %g, not %g",
                      cases[i].weights, sizes[s][0], sizes[s][1], share, cases[i].share);
            deinit();
        }
}

Test(schedule, a_low_class_waits_no_longer_than_its_weight_says, .init = init, .fini = deinit)
{
    struct rk_job low, high[20];
    add(init_job(&low, 0, 1, MAX_BATCH, UINT64_MAX));
    for (int i = 0; i < 20; i++)
        add(init_job(&high[i], 0, 0, MAX_BATCH, NOW_US + 10000 * MS));
    int batches = 1;
    while (fill(0) && batch.jobs[0] != &low) {
        compute();
        batches++;
    }
    cr_expect(batches <= 9, "it came after %d batches", batches - 1);
}

Test(schedule, time_that_a_class_did_not_use_is_not_saved_up, .init = init, .fini = deinit)
{
    struct rk_job low[40], high[40];
    for (int i = 0; i < 40; i++)
        add(init_job(&low[i], 0, 1, MAX_BATCH, UINT64_MAX));
    for (int i = 0; i < 20; i++) { /* the high class sleeps */
        cr_assert(fill(0));
        compute();
    }
    for (int i = 0; i < 40; i++)
        add(init_job(&high[i], 0, 0, MAX_BATCH, UINT64_MAX));
    int num_low = 0;
    for (int i = 0; i < 36; i++) {
        cr_assert(fill(0));
        if (i == 0)
            cr_expect_eq(batch.jobs[0], &high[0], "it does not come first");
        num_low += batch.jobs[0]->priority == 1;
        compute();
    }
    cr_expect(num_low >= 3 && num_low <= 5, "%d of 36 batches are of the low class", num_low);
}

/* ---- deadlines ---- */

Test(schedule, what_can_no_longer_be_done_in_time_is_refused_at_once, .init = init, .fini = deinit)
{
    static const struct {
        uint64_t deadline_us;
        uint32_t num_candidates;
        enum rk_status expected;
    } cases[] = {
        {0, 1, RK_DEADLINE},
        {NOW_US - 1, 1, RK_DEADLINE},
        {NOW_US, 1, RK_DEADLINE},
        {NOW_US + FIXED_US + EACH_US - 1, 1, RK_DEADLINE},
        {NOW_US + FIXED_US + EACH_US, 1, RK_OK},
        {NOW_US + 7400 - 1, MAX_BATCH, RK_DEADLINE},
        {NOW_US + 7400, MAX_BATCH, RK_OK},
        {NOW_US + 10 * 7400, 10 * MAX_BATCH, RK_OK},
        {NOW_US + 10 * 7400 - 1, 10 * MAX_BATCH, RK_DEADLINE},
        {NOW_US + 1000, UINT32_MAX, RK_DEADLINE},
        {UINT64_MAX, UINT32_MAX, RK_OK},
        {UINT64_MAX - 1, UINT32_MAX, RK_OK},
    };
    uint64_t num_late = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_job job;
        init_job(&job, 0, 0, cases[i].num_candidates, cases[i].deadline_us);
        const enum rk_status status = rk_schedule_add(schedule, &job, now_us);
        cr_expect_eq(status, cases[i].expected, "case %zu: %s", i, rk_status_name(status));
        num_late += cases[i].expected == RK_DEADLINE;
        if (status == RK_OK)
            cr_expect(rk_schedule_remove(schedule, &job, now_us));
        cr_expect_eq(job.place, 0);
        cr_expect_eq(rk_schedule_num_late(schedule), num_late, "case %zu", i);
    }
    cr_expect_eq(rk_schedule_num_jobs(schedule), 0);
}

Test(schedule, a_large_request_is_judged_by_what_all_workers_can_do_together)
{
    make("only=1", 100, 4);
    struct rk_job job;
    init_job(&job, 0, 0, 4 * MAX_BATCH, NOW_US + batch_us(MAX_BATCH));
    cr_expect_eq(rk_schedule_add(schedule, &job, now_us), RK_OK);
    cr_expect(rk_schedule_remove(schedule, &job, now_us));
    job.deadline_us--;
    cr_expect_eq(rk_schedule_add(schedule, &job, now_us), RK_DEADLINE);
    deinit();
}

Test(schedule, what_expires_or_is_cancelled_while_it_waits_is_never_computed, .init = init, .fini = deinit)
{
    struct rk_job jobs[4];
    add(init_job(&jobs[0], 0, 0, 2, NOW_US + 2 * MS)); /* could still be done, but not any more in a millisecond */
    add(init_job(&jobs[1], 0, 0, 2, NOW_US + 50 * MS));
    add(init_job(&jobs[2], 0, 0, 2, NOW_US + 60 * MS));
    add(init_job(&jobs[3], 0, 0, 2, NOW_US + 70 * MS));
    atomic_store(&jobs[2].cancelled, true);
    now_us += 1 * MS;
    cr_assert(fill(0));
    cr_assert_eq(batch.num_slices, 2);
    cr_expect_eq(batch.jobs[0], &jobs[1]);
    cr_expect_eq(batch.jobs[1], &jobs[3]);
    compute();
    cr_expect_eq(num_settled, 4);
    cr_expect_eq(atomic_load(&jobs[0].status), RK_DEADLINE);
    cr_expect_eq(atomic_load(&jobs[1].status), RK_OK);
    cr_expect_eq(atomic_load(&jobs[2].status), RK_CANCELLED);
    cr_expect_eq(rk_schedule_num_late(schedule), 1);
    cr_expect_eq(rk_schedule_num_jobs(schedule), 0);
}

Test(schedule, a_batch_grows_only_as_long_as_its_tightest_deadline_is_met, .init = init, .fini = deinit)
{
    struct rk_job jobs[10];
    for (int i = 0; i < 10; i++)
        add(init_job(&jobs[i], 0, 0, 5, NOW_US + batch_us(23) + (i > 0 ? 1000 * MS : 0)));
    cr_assert(fill(0));
    cr_expect_eq(batch.num_candidates, 20, "%u candidates", batch.num_candidates);
    cr_expect_eq(batch.jobs[0], &jobs[0]);
}

Test(schedule, a_batch_leaves_time_for_more_urgent_work_that_stays_behind)
{
    /* It is the second class's turn; the first's job needs 2 ms and has 6. */
    for (int idle = 0; idle < 2; idle++) {
        struct rk_job first, urgent, jobs[10];
        make("a=1,b=1000", 100, 1);
        add(init_job(&first, 0, 0, MAX_BATCH, UINT64_MAX));
        add(init_job(&jobs[0], 0, 1, 5, UINT64_MAX));
        cr_assert(fill(0));
        cr_assert_eq(batch.jobs[0], &first);
        compute();
        for (int i = 1; i < 10; i++)
            add(init_job(&jobs[i], 0, 1, 5, UINT64_MAX));
        add(init_job(&urgent, 1, 0, 10, now_us + 6 * MS));
        cr_assert(fill((uint32_t)idle));
        cr_expect_eq(batch.jobs[0], &jobs[0]);
        if (idle == 0)
            cr_expect_eq(batch.num_candidates, 30, "%u candidates", batch.num_candidates); /* 4 ms */
        else
            cr_expect_eq(batch.num_candidates, 25, "%u candidates", batch.num_candidates); /* its half */
        deinit();
    }
}

Test(schedule, a_large_slice_is_cut_for_more_urgent_work_that_stays_behind)
{
    struct rk_job first, urgent, large;
    make("a=1,b=1000", 100, 1);
    add(init_job(&first, 0, 0, MAX_BATCH, UINT64_MAX));
    add(init_job(&large, 0, 1, 10 * MAX_BATCH, UINT64_MAX));
    cr_assert(fill(0));
    cr_assert_eq(batch.jobs[0], &first);
    compute();
    add(init_job(&urgent, 1, 0, 10, now_us + 6 * MS));
    cr_assert(fill(0));
    cr_expect_eq(batch.jobs[0], &large);
    cr_expect(batch.predicted_ns <= 4000000, "%u candidates", batch.num_candidates);
    cr_expect(batch.num_candidates >= models[0].cost.least);
    compute();
    cr_assert(rk_schedule_remove(schedule, &urgent, now_us));
    struct rk_job hopeless; /* is not waited for */
    add(init_job(&hopeless, 1, 0, 10, now_us + 2 * MS + 500));
    cr_assert(fill(0));
    cr_expect_eq(batch.jobs[0], &large);
    cr_expect_eq(batch.num_candidates, 63, "%u candidates", batch.num_candidates); /* 624 in ten even slices */
    deinit();
}

Test(schedule, when_nothing_is_urgent_a_batch_grows_until_more_gains_nothing)
{
    make("only=1", 200, 1);
    models[0].cost.full = 40;
    struct rk_job jobs[100], *large = &jobs[99];
    for (int i = 0; i < 99; i++)
        add(init_job(&jobs[i], 0, 0, 1, UINT64_MAX));
    cr_assert(fill(0));
    cr_expect_eq(batch.num_candidates, 40, "%u", batch.num_candidates);
    compute();
    add(init_job(large, 0, 0, 60, now_us + 1000 * MS)); /* one request is not cut for that */
    cr_assert(fill(0));
    cr_expect_eq(batch.num_candidates, 60, "%u", batch.num_candidates);
    deinit();
}

/* ---- spreading ---- */

Test(schedule, slices_of_a_large_request_are_even_and_cover_it_once)
{
    for (uint32_t idle = 0; idle < 4; idle++)
        for (uint32_t candidates = 1; candidates <= 5 * MAX_BATCH + 1; candidates++) {
            make("only=1", 100, 4);
            struct rk_job job;
            uint32_t next = 0, least = UINT32_MAX, most = 0, slices = 0;
            static float logits[2 * (5 * MAX_BATCH + 1)];
            num_settled = 0;
            init_job(&job, 0, 0, candidates, UINT64_MAX)->logits = logits;
            add(&job);
            while (next < candidates) {
                cr_assert_eq(num_settled, 0, "settled after %u of %u", next, candidates);
                cr_assert(fill(slices < idle ? idle - slices : 0));
                cr_assert_eq(batch.num_slices, 1);
                cr_assert_eq(batch.slices[0].first, next);
                cr_assert_eq(batch.slices[0].logits, logits + 2 * next);
                cr_assert(batch.slices[0].count <= MAX_BATCH);
                next += batch.slices[0].count;
                least = batch.slices[0].count < least ? batch.slices[0].count : least;
                most = batch.slices[0].count > most ? batch.slices[0].count : most;
                slices++;
                rk_batch_settle(&batch, RK_OK);
            }
            cr_assert_eq(next, candidates);
            cr_assert_eq(num_settled, 1);
            cr_assert(most - least <= slices, "%u candidates, %u idle: slices of %u and of %u", candidates, idle, least,
                      most);
            cr_assert_eq(rk_schedule_num_jobs(schedule), 0);
            deinit();
        }
}

Test(schedule, a_request_is_spread_over_idle_workers_where_that_pays)
{
    static const struct {
        uint32_t num_candidates, num_idle, expected;
    } cases[] = {{60, 0, 60}, {60, 1, 30}, {60, 2, 20}, {2, 7, 2}, {1, 7, 1}, {64, 1, 32}, {63, 1, 32}, {200, 1, 50}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make("only=1", 100, 8);
        struct rk_job job;
        add(init_job(&job, 0, 0, cases[i].num_candidates, UINT64_MAX));
        cr_assert(fill(cases[i].num_idle));
        cr_expect_eq(batch.num_candidates, cases[i].expected, "case %zu: %u candidates", i, batch.num_candidates);
        deinit();
    }
}

Test(schedule, waiting_requests_are_shared_with_idle_workers)
{
    make("only=1", 100, 2);
    struct rk_job jobs[40];
    for (int i = 0; i < 40; i++)
        add(init_job(&jobs[i], 0, 0, 1, UINT64_MAX));
    cr_assert(fill(1));
    cr_expect_eq(batch.num_candidates, 20, "%u", batch.num_candidates);
    rk_batch_settle(&batch, RK_OK);
    cr_assert(fill(0));
    cr_expect_eq(batch.num_candidates, 20, "%u", batch.num_candidates);
    deinit();
}

/* ---- bounds ---- */

Test(schedule, a_full_lane_refuses_and_leaves_other_models_and_classes_alone)
{
    make("high=8,low=1", 2, 1);
    struct rk_job jobs[5];
    for (int i = 0; i < 2; i++)
        add(init_job(&jobs[i], 0, 1, 1, UINT64_MAX));
    cr_expect_eq(rk_schedule_add(schedule, init_job(&jobs[2], 0, 1, 1, UINT64_MAX), now_us), RK_EXHAUSTED);
    add(init_job(&jobs[3], 1, 1, 1, UINT64_MAX));
    add(init_job(&jobs[4], 0, 0, 1, UINT64_MAX));
    cr_expect(rk_schedule_remove(schedule, &jobs[0], now_us));
    add(&jobs[2]);
    cr_expect(!rk_schedule_remove(schedule, &jobs[0], now_us), "it had been removed");
    cr_expect_eq(rk_schedule_num_jobs(schedule), 4);
    deinit();
}

/* ---- learning ---- */

Test(schedule, predictions_follow_what_batches_take, .init = init, .fini = deinit)
{
    static const double slower[] = {3.0, 0.25, 1.0};
    for (int phase = 0; phase < 3; phase++) {
        struct rk_job job;
        for (int i = 0; i < 200; i++) {
            add(init_job(&job, 0, 0, 10, UINT64_MAX));
            cr_assert(fill(0));
            batch.took_ns = (uint64_t)(slower[phase] * (double)batch_us(10) * 1000);
            rk_batch_settle(&batch, RK_OK);
            rk_schedule_learn(schedule, &batch);
        }
        add(init_job(&job, 0, 0, 10, UINT64_MAX));
        cr_assert(fill(0));
        const double expected_ns = slower[phase] * (double)batch_us(10) * 1000;
        cr_expect(fabs((double)batch.predicted_ns - expected_ns) < 0.02 * expected_ns, "phase %d: %lu ns", phase,
                  (unsigned long)batch.predicted_ns);
        rk_batch_settle(&batch, RK_OK);
    }
}

Test(schedule, one_interrupted_batch_changes_little, .init = init, .fini = deinit)
{
    struct rk_job job;
    add(init_job(&job, 0, 0, 10, UINT64_MAX));
    cr_assert(fill(0));
    const uint64_t before_ns = batch.predicted_ns;
    batch.took_ns = 1000 * before_ns;
    rk_batch_settle(&batch, RK_OK);
    rk_schedule_learn(schedule, &batch);
    add(init_job(&job, 0, 0, 10, UINT64_MAX));
    cr_assert(fill(0));
    cr_expect(batch.predicted_ns <= before_ns + before_ns / 10);
}

Test(schedule, a_model_that_was_thought_too_slow_is_tried_again, .init = init, .fini = deinit)
{
    models[0].cost.ns[0] *= 10; /* as it was measured on a busy machine */
    models[0].cost.ns[1] *= 10;
    struct rk_job job;
    int refused = 0;
    while (refused < 1000 &&
           rk_schedule_add(schedule, init_job(&job, 0, 0, 1, NOW_US + 2 * (FIXED_US + EACH_US)), now_us) != RK_OK)
        refused++;
    cr_expect(refused > 10 && refused < 200, "%d refusals", refused);
}

Test(schedule, refusals_between_batches_change_nothing, .init = init, .fini = deinit)
{
    struct rk_job job;
    for (int i = 0; i < 1000; i++) {
        if (i % 20 == 0) {
            add(init_job(&job, 0, 0, 1, UINT64_MAX));
            cr_assert(fill(0));
            batch.took_ns = batch.predicted_ns;
            rk_batch_settle(&batch, RK_OK);
            rk_schedule_learn(schedule, &batch);
        }
        cr_assert_eq(rk_schedule_add(schedule, init_job(&job, 0, 0, 1, NOW_US + FIXED_US), now_us), RK_DEADLINE);
    }
}

/* ---- all together ---- */

Test(schedule, random_work_is_computed_or_dropped_exactly_once)
{
    enum { JOBS = 3000 };
    struct random random = random_from_seed();
    static struct rk_job jobs[JOBS];
    static uint32_t computed[JOBS];
    make("a=5,b=2,c=1", 50, 3);
    uint32_t accepted = 0, next = 0;
    num_settled = 0;
    while (next < JOBS || rk_schedule_num_jobs(schedule) > 0) {
        for (uint64_t i = random_below(&random, 6); i > 0 && next < JOBS; i--, next++) {
            static const uint64_t rare[] = {0, NOW_US, UINT64_MAX - 1, UINT64_MAX};
            const uint64_t deadline_us =
                random_below(&random, 5) ? now_us + random_below(&random, 30 * MS) : rare[random_below(&random, 4)];
            init_job(&jobs[next], (uint32_t)random_below(&random, 2), (uint32_t)random_below(&random, 3),
                     (uint32_t)random_between(&random, 1, random_below(&random, 4) ? 20 : 3 * MAX_BATCH), deadline_us);
            const enum rk_status status = rk_schedule_add(schedule, &jobs[next], now_us);
            cr_assert(status == RK_OK || status == RK_DEADLINE || status == RK_EXHAUSTED);
            accepted += status == RK_OK;
            if (status == RK_OK && random_below(&random, 10) == 0) {
                cr_assert(rk_schedule_remove(schedule, &jobs[next], now_us));
                accepted--;
            } else if (random_below(&random, 10) == 0) {
                atomic_store(&jobs[next].cancelled, true);
            }
        }
        if (!fill((uint32_t)random_below(&random, 3)))
            continue;
        cr_assert(batch.num_candidates <= MAX_BATCH);
        for (uint32_t s = 0; s < batch.num_slices; s++) {
            struct rk_job *job = batch.jobs[s];
            cr_assert_eq(batch.slices[s].first, computed[job - jobs]);
            cr_assert(!atomic_load(&job->cancelled));
            cr_assert(job->deadline_us > now_us);
            computed[job - jobs] += batch.slices[s].count;
        }
        batch.took_ns = batch.predicted_ns / 2 + random_below(&random, batch.predicted_ns + 1);
        now_us += batch.took_ns / 1000;
        rk_batch_settle_dropped(&batch);
        rk_batch_settle(&batch, RK_OK);
        rk_schedule_learn(schedule, &batch);
    }
    cr_expect_eq(num_settled, accepted, "%u of %u", num_settled, accepted);
    for (int i = 0; i < JOBS; i++)
        if (atomic_load(&jobs[i].status) == RK_OK && jobs[i].taken > 0)
            cr_expect_eq(computed[i], jobs[i].request.num_candidates);
    deinit();
}
