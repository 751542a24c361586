/* What scores are worth, and how far those of two models are apart: the numbers behind `rankpack eval` and the planner.
 * All arithmetic is in float64. A figure that the data cannot give (no positives, no candidates) is NaN. */
#ifndef RANKD_MODEL_METRICS_H
#define RANKD_MODEL_METRICS_H

#include "model/score_list.h"
#include "model/spec.h"

#define RK_METRICS_TOP    10u
#define RK_METRICS_GROUPS 20u /* of requests, for standard errors */

/* One head's logit of one candidate, and what came of it. Logits must not be NaN. */
struct rk_scored {
    float logit;
    bool positive;
    uint8_t group;
};

/* The probability that a positive scores above a negative, ties half (Mann-Whitney). Sorts the samples. */
double rk_metric_auc(struct rk_scored *samples, size_t count);

/* The mean log loss divided by that of always predicting the samples' mean: below 1 is better than knowing nothing (He
 * et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook"). calibration: of the head's
 * probabilities, or NULL. */
double rk_metric_normalised_entropy(const struct rk_scored *samples, size_t count,
                                    const struct rk_calibration *calibration);

/* The smallest of the values that at least `percent` percent of them do not pass. Sorts the values. */
double rk_metric_percentile(double *values, size_t count, double percent);

/* How many of the best k candidates by one score are also among the best k by the other, over min(k, count); of equal
 * scores the earlier candidate is better, as rankd ranks them. places: scratch, [2 * count]. */
double rk_metric_top_overlap(const double *a, const double *b, size_t count, size_t k, uint32_t *places);

/* The figures of one head. Errors are |logit - true logit|. */
struct rk_head_metrics {
    double auc, normalised_entropy; /* NaN without labels */
    double largest_error, p999_error, mean_squared_error;
    double top_overlap;                    /* mean over the requests with the best RK_METRICS_TOP */
    double auc_without[RK_METRICS_GROUPS]; /* when a group is left out: request r is in group r mod num_groups */
    uint32_t num_groups;                   /* no more than requests */
};

/* calibration: [num_heads] of the model that gave the scores, or NULL. heads[num_heads] of scores against the truth,
 * which is about the same requests (rk_score_list_match) and brings the labels. RK_INVALID without candidates,
 * RK_NO_MEMORY. */
enum rk_status rk_metrics_measure(const struct rk_score_list *truth, const struct rk_score_list *scores,
                                  const struct rk_calibration *calibration, struct rk_head_metrics *heads,
                                  struct rk_error *error);

/* The standard error of before->auc - after->auc, both measured on the same requests: the jackknife over groups of
 * requests, because candidates of one request are not independent. NaN where there is no AUC or only one request. */
double rk_metric_auc_loss_error(const struct rk_head_metrics *before, const struct rk_head_metrics *after);

#endif
