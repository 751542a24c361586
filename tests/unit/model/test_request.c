/* Binding: what comes out of good requests, and one wrong thing at a time. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "tests/unit/model/small_model.h"

static struct rk_model model;
static struct rk_arena arena;
static struct random source;
static struct rk_request_limits limits;

enum { CANDIDATES = 6 };

static void setup(void)
{
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    small_model_describe(&model, &shape);
    rk_arena_init(&arena, 1 << 16);
    source = random_from_seed();
    limits = RK_REQUEST_LIMITS_DEFAULT;
}

static void teardown(void)
{
    small_model_close(&model);
    rk_arena_deinit(&arena);
}

TestSuite(request, .init = setup, .fini = teardown, .timeout = 60);

static struct rk_named_request good(uint32_t lengths)
{
    return small_request(&model.spec, CANDIDATES, lengths, &source, &arena);
}

/* The i-th feature of a block, to be changed. */
static struct rk_named_bags *bags_of(const struct rk_named_block *block, uint32_t i)
{
    return (struct rk_named_bags *)&block->features[i];
}

static struct rk_request bind(const struct rk_named_request *named)
{
    struct rk_request request = {0};
    struct rk_error error = {0};
    cr_assert_eq(rk_request_bind(&model.spec, &limits, named, &arena, &request, &error), RK_OK, "%s", error.text);
    return request;
}

static void expect_refusal(const struct rk_named_request *named, enum rk_status expected, const char *text)
{
    const struct rk_request untouched = {.num_candidates = 77};
    struct rk_request request = untouched;
    struct rk_error error = {0};
    const enum rk_status status = rk_request_bind(&model.spec, &limits, named, &arena, &request, &error);
    cr_assert_eq(status, expected, "status is %s, expected %s ('%s')", rk_status_name(status), rk_status_name(expected),
                 text);
    cr_assert_eq(error.status, expected);
    cr_assert_not_null(strstr(error.text, text), "text is '%s', expected '%s' in it", error.text, text);
    cr_assert(request.num_candidates == 77 && request.bags == NULL, "a refused request was filled in");
}

Test(request, lengths_become_offsets_and_ids_stay_where_they_are)
{
    const struct rk_named_request named = good(UINT32_MAX);
    const struct rk_request request = bind(&named);
    cr_assert_eq(request.num_candidates, CANDIDATES);
    cr_assert_eq(request.context_dense, named.context.dense);
    cr_assert_eq(request.candidate_dense, named.candidates.dense);
    cr_assert_eq(request.out_of_range_ids, 0);
    cr_assert_null(request.out_of_range);
    /* Sides alternate: features 0 and 2 are the context's. */
    for (uint32_t f = 0; f < 4; f++) {
        const struct rk_named_block *block = f % 2 == 0 ? &named.context : &named.candidates;
        const struct rk_named_bags *bags = &block->features[f / 2];
        cr_assert_eq(request.bags[f].ids, bags->ids);
        cr_assert_eq(request.bags[f].offsets[0], 0);
        for (uint64_t r = 0; r < bags->num_lengths; r++)
            cr_assert_eq(request.bags[f].offsets[r + 1] - request.bags[f].offsets[r], bags->lengths[r],
                         "feature %u row %llu", f, (unsigned long long)r);
        cr_assert_eq(request.bags[f].weights, bags->num_weights > 0 ? bags->weights : NULL);
    }
}

Test(request, without_lengths_every_row_has_as_many_ids)
{
    for (uint32_t lengths = 0; lengths < 4; lengths++) {
        const struct rk_named_request named = good(lengths);
        const struct rk_request request = bind(&named);
        for (uint32_t f = 0; f < 4; f++)
            for (uint32_t r = 0; r <= (f % 2 == 0 ? 1 : CANDIDATES); r++)
                cr_assert_eq(request.bags[f].offsets[r], r * lengths, "feature %u offset %u is %u, expected %u", f, r,
                             request.bags[f].offsets[r], r * lengths);
    }
}

