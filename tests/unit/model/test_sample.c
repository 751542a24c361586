/* The sample model against the model that it is a sample of, and the planner on top of it. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/engine.h"
#include "model/planner.h"
#include "model/sample.h"
#include "model/traffic.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/random.h"

static struct tiny tiny;
static struct rk_model *model;
static struct random seeded;
static char paths[4][128]; /* requests and labels of the fit set, then of the holdout */
static const struct rk_plan no_plan;

static struct rk_sample_files files[RK_SAMPLE_SETS];

static void open_model(void)
{
    struct rk_error error = {0};
    static const char *const names[] = {"fit.jsonl", "fit-labels.jsonl", "holdout.jsonl", "holdout-labels.jsonl"};
    tiny_create(&tiny);
    tiny_import_fine(&tiny);
    cr_assert_eq(rk_model_open(tiny.package, NULL, &model, &error), RK_OK, "%s", error.text);
    seeded = random_from_seed();
    for (int i = 0; i < 4; i++)
        snprintf(paths[i], sizeof paths[i], "%s/%s", tiny.path, names[i]);
    for (int set = 0; set < RK_SAMPLE_SETS; set++)
        files[set] = (struct rk_sample_files){paths[2 * set], paths[2 * set + 1]};
}

static void close_model(void)
{
    rk_model_close(model);
    for (int i = 0; i < 4; i++)
        remove(paths[i]);
    tiny_destroy(&tiny);
}

TestSuite(sample, .init = open_model, .fini = close_model, .timeout = 120);
TestSuite(planner, .init = open_model, .fini = close_model, .timeout = 120);

/* Random requests with random labels; logits[..] becomes what the model gives for them. Returns their number. */
static size_t write_set(enum rk_sample_set set, uint32_t num_requests, float *logits, bool touched[2][8])
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    const struct rk_traffic_options options = {.num_candidates = (uint32_t)random_between(&seeded, 1, 9)};
    struct rk_random random = {random_next(&seeded)};
    struct rk_engine *engine;
    struct rk_arena arena;
    FILE *requests = fopen(paths[2 * set], "w"), *labels = fopen(paths[2 * set + 1], "w");
    size_t count = 0;
    cr_assert(requests != NULL && labels != NULL);
    cr_assert_eq(rk_engine_create(model, 5, &engine, NULL), RK_OK);
    rk_arena_init(&arena, 1u << 16);
    for (uint32_t r = 0; r < num_requests; r++) {
        struct rk_named_request named;
        struct rk_request bound;
        cr_assert_eq(rk_traffic_request(spec, &options, &random, r, &arena, &named, NULL), RK_OK);
        cr_assert(rk_jsonl_print_request(requests, &named));
        cr_assert_eq(rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, &named, &arena, &bound, NULL), RK_OK);
        for (uint32_t f = 0; f < spec->num_features; f++) {
            const uint32_t bags = spec->features[f].side == RK_SIDE_CONTEXT ? 1 : bound.num_candidates;
            for (uint32_t i = 0; i < bound.bags[f].offsets[bags]; i++)
                touched[spec->features[f].table][bound.bags[f].ids[i]] = true;
        }
        cr_assert_eq(rk_engine_score(engine, &bound, logits + count), RK_OK);
        fprintf(labels, "{\"id\": \"%s\", \"logits\": [", named.id);
        for (uint32_t c = 0; c < bound.num_candidates; c++)
            fprintf(labels, "%s[0, 0]", c > 0 ? ", " : "");
        fprintf(labels, "], \"labels\": [");
        for (uint32_t c = 0; c < bound.num_candidates; c++)
            fprintf(labels, "%s[%d, %d]", c > 0 ? ", " : "", random_below(&seeded, 2) == 0, (r + c) % 2 == 0);
        fprintf(labels, "]}\n");
        count += (size_t)bound.num_candidates * spec->num_heads;
    }
    rk_arena_deinit(&arena);
    rk_engine_destroy(engine);
    fclose(requests);
    fclose(labels);
    return count;
}

