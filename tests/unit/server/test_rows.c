/* Rows of all features become a context and candidates. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "server/rows.h"

/* user (context), likes (context, weighted), item (candidate) */
static const struct rk_feature_spec features[] = {{.name = "user", .side = RK_SIDE_CONTEXT},
                                                  {.name = "likes", .side = RK_SIDE_CONTEXT, .weighted = true},
                                                  {.name = "item", .side = RK_SIDE_CANDIDATE}};
static const char *const context_dense[] = {"age", "hour"}, *const candidate_dense[] = {"price"};
static const struct rk_model_spec spec = {.name = "shop",
                                          .features = features,
                                          .num_features = 3,
                                          .context_dense = context_dense,
                                          .num_context_dense = 2,
                                          .candidate_dense = candidate_dense,
                                          .num_candidate_dense = 1};
static const struct rk_row_choice all = {true, true, true, true};

static struct rk_arena arena;
static struct rk_rows rows;
static Rankd__V1__RankRequest request;
static struct rk_error error;

static void begin(uint32_t num_rows, bool context_apart)
{
    rk_arena_init(&arena, 4096);
    memset(&error, 0, sizeof error);
    rankd__v1__rank_request__init(&request);
    cr_assert_eq(rk_rows_begin(&rows, &spec, &arena, &request, num_rows, context_apart, &error), RK_OK);
}

static void end(void)
{
    rk_arena_deinit(&arena);
}

static enum rk_status add(const struct rk_row_choice *choice, const uint32_t *lengths, uint64_t num_lengths,
                          int64_t *ids, uint64_t num_ids, const float *weights)
{
    const struct rk_row_bags bags = {.lengths = lengths,
                                     .num_lengths = num_lengths,
                                     .ids = ids,
                                     .num_ids = num_ids,
                                     .weights = weights,
                                     .num_weights = weights != NULL ? num_ids : 0};
    return rk_rows_add_bags(&rows, choice, &bags, "lengths", "indices", &error);
}

Test(rows, the_first_row_s_context_counts_and_every_candidate_s_own_features)
{
    const uint32_t lengths[] = {1, 1, 2, 2, 1, 3};
    int64_t ids[] = {7, 7, 3, 4, 3, 4, 10, 20, 21, 22};
    const float weights[] = {9, 9, .5f, .25f, .5f, .25f, 9, 9, 9, 9};
    float dense[] = {30, 12, 1.5f, 30, 12, 2.5f};
    begin(2, false);
    cr_assert_eq(rk_rows_add_dense(&rows, dense, 6, "dense", &error), RK_OK, "%s", error.text);
    cr_assert_eq(add(&all, lengths, 6, ids, 10, weights), RK_OK, "%s", error.text);
    cr_expect_eq(request.num_candidates, 2);
    cr_expect_eq(request.context->n_dense, 2);
    cr_expect_eq(request.context->dense[1], 12);
    cr_expect_eq(request.candidates->n_dense, 2);
    cr_expect_eq(request.candidates->dense[1], 2.5f);
    cr_expect_eq(request.context->n_ids, 2);
    cr_expect_eq(request.candidates->n_ids, 1);
    const Rankd__V1__JaggedIds *user = request.context->ids[0], *likes = request.context->ids[1],
                               *item = request.candidates->ids[0];
    cr_expect_str_eq(likes->feature, "likes");
    cr_expect(user->n_ids == 1 && user->ids[0] == 7 && user->n_weights == 0);
    cr_expect(likes->n_ids == 2 && likes->ids[1] == 4 && likes->n_weights == 2 && likes->weights[1] == .25f);
    cr_expect(item->n_ids == 4 && item->ids[0] == 10 && item->n_lengths == 2 && item->lengths[1] == 3);
    end();
}

