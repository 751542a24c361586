/* What the express lane takes and what it leaves to the workers, on a small model made for the test. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/synth.h"
#include "server/cost_measure.h"
#include "server/express.h"

#define MANY 64

static char repository[] = "/tmp/rankd-express-XXXXXX";
static struct rk_compute compute;
static const struct rk_row_options mapped_rows;
static struct rk_registry registry;
static struct rk_arena arena;
static unsigned num_settled, last_status;

static void settled(struct rk_job *job)
{
    num_settled++;
    last_status = (unsigned)atomic_load(&job->status);
}

static void init(void)
{
    static const struct rk_synth_table tables[] = {{.name = "user", .rows = 100, .dim = 8, .ids_per_bag = 2},
                                                   {.name = "item", .rows = 200, .dim = 8, .ids_per_bag = 1}};
    static const uint32_t bottom[] = {16, 8}, top[] = {16};
    char output[128];
    struct rk_error error = {0};
    cr_assert_not_null(mkdtemp(repository));
    snprintf(output, sizeof output, "%s/small/1", repository);
    const struct rk_synth_options options = {
        .name = "small",
        .tables = tables,
        .num_tables = 2,
        .num_context_features = 1,
        .num_context_dense = 1,
        .num_dense = 3,
        .bottom = bottom,
        .num_bottom = 2,
        .top = top,
        .num_top = 1,
        .num_heads = 2,
        .interaction = {.op = RK_INTERACTION_DOT, .pairs = RK_PAIRS_TRIL},
        .seed = 1,
        .shards = {.max_rows = UINT64_MAX, .max_bytes = UINT64_MAX},
        .output = output,
    };
    cr_assert_eq(rk_synth(&options, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_compute_open("cpu", "", "", &compute, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_registry_open(repository, &compute, &mapped_rows, &registry, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_cost_measure(&registry, MANY, &error), RK_OK, "%s", error.text);
    rk_arena_init(&arena, 64 << 10);
}

static void deinit(void)
{
    char command[128];
    rk_arena_deinit(&arena);
    rk_registry_close(&registry);
    snprintf(command, sizeof command, "rm -rf %s", repository);
    cr_expect_eq(system(command), 0);
}

static struct rk_express *make_express(uint64_t budget_us)
{
    struct rk_express *express = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_express_create(&registry, budget_us, &express, &error), RK_OK, "%s", error.text);
    return express;
}

static struct rk_job *make_job(uint32_t num_candidates)
{
    const struct rk_request_limits limits = RK_REQUEST_LIMITS_DEFAULT;
    const struct rk_traffic_options options = {.num_candidates = num_candidates};
    struct rk_random random = {.state = num_candidates};
    struct rk_named_request named;
    struct rk_error error = {0};
    const struct rk_model_spec *spec = registry.models[0].spec;
    struct rk_job *job = rk_arena_array(&arena, 1, sizeof *job);
    cr_assert_eq(rk_traffic_request(spec, &options, &random, 0, &arena, &named, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_request_bind(spec, &limits, &named, &arena, &job->request, &error), RK_OK, "%s", error.text);
    job->model = &registry.models[0];
    job->logits = rk_arena_array(&arena, (size_t)num_candidates * spec->num_heads, sizeof *job->logits);
    for (uint32_t i = 0; i < num_candidates * spec->num_heads; i++)
        job->logits[i] = NAN;
    job->deadline_us = UINT64_MAX;
    job->settled = settled;
    return job;
}

static uint64_t batches_of(const struct rk_express *express)
{
    return rk_counter_read(&rk_express_counters_of(express)->batches);
}

Test(express, what_was_taken_is_scored_in_one_batch, .init = init, .fini = deinit)
{
    struct rk_express *express = make_express(1000000);
    struct rk_job *jobs[3] = {make_job(1), make_job(2), make_job(3)};
    for (int i = 0; i < 3; i++)
        cr_expect(rk_express_take(express, jobs[i]), "job %d", i);
    cr_expect_eq(num_settled, 0);
    rk_express_run(express);
    cr_expect_eq(num_settled, 3, "%u", num_settled);
    cr_expect_eq(last_status, RK_OK, "%u", last_status);
    cr_expect_eq(batches_of(express), 1);
    for (int i = 0; i < 3; i++)
        for (uint32_t l = 0; l < jobs[i]->request.num_candidates * 2; l++)
            cr_expect(isfinite(jobs[i]->logits[l]), "job %d, logit %u was not written", i, l);
    rk_express_run(express); /* nothing is left */
    cr_expect_eq(batches_of(express), 1);
    rk_express_destroy(express);
}

Test(express, the_sum_of_a_turn_is_bounded, .init = init, .fini = deinit)
{
    struct rk_express *express = make_express(50);
    unsigned taken = 0;
    while (taken < 100000 && rk_express_take(express, make_job(1)))
        taken++;
    cr_expect(taken < 100000, "every job was taken");
    rk_express_run(express);
    cr_expect_eq(num_settled, taken, "%u of %u", num_settled, taken);
    if (taken > 0) /* a new turn has its budget back */
        cr_expect(rk_express_take(express, make_job(1)));
    rk_express_run(express);
    rk_express_destroy(express);
}

Test(express, large_requests_go_to_the_workers, .init = init, .fini = deinit)
{
    struct rk_express *express = make_express(1000000);
    cr_expect(rk_express_take(express, make_job(MANY)));
    cr_expect(!rk_express_take(express, make_job(MANY + 1)));
    rk_express_run(express);
    rk_express_destroy(express);
}

Test(express, without_a_budget_nothing_is_taken, .init = init, .fini = deinit)
{
    struct rk_express *express = make_express(0);
    cr_expect(!rk_express_take(express, make_job(1)));
    rk_express_run(express);
    cr_expect_eq(batches_of(express), 0);
    rk_express_destroy(express);
}

Test(express, what_expired_or_was_cancelled_meanwhile_is_not_scored, .init = init, .fini = deinit)
{
    struct rk_express *express = make_express(1000000);
    struct rk_job *late = make_job(1), *cancelled = make_job(1);
    late->deadline_us = 1;
    cr_assert(rk_express_take(express, late) && rk_express_take(express, cancelled));
    atomic_store(&cancelled->cancelled, true);
    rk_express_run(express);
    cr_expect_eq(num_settled, 2, "%u", num_settled);
    cr_expect_eq(batches_of(express), 0);
    cr_expect(isnan(late->logits[0]) && isnan(cancelled->logits[0]), "an unwanted request was scored");
    rk_express_destroy(express);
}