static struct rk_sample *make_sample(void)
{
    struct rk_error error = {0};
    struct rk_sample *sample = NULL;
    cr_assert_eq(rk_sample_create(model, files, &no_plan, tiny.path, &sample, &error), RK_OK, "%s", error.text);
    return sample;
}

Test(sample, scores_are_those_of_the_model_bit_by_bit)
{
    float logits[RK_SAMPLE_SETS][2 * 9 * 20];
    bool touched[RK_SAMPLE_SETS][2][8] = {0};
    size_t counts[RK_SAMPLE_SETS];
    for (int set = 0; set < RK_SAMPLE_SETS; set++)
        counts[set] = write_set(set, (uint32_t)random_between(&seeded, 1, 20), logits[set], touched[set]);
    struct rk_sample *sample = make_sample();
    for (int set = 0; set < RK_SAMPLE_SETS; set++) {
        const struct rk_score_list *truth = rk_sample_truth(sample, set);
        cr_assert_eq(truth->num_candidates * truth->num_heads, counts[set]);
        cr_assert(truth->labelled);
        for (size_t i = 0; i < counts[set]; i++)
            cr_assert_eq(truth->logits[i], (double)logits[set][i], "set %d, logit %zu: %.9g, the model gives %.9g", set,
                         i, truth->logits[i], (double)logits[set][i]);
    }
    for (uint32_t t = 0; t < 2; t++) {
        size_t count, expected = 0;
        const int64_t *rows = rk_sample_touched(sample, t, &count);
        for (int64_t row = 0; row < 8; row++)
            if (touched[RK_SAMPLE_FIT][t][row])
                cr_assert(expected < count && rows[expected++] == row, "table %u, row %d", t, (int)row);
        cr_assert_eq(count, expected);
    }
    rk_sample_destroy(sample);
}

Test(sample, pruning_changes_nothing_that_the_fit_set_reads)
{
    float logits[2 * 9 * 20];
    bool touched[2][8] = {0};
    write_set(RK_SAMPLE_FIT, 3, logits, touched);
    write_set(RK_SAMPLE_HOLDOUT, 20, logits, touched);
    struct rk_sample *sample = make_sample();
    const struct rk_table_choice choices[2] = {{RK_ROWS_F32, true}, {RK_ROWS_F32, true}};
    struct rk_score_list scores;
    cr_assert_eq(rk_sample_score(sample, RK_SAMPLE_FIT, choices, true, &scores, NULL), RK_OK);
    const struct rk_score_list *truth = rk_sample_truth(sample, RK_SAMPLE_FIT);
    cr_assert_eq(memcmp(scores.logits, truth->logits, truth->num_candidates * 2 * sizeof *scores.logits), 0);
    rk_score_list_deinit(&scores);
    rk_sample_destroy(sample);
}

Test(sample, nothing_is_left_of_a_sample_that_could_not_be_made)
{
    float logits[2 * 9 * 20];
    bool touched[2][8] = {0};
    struct rk_sample *sample = NULL;
    struct rk_error error = {0};
    write_set(RK_SAMPLE_FIT, 4, logits, touched);
    tiny_write(&tiny, "holdout.jsonl", "{\"id\": \"x\"}\n", 12);
    const size_t entries = tiny_count_entries(&tiny);
    cr_expect_neq(rk_sample_create(model, files, &no_plan, tiny.path, &sample, &error), RK_OK);
    cr_expect_not_null(strstr(error.text, "holdout.jsonl:1: "), "%s", error.text);
    cr_expect_eq(tiny_count_entries(&tiny), entries);
}

/* ---- the planner ---- */

static const enum rk_row_format formats[] = {RK_ROWS_INT8, RK_ROWS_INT4, RK_ROWS_INT2, RK_ROWS_F16};