Test(rows, a_context_that_is_given_apart_is_one_row)
{
    const struct rk_row_choice context = {true, false, true, true}, candidates = {false, true, true, true};
    const uint32_t context_lengths[] = {1, 0}, lengths[] = {1, 0, 1};
    int64_t context_ids[] = {7}, ids[] = {10, 11};
    const float weights[] = {9};
    float dense[] = {1, 2, 3};
    begin(3, true);
    cr_assert_eq(rk_rows_add_dense(&rows, dense, 3, "dense", &error), RK_OK, "%s", error.text);
    cr_assert_eq(add(&context, context_lengths, 2, context_ids, 1, weights), RK_OK, "%s", error.text);
    cr_assert_eq(add(&candidates, lengths, 3, ids, 2, NULL), RK_OK, "%s", error.text);
    cr_expect_eq(request.candidates->dense, dense, "nothing is copied");
    cr_expect_eq(request.context->ids[1]->n_ids, 0);
    cr_expect_eq(request.candidates->ids[0]->n_lengths, 3);
    end();
}

Test(rows, rows_with_another_context_are_refused_and_named)
{
    const uint32_t lengths[] = {1, 1, 1, 0, 0, 0, 1, 1, 1}, longer[] = {1, 1, 1, 0, 0, 1, 1, 1, 1};
    int64_t ids[] = {7, 7, 8, 1, 2, 3}, same[] = {7, 7, 7, 5, 1, 2, 3};
    float dense[] = {1, 2, 0, 1, 2, 0, 1, -2, 0};
    begin(3, false);
    cr_expect_eq(add(&all, lengths, 9, ids, 6, NULL), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "'user' is of the context, and row 2 has another value"), "%s", error.text);
    end();
    begin(3, false);
    cr_expect_eq(add(&all, longer, 9, same, 7, NULL), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "'likes' is of the context, and row 2"), "%s", error.text);
    end();
    begin(3, false);
    cr_expect_eq(rk_rows_add_dense(&rows, dense, 9, "dense", &error), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "'hour' is of the context, and row 2"), "%s", error.text);
    end();
}

Test(rows, numbers_that_do_not_add_up_are_refused)
{
    const uint32_t lengths[] = {1, 1, 1, 1, 1, 1}, huge[] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, 1, 1};
    int64_t ids[] = {7, 7, 1, 1, 2, 3, 0};
    const struct {
        const uint32_t *lengths;
        uint64_t num_lengths, num_ids;
        const char *text;
    } cases[] = {{lengths, 5, 6, "lengths has 5 values; model 'shop' takes 6"},
                 {lengths, 6, 5, "add up to 2, and indices has 1 values left"},
                 {lengths, 6, 7, "indices has 7 values, and lengths adds up to 6"},
                 {huge, 6, 6, "add up to 8589934590"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(2, false);
        cr_expect_eq(add(&all, cases[i].lengths, cases[i].num_lengths, ids, cases[i].num_ids, NULL), RK_INVALID);
        cr_expect_not_null(strstr(error.text, cases[i].text), "'%s' is not in '%s'", cases[i].text, error.text);
        end();
    }
}

Test(rows, lengths_and_ids_of_other_widths_are_checked_and_widened)
{
    const int32_t narrow[] = {0, 2147483647, -1};
    const int64_t wide[] = {0, 4294967295, 4294967296};
    const uint32_t *lengths;
    begin(1, false);
    cr_expect_eq(rk_rows_lengths32(narrow, 2, "lengths", &lengths, &error), RK_OK);
    cr_expect_eq(lengths[1], 2147483647u);
    cr_expect_eq(rk_rows_lengths32(narrow, 3, "lengths", &lengths, &error), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "lengths[2] is -1"), "%s", error.text);
    memset(&error, 0, sizeof error);
    cr_expect_eq(rk_rows_lengths64(wide, 2, "lengths", &arena, &lengths, &error), RK_OK);
    cr_expect_eq(lengths[1], UINT32_MAX);
    cr_expect_eq(rk_rows_lengths64(wide, 3, "lengths", &arena, &lengths, &error), RK_INVALID);
    cr_expect_eq(rk_rows_widen(narrow, 3, &arena)[2], -1);
    end();
}
