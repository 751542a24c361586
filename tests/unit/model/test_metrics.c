/* Metrics against definitions written out: every pair for the AUC, every rank for percentiles, sorting for the best. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "model/metrics.h"
#include "tests/unit/random.h"

/* Few distinct logits, so that ties are the rule. */
static size_t random_samples(struct random *random, struct rk_scored *samples, size_t most)
{
    const size_t count = random_between(random, 2, most);
    const uint64_t distinct = random_between(random, 1, 2 * count);
    for (size_t i = 0; i < count; i++)
        samples[i] = (struct rk_scored){.logit = (float)random_below(random, distinct) / 4 - 8,
                                        .positive = random_below(random, 3) == 0};
    samples[0].positive = true;
    samples[1].positive = false;
    return count;
}

Test(metrics, auc_counts_the_pairs_that_are_in_order)
{
    struct random random = random_from_seed();
    struct rk_scored samples[300];
    for (int round = 0; round < 200; round++) {
        const size_t count = random_samples(&random, samples, 300);
        double won = 0, pairs = 0;
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; j < count; j++)
                if (samples[i].positive && !samples[j].positive) {
                    won += samples[i].logit > samples[j].logit ? 1 : samples[i].logit == samples[j].logit ? 0.5 : 0;
                    pairs++;
                }
        const double auc = rk_metric_auc(samples, count);
        cr_assert_float_eq(auc, won / pairs, 1e-12, "%.17g, pairs say %.17g", auc, won / pairs);
    }
}

Test(metrics, one_class_alone_has_no_auc_and_no_normalised_entropy)
{
    struct rk_scored samples[3] = {{1, true, 0}, {2, true, 0}, {3, true, 0}};
    for (int kind = 0; kind < 2; kind++) {
        cr_expect(isnan(rk_metric_auc(samples, 3)));
        cr_expect(isnan(rk_metric_normalised_entropy(samples, 3, NULL)));
        for (int i = 0; i < 3; i++)
            samples[i].positive = false;
    }
    cr_expect(isnan(rk_metric_auc(samples, 0)));
    cr_expect(isnan(rk_metric_normalised_entropy(samples, 0, NULL)));
    cr_expect(isnan(rk_metric_percentile(NULL, 0, 50)));
}

Test(metrics, normalised_entropy_is_the_log_loss_over_that_of_the_base_rate)
{
    struct random random = random_from_seed();
    struct rk_scored samples[300];
    for (int round = 0; round < 100; round++) {
        const size_t count = random_samples(&random, samples, 300);
        double loss = 0, positives = 0;
        for (size_t i = 0; i < count; i++) {
            samples[i].logit /= 16; /* 1 - p keeps its digits */
            const double p = 1 / (1 + exp(-(double)samples[i].logit));
            loss -= samples[i].positive ? log(p) : log(1 - p);
            positives += samples[i].positive;
        }
        const double rate = positives / (double)count;
        const double entropy = -(rate * log(rate) + (1 - rate) * log(1 - rate));
        const double expected = loss / (double)count / entropy,
                     got = rk_metric_normalised_entropy(samples, count, NULL);
        cr_assert_float_eq(got, expected, 1e-9 * expected, "%.17g, the definition says %.17g", got, expected);
    }
}

Test(metrics, normalised_entropy_is_that_of_calibrated_probabilities)
{
    struct random random = random_from_seed();
    struct rk_scored samples[300], calibrated[300];
    const struct rk_calibration halved = {0.5f, -1.25f}; /* exact for the few digits that logits have here */
    const size_t count = random_samples(&random, samples, 300);
    for (size_t i = 0; i < count; i++) {
        calibrated[i] = samples[i];
        calibrated[i].logit = 0.5f * samples[i].logit - 1.25f;
    }
    const double expected = rk_metric_normalised_entropy(calibrated, count, NULL);
    cr_assert_float_eq(rk_metric_normalised_entropy(samples, count, &halved), expected, 1e-12 * expected);
    cr_assert_neq(rk_metric_normalised_entropy(samples, count, NULL), expected);
}