Test(request, features_may_come_in_any_order)
{
    for (int round = 0; round < 50; round++) {
        struct small_shape shape;
        do
            shape = small_shape_random(&source);
        while (shape.num_features < 2);
        small_model_close(&model);
        small_model_describe(&model, &shape);
        const struct rk_named_request named = good(UINT32_MAX);
        const struct rk_request expected = bind(&named);
        const struct rk_named_block *blocks[] = {&named.context, &named.candidates};
        for (int b = 0; b < 2; b++)
            for (uint32_t i = 1; i < blocks[b]->num_features; i++) {
                struct rk_named_bags *one = bags_of(blocks[b], i);
                struct rk_named_bags *other = bags_of(blocks[b], (uint32_t)random_below(&source, i + 1));
                const struct rk_named_bags was = *one;
                *one = *other;
                *other = was;
            }
        const struct rk_request request = bind(&named);
        for (uint32_t f = 0; f < model.spec.num_features; f++)
            cr_assert_eq(request.bags[f].ids, expected.bags[f].ids, "round %d feature %u", round, f);
    }
}

Test(request, features_must_be_those_of_the_model_and_of_the_block)
{
    struct rk_named_request named = good(1);
    struct rk_named_bags *game = bags_of(&named.candidates, 0);
    game->name = "g\x1bme";
    game->name_bytes = 4;
    expect_refusal(&named, RK_INVALID, "unknown candidate feature 'g?me'; model 'small' has no feature of that name");
    game->name = "f1x";
    game->name_bytes = 1;
    expect_refusal(&named, RK_INVALID, "unknown candidate feature 'f'");
    game->name_bytes = 3;
    expect_refusal(&named, RK_INVALID, "unknown candidate feature 'f1x'");
    game->name_bytes = 2;
    bind(&named); /* a name need not be terminated */
    game->name_bytes = 0;
    expect_refusal(&named, RK_INVALID, "unknown candidate feature ''");
    char *longest = rk_arena_array(&arena, 1, 100000);
    memset(longest, 'y', 100000);
    game->name = longest;
    game->name_bytes = 100000;
    expect_refusal(&named, RK_INVALID, "yyyy...'");
    game->name = "f0";
    game->name_bytes = 2;
    expect_refusal(&named, RK_INVALID, "feature 'f0' is in the candidate block; it belongs to the context");
    game->name = "f3";
    expect_refusal(&named, RK_INVALID, "feature 'f3' is given twice");

    named = good(1);
    named.candidates.num_features = 1;
    expect_refusal(&named, RK_INVALID, "candidate feature 'f3' is missing");
    named.candidates.num_features = 0;
    expect_refusal(&named, RK_INVALID, "candidate feature 'f1' is missing");
    named = good(1);
    named.context.num_features = 0;
    expect_refusal(&named, RK_INVALID, "context feature 'f0' is missing");
}

Test(request, dense_values_are_counted_and_finite)
{
    struct rk_named_request named = good(1);
    named.context.num_dense = 1;
    expect_refusal(&named, RK_INVALID, "context: 1 dense values, expected 2");
    named = good(1);
    named.candidates.num_dense += 1;
    expect_refusal(&named, RK_INVALID, "candidates: 19 dense values, expected 18 (6 candidates of 3)");
    named = good(1);
    named.candidates.num_dense = 0;
    expect_refusal(&named, RK_INVALID, "candidates: 0 dense values");
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        named = good(1);
        ((float *)named.candidates.dense)[3 * 4 + 1] = bad[i];
        expect_refusal(&named, RK_INVALID, "candidate 4: dense value 'd1' is ");
        named = good(1);
        ((float *)named.context.dense)[1] = bad[i];
        expect_refusal(&named, RK_INVALID, "context: dense value 'c1' is ");
    }
    named = good(1);
    ((float *)named.context.dense)[0] = 3.4e38f;
    ((float *)named.context.dense)[1] = 1e-42f;
    bind(&named);
}