static struct rk_planned *run(struct rk_sample *sample, struct rk_planner_options options)
{
    struct rk_error error = {0};
    struct rk_planned *planned = NULL;
    options.formats = formats;
    options.num_formats = sizeof formats / sizeof *formats;
    cr_assert_eq(rk_planner_run(model, sample, &options, &planned, &error), RK_OK, "%s", error.text);
    return planned;
}

Test(planner, every_limit_of_bytes_is_kept_and_more_bytes_never_mean_more_error)
{
    float logits[2 * 9 * 20];
    bool touched[2][8] = {0};
    write_set(RK_SAMPLE_FIT, 20, logits, touched);
    files[RK_SAMPLE_HOLDOUT] = (struct rk_sample_files){0};
    struct rk_sample *sample = make_sample();
    const uint64_t weights = rk_model_spec_of(model)->weights_bytes, smallest = 8 * rk_row_bytes(RK_ROWS_INT2, 4);
    double error = INFINITY;
    for (uint64_t rows = smallest - 3; rows <= 8 * 16 + 3; rows++) {
        struct rk_planned *planned =
            run(sample, (struct rk_planner_options){.limit_bytes = true, .max_bytes = weights + rows});
        cr_assert_eq(planned->met, rows >= smallest, "%d bytes of rows", (int)rows);
        if (planned->met) {
            cr_assert_leq(planned->bytes_after, weights + rows);
            cr_assert_leq(planned->predicted_logit_error, error, "%d bytes of rows", (int)rows);
            error = planned->predicted_logit_error;
        } else {
            cr_assert_eq(planned->bytes_after, weights + smallest);
        }
        cr_assert_eq(planned->bytes_before, rk_model_bytes(model));
        cr_assert(isnan(planned->auc_loss[RK_SAMPLE_HOLDOUT]));
        rk_planned_destroy(planned);
    }
    cr_assert_eq(error, 0, "with room for all rows as they are, they stay");
    rk_sample_destroy(sample);
}

Test(planner, a_limit_of_the_loss_holds_by_what_was_measured)
{
    float logits[2 * 9 * 20];
    bool touched[2][8] = {0};
    write_set(RK_SAMPLE_FIT, 20, logits, touched);
    files[RK_SAMPLE_HOLDOUT] = (struct rk_sample_files){0};
    struct rk_sample *sample = make_sample();
    uint64_t bytes = UINT64_MAX;
    for (double limit = 0; limit < 1; limit = 3 * limit + 0.001) {
        struct rk_planned *planned = run(sample, (struct rk_planner_options){.max_auc_loss = limit});
        cr_assert(planned->met);
        cr_assert_leq(planned->auc_loss[RK_SAMPLE_FIT], limit);
        bytes = planned->bytes_after;
        rk_planned_destroy(planned);
    }
    cr_assert_eq(bytes, rk_model_spec_of(model)->weights_bytes + 8 * rk_row_bytes(RK_ROWS_INT2, 4),
                 "with all losses allowed, everything becomes as small as it can");
    rk_sample_destroy(sample);
}

Test(planner, a_loss_cannot_be_limited_without_labels)
{
    float logits[2 * 9 * 20];
    bool touched[2][8] = {0};
    struct rk_error error = {0};
    struct rk_planned *planned = NULL;
    write_set(RK_SAMPLE_FIT, 5, logits, touched);
    files[RK_SAMPLE_FIT].expected = NULL;
    files[RK_SAMPLE_HOLDOUT] = (struct rk_sample_files){0};
    struct rk_sample *sample = make_sample();
    const struct rk_planner_options options = {.formats = formats, .num_formats = 1, .max_auc_loss = 0.1};
    cr_expect_eq(rk_planner_run(model, sample, &options, &planned, &error), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "labels of both classes"), "%s", error.text);
    rk_sample_destroy(sample);
}