Test(metrics, constant_predictions_of_the_base_rate_have_normalised_entropy_one)
{
    struct rk_scored samples[8];
    for (int i = 0; i < 8; i++)
        samples[i] = (struct rk_scored){.logit = logf(1.0f / 3), .positive = i % 4 == 0};
    cr_expect_float_eq(rk_metric_normalised_entropy(samples, 8, NULL), 1, 1e-7);
}

Test(metrics, extreme_logits_lose_what_they_are_off)
{
    const struct rk_scored samples[2] = {{-1e4f, true, 0}, {-1e4f, false, 0}};
    cr_expect_float_eq(rk_metric_normalised_entropy(samples, 2, NULL), 1e4 / 2 / log(2), 1e-6);
}

Test(metrics, a_percentile_is_the_least_value_that_covers_so_many)
{
    struct random random = random_from_seed();
    double values[400];
    for (int round = 0; round < 100; round++) {
        const size_t count = random_between(&random, 1, 400);
        for (size_t i = 0; i < count; i++)
            values[i] = (double)random_below(&random, 50);
        static const double percents[] = {0, 0.1, 25, 50, 99.9, 100};
        for (size_t p = 0; p < sizeof percents / sizeof *percents; p++) {
            const double got = rk_metric_percentile(values, count, percents[p]);
            size_t covered = 0, below = 0;
            for (size_t i = 0; i < count; i++) {
                covered += values[i] <= got;
                below += values[i] < got;
            }
            cr_assert((double)covered * 100 >= percents[p] * (double)count, "%g is below the percentile", got);
            cr_assert(below == 0 || (double)below * 100 < percents[p] * (double)count, "%g is above it", got);
        }
    }
}

/* Whether candidate i is among the best k: fewer than k candidates come before it. */
static bool among_best(const double *scores, size_t count, size_t k, size_t i)
{
    size_t before = 0;
    for (size_t j = 0; j < count; j++)
        before += scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
    return before < k;
}

Test(metrics, the_overlap_counts_candidates_that_both_put_among_the_best)
{
    struct random random = random_from_seed();
    double a[60], b[60];
    uint32_t places[120];
    for (int round = 0; round < 300; round++) {
        const size_t count = random_between(&random, 1, 60), k = random_between(&random, 1, 15);
        const uint64_t distinct = random_between(&random, 1, 80);
        size_t shared = 0;
        for (size_t i = 0; i < count; i++) {
            a[i] = (double)random_below(&random, distinct);
            b[i] = random_below(&random, 2) == 0 ? a[i] : (double)random_below(&random, distinct);
        }
        for (size_t i = 0; i < count; i++)
            shared += among_best(a, count, k, i) && among_best(b, count, k, i);
        const double expected = (double)shared / (double)(k < count ? k : count);
        const double got = rk_metric_top_overlap(a, b, count, k, places);
        cr_assert_float_eq(got, expected, 1e-12, "%g, counted %g", got, expected);
    }
}

static void add(struct rk_score_list *list, const char *id, uint32_t num_candidates, const double *logits,
                const double *labels)
{
    cr_assert_eq(rk_score_list_add(list, id, num_candidates, logits, labels, NULL), RK_OK);
}

Test(metrics, heads_are_measured_apart)
{
    struct rk_score_list truth, scores;
    struct rk_head_metrics heads[2];
    rk_score_list_init(&truth, 2);
    rk_score_list_init(&scores, 2);
    add(&truth, "a", 2, (const double[]){1, 4, 2, 3}, (const double[]){0, 1, 1, 0});
    add(&truth, "b", 1, (const double[]){-1, 0.5}, (const double[]){0, 0});
    add(&scores, "a", 2, (const double[]){1, 4, 2, 3}, NULL);
    add(&scores, "b", 1, (const double[]){-1, 5}, NULL);
    cr_assert_eq(rk_metrics_measure(&truth, &scores, NULL, heads, NULL), RK_OK);
    cr_expect_float_eq(heads[0].auc, 1, 1e-15);
    cr_expect_float_eq(heads[1].auc, 0.5, 1e-15);
    cr_expect_eq(heads[0].largest_error, 0);
    cr_expect_eq(heads[0].mean_squared_error, 0);
    cr_expect_float_eq(heads[1].largest_error, 4.5, 1e-15);
    cr_expect_float_eq(heads[1].p999_error, 4.5, 1e-15);
    cr_expect_float_eq(heads[1].mean_squared_error, 4.5 * 4.5 / 3, 1e-15);
    cr_expect_eq(heads[0].top_overlap, 1);
    rk_score_list_deinit(&truth);
    rk_score_list_deinit(&scores);
}