Test(request, lengths_must_add_up)
{
    struct rk_named_request named = good(2);
    uint32_t lengths[CANDIDATES] = {2, 2, 2, 2, 2, 2};
    struct rk_named_bags *bags = bags_of(&named.candidates, 0);
    bags->lengths = lengths;
    bags->num_lengths = CANDIDATES;
    bind(&named);
    lengths[3] = 3;
    expect_refusal(&named, RK_INVALID, "feature 'f1': lengths add up to 13, but there are 12 ids");
    /* Sums that are right in 32 bits only. */
    lengths[3] = 2 + (1u << 31);
    lengths[4] = 2 + (1u << 31);
    expect_refusal(&named, RK_INVALID, "add up to 4294967308");
    memset(lengths, 0xff, sizeof lengths);
    expect_refusal(&named, RK_INVALID, "add up to 25769803770");
    bags->num_lengths = CANDIDATES - 1;
    expect_refusal(&named, RK_INVALID, "feature 'f1': 5 lengths, expected 6, one per candidate");
    bags->num_lengths = UINT64_MAX;
    expect_refusal(&named, RK_INVALID, "lengths, expected 6");
    bags->num_lengths = 0;
    bags->num_ids = 11;
    expect_refusal(&named, RK_INVALID, "feature 'f1': 11 ids do not divide evenly among 6 candidates");
}

Test(request, weights_are_given_where_they_belong)
{
    struct rk_named_request named = good(3);
    bags_of(&named.context, 1)->num_weights = 2;
    expect_refusal(&named, RK_INVALID, "feature 'f2': 2 weights for 3 ids");
    bags_of(&named.context, 1)->num_weights = 0;
    expect_refusal(&named, RK_INVALID, "feature 'f2': 0 weights for 3 ids");
    named = good(3);
    float weights[18] = {0};
    bags_of(&named.candidates, 0)->weights = weights;
    bags_of(&named.candidates, 0)->num_weights = 18;
    expect_refusal(&named, RK_INVALID, "feature 'f1' has 18 weights; its bags are not weighted");
    named = good(3);
    ((float *)bags_of(&named.context, 1)->weights)[2] = NAN;
    expect_refusal(&named, RK_INVALID, "feature 'f2': weight 2 of the bag is ");
}

Test(request, ids_outside_follow_their_tables_policy)
{
    /* f1 reads t0 (100 rows, reject), f2 reads t1 (50, modulo), f3 reads t2 (20, default row 19). */
    static const int64_t outside[] = {100, 9999, -1, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        struct rk_named_request named = good(2);
        bags_of(&named.candidates, 0)->ids[7] = outside[i];
        char text[128];
        snprintf(text, sizeof text, "feature 'f1', candidate 3: id %lld is outside the 100 rows of table 't0'",
                 (long long)outside[i]);
        expect_refusal(&named, RK_INVALID, text);
    }
    struct rk_named_request named = good(2);
    bags_of(&named.context, 0)->ids[0] = 100;
    expect_refusal(&named, RK_INVALID, "feature 'f0': id 100 is outside the 100 rows");
    named = good(2);
    bags_of(&named.context, 1)->ids[0] = 103;
    bags_of(&named.context, 1)->ids[1] = -1;
    bags_of(&named.candidates, 1)->ids[11] = INT64_MIN;
    const struct rk_request request = bind(&named);
    cr_assert_eq(request.bags[2].ids[0], 3);
    cr_assert_eq(request.bags[2].ids[1], 49);
    cr_assert_eq(request.bags[3].ids[11], 19);
    cr_assert_eq(request.out_of_range_ids, 3, "%llu", (unsigned long long)request.out_of_range_ids);
    static const uint64_t counts[] = {0, 0, 2, 1};
    for (uint32_t f = 0; f < 4; f++)
        cr_assert_eq(request.out_of_range[f], counts[f], "feature %u: %llu", f,
                     (unsigned long long)request.out_of_range[f]);
}

