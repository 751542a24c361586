/* What batches cost, added up for the jobs that ask. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "server/job_cost.h"

static const struct rk_run_cost run_cost = {.lookup_ns = 1000, .interaction_ns = 200, .towers_ns = 30, .rest_ns = 4};

/* A batch of slices of these jobs, ten candidates each. */
static struct rk_batch batch_of(struct rk_job **jobs, uint32_t count)
{
    return (struct rk_batch){.num_slices = count, .num_candidates = 10 * count, .jobs = jobs};
}

Test(job_cost, only_batches_with_a_job_that_asks_are_measured)
{
    struct rk_job_cost cost = {0};
    struct rk_job silent = {0}, asking = {.cost = &cost};
    struct rk_job *both[] = {&silent, &asking}, *one[] = {&silent};
    const struct rk_batch wanted = batch_of(both, 2), unwanted = batch_of(one, 1), empty = {0};
    cr_expect(rk_batch_wants_cost(&wanted));
    cr_expect(!rk_batch_wants_cost(&unwanted));
    cr_expect(!rk_batch_wants_cost(&empty));
}

Test(job_cost, every_job_that_asks_is_told_the_whole_batch_once)
{
    struct rk_job_cost costs[2] = {{0}};
    struct rk_job first = {.cost = &costs[0]}, silent = {0}, last = {.cost = &costs[1]};
    struct rk_job *jobs[] = {&first, &first, &silent, &last};
    const struct rk_batch batch = batch_of(jobs, 4);
    rk_batch_add_cost(&batch, 77, &run_cost);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(costs[i].lookup_ns, 1000, "%lu", (unsigned long)costs[i].lookup_ns);
        cr_expect_eq(costs[i].interaction_ns, 200);
        cr_expect_eq(costs[i].towers_ns, 30);
        cr_expect_eq(costs[i].rest_ns, 4);
        cr_expect_eq(costs[i].batches, 1);
        cr_expect_eq(costs[i].batch_candidates, 40);
        cr_expect_eq(costs[i].begun_ns, 77);
    }
}

Test(job_cost, batches_add_up_and_the_wait_ends_with_the_one_that_began_first)
{
    static const uint64_t begun[] = {500, 300, 400};
    struct rk_job_cost cost = {0};
    struct rk_job job = {.cost = &cost};
    struct rk_job *jobs[] = {&job};
    const struct rk_batch batch = batch_of(jobs, 1);
    for (int i = 0; i < 3; i++)
        rk_batch_add_cost(&batch, begun[i], &run_cost);
    cr_expect_eq(cost.begun_ns, 300, "%lu", (unsigned long)cost.begun_ns);
    cr_expect_eq(cost.lookup_ns, 3000);
    cr_expect_eq(cost.batches, 3);
    cr_expect_eq(cost.batch_candidates, 30);
}