/* A list of random requests; `noise` is added to the logits of `like`, when there is one. */
static void add_random(struct random *random, struct rk_score_list *list, size_t num_requests,
                       const struct rk_score_list *like, double noise)
{
    double logits[9], labels[9];
    for (size_t r = 0; r < num_requests; r++) {
        const size_t count = like != NULL ? like->first[r + 1] - like->first[r] : random_between(random, 1, 9);
        for (size_t i = 0; i < count; i++) {
            logits[i] = like != NULL ? like->logits[like->first[r] + i] + noise * (double)random_float(random)
                                     : (double)random_below(random, 40) / 8;
            labels[i] = random_below(random, 40) < (uint64_t)(8 * logits[i]);
        }
        cr_assert_eq(rk_score_list_add(list, "", (uint32_t)count, logits, labels, NULL), RK_OK);
    }
}

Test(metrics, the_error_of_a_loss_is_the_jackknife_over_groups_of_requests)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 20; round++) {
        const size_t num_requests = random_between(&random, 15, 70);
        const uint32_t groups = num_requests < RK_METRICS_GROUPS ? (uint32_t)num_requests : RK_METRICS_GROUPS;
        struct rk_score_list truth, scores;
        struct rk_head_metrics before, after;
        rk_score_list_init(&truth, 1);
        rk_score_list_init(&scores, 1);
        add_random(&random, &truth, num_requests, NULL, 0);
        add_random(&random, &scores, num_requests, &truth, 1);
        cr_assert_eq(rk_metrics_measure(&truth, &truth, NULL, &before, NULL), RK_OK);
        cr_assert_eq(rk_metrics_measure(&truth, &scores, NULL, &after, NULL), RK_OK);
        cr_assert_eq(before.num_groups, groups);
        double losses[RK_METRICS_GROUPS], mean = 0, squares = 0;
        for (uint32_t g = 0; g < groups; g++) {
            struct rk_scored own[700], changed[700];
            size_t left = 0;
            for (size_t r = 0; r < num_requests; r++)
                for (size_t i = truth.first[r]; r % groups != g && i < truth.first[r + 1]; i++, left++) {
                    own[left] = (struct rk_scored){.logit = (float)truth.logits[i], .positive = truth.labels[i]};
                    changed[left] = (struct rk_scored){.logit = (float)scores.logits[i], .positive = truth.labels[i]};
                }
            losses[g] = rk_metric_auc(own, left) - rk_metric_auc(changed, left);
            mean += losses[g] / groups;
        }
        for (uint32_t g = 0; g < groups; g++)
            squares += (losses[g] - mean) * (losses[g] - mean);
        const double expected = sqrt(squares * (groups - 1) / groups), got = rk_metric_auc_loss_error(&before, &after);
        cr_assert_float_eq(got, expected, 1e-12, "%.17g, leaving out by hand gives %.17g", got, expected);
        cr_assert_eq(rk_metric_auc_loss_error(&before, &before), 0);
        rk_score_list_deinit(&truth);
        rk_score_list_deinit(&scores);
    }
}

Test(metrics, nothing_to_measure_is_an_error)
{
    struct rk_score_list empty;
    struct rk_head_metrics heads[1];
    struct rk_error error = {0};
    rk_score_list_init(&empty, 1);
    cr_expect_eq(rk_metrics_measure(&empty, &empty, NULL, heads, &error), RK_INVALID);
    cr_expect_str_eq(error.text, "there are no candidates to measure");
    rk_score_list_deinit(&empty);
}