Test(request, an_id_outside_is_found_wherever_it_stands)
{
    static const int64_t outside[] = {100, -1, INT64_MIN, INT64_MAX};
    enum { LENGTH = 7 };
    for (uint32_t at = 0; at < CANDIDATES * LENGTH; at++) {
        struct rk_named_request named = good(LENGTH);
        const int64_t id = outside[at % 4];
        bags_of(&named.candidates, 0)->ids[at] = id;
        char text[128];
        snprintf(text, sizeof text, "feature 'f1', candidate %u: id %lld is outside", at / LENGTH, (long long)id);
        expect_refusal(&named, RK_INVALID, text);
    }
    struct rk_named_request named = good(LENGTH);
    bags_of(&named.candidates, 0)->ids[0] = 0;
    bags_of(&named.candidates, 0)->ids[CANDIDATES * LENGTH - 1] = 99;
    cr_assert_eq(bind(&named).out_of_range_ids, 0, "the first row and the last one are inside");
}

Test(request, the_candidate_is_found_among_empty_bags)
{
    struct rk_named_request named = good(1);
    uint32_t lengths[CANDIDATES] = {0, 2, 0, 0, 4, 0};
    bags_of(&named.candidates, 0)->lengths = lengths;
    bags_of(&named.candidates, 0)->num_lengths = CANDIDATES;
    bags_of(&named.candidates, 0)->ids[2] = -5;
    expect_refusal(&named, RK_INVALID, "feature 'f1', candidate 4: id -5");
}

Test(request, rejected_ids_are_counted_too)
{
    struct rk_named_request named = good(2);
    bags_of(&named.candidates, 0)->ids[0] = -1;
    struct rk_request request = {0};
    cr_assert_eq(rk_request_bind(&model.spec, &limits, &named, &arena, &request, NULL), RK_INVALID);
    cr_assert_eq(request.out_of_range_ids, 1);
}

Test(request, limits_hold)
{
    struct rk_named_request named = good(2);
    named.num_candidates = 0;
    expect_refusal(&named, RK_INVALID, "num_candidates is 0");
    named = good(2);
    limits.max_candidates = CANDIDATES - 1;
    expect_refusal(&named, RK_INVALID, "num_candidates is 6; at most 5 are allowed");
    limits = RK_REQUEST_LIMITS_DEFAULT;
    limits.max_ids = 2 + 2 + 12 + 12;
    bind(&named);
    named = good(2);
    limits.max_ids--;
    expect_refusal(&named, RK_EXHAUSTED, "feature 'f3' brings the request past the limit of 27 ids");
    /* Offsets have 32 bits whatever the limit says, and counts that nobody can have sent are refused unread. */
    limits.max_ids = UINT64_MAX;
    named = good(2);
    bags_of(&named.context, 0)->num_ids = UINT64_MAX;
    expect_refusal(&named, RK_EXHAUSTED, "past the limit of 4294967295 ids");
}

Test(request, a_full_arena_refuses_at_every_allocation)
{
    for (size_t bytes = 0;; bytes += 16) {
        const struct rk_named_request named = good(UINT32_MAX);
        /* Out of order, so that the table of names is built too. */
        const struct rk_named_bags was = named.candidates.features[0];
        *bags_of(&named.candidates, 0) = named.candidates.features[1];
        *bags_of(&named.candidates, 1) = was;
        rk_arena_limit(&arena, bytes);
        struct rk_request request = {0};
        struct rk_error error = {0};
        const enum rk_status status = rk_request_bind(&model.spec, &limits, &named, &arena, &request, &error);
        rk_arena_limit(&arena, SIZE_MAX);
        if (status == RK_OK) {
            cr_assert_gt(bytes, 100);
            break;
        }
        cr_assert_eq(status, RK_EXHAUSTED, "%zu bytes: %s", bytes, error.text);
        cr_assert_lt(bytes, 10000);
    }
}
