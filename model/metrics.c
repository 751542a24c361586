/* Metrics of scores. Each head is measured by itself, in columns copied out of [candidates][heads]. Any thread. */
#include "model/metrics.h"

#include <math.h>
#include <stdlib.h>

static int by_logit(const void *a, const void *b)
{
    const float x = ((const struct rk_scored *)a)->logit, y = ((const struct rk_scored *)b)->logit;
    return (x > y) - (x < y);
}

#define NO_GROUP RK_METRICS_GROUPS

/* Of sorted samples, those of one group left out. */
static double sorted_auc(const struct rk_scored *samples, size_t count, uint32_t without)
{
    double rank_sum = 0; /* of the positives; equal scores share the mean of their ranks */
    size_t positives = 0, ranked = 0;
    for (size_t begin = 0, end; begin < count; begin = end) {
        size_t tied = 0, tied_positives = 0;
        for (end = begin; end < count && !(samples[end].logit > samples[begin].logit); end++) {
            const bool counts = samples[end].group != without;
            tied += counts;
            tied_positives += counts && samples[end].positive;
        }
        rank_sum += (double)tied_positives * ((double)ranked + (double)(tied + 1) / 2);
        positives += tied_positives;
        ranked += tied;
    }
    const double negatives = (double)(ranked - positives);
    return (rank_sum - (double)positives * ((double)positives + 1) / 2) / ((double)positives * negatives);
}

double rk_metric_auc(struct rk_scored *samples, size_t count)
{
    qsort(samples, count, sizeof *samples, by_logit);
    return sorted_auc(samples, count, NO_GROUP);
}

double rk_metric_auc_loss_error(const struct rk_head_metrics *before, const struct rk_head_metrics *after)
{
    const double groups = (double)before->num_groups;
    double mean = 0, squares = 0;
    if (before->num_groups < 2)
        return NAN;
    for (uint32_t g = 0; g < before->num_groups; g++)
        mean += (before->auc_without[g] - after->auc_without[g]) / groups;
    for (uint32_t g = 0; g < before->num_groups; g++) {
        const double off = before->auc_without[g] - after->auc_without[g] - mean;
        squares += off * off;
    }
    return sqrt((groups - 1) / groups * squares);
}

double rk_metric_normalised_entropy(const struct rk_scored *samples, size_t count,
                                    const struct rk_calibration *calibration)
{
    const double scale = calibration != NULL ? (double)calibration->scale : 1;
    const double shift = calibration != NULL ? (double)calibration->shift : 0;
    double loss = 0, positives = 0;
    for (size_t i = 0; i < count; i++) {
        /* -log(sigmoid(x)) for a positive, -log(sigmoid(-x)) for a negative */
        const double logit = scale * (double)samples[i].logit + shift, x = samples[i].positive ? logit : -logit;
        loss += log1p(exp(-fabs(x))) + fmax(-x, 0);
        positives += samples[i].positive;
    }
    const double rate = positives / (double)count;
    return loss / (double)count / -(rate * log(rate) + (1 - rate) * log1p(-rate));
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double rk_metric_percentile(double *values, size_t count, double percent)
{
    if (count == 0)
        return NAN;
    qsort(values, count, sizeof *values, by_value);
    const double rank = ceil(percent / 100 * (double)count);
    return values[rank < 1 ? 0 : rank > (double)count ? count - 1 : (size_t)rank - 1];
}

/* Moves the best k of the places to the front, k at most count. k is small: one pass for each. */
static void select_best(const double *scores, uint32_t *places, size_t count, size_t k)
{
    for (size_t i = 0; i < count; i++)
        places[i] = (uint32_t)i;
    for (size_t i = 0; i < k; i++) {
        size_t best = i;
        for (size_t j = i + 1; j < count; j++) {
            const double x = scores[places[j]], y = scores[places[best]];
            if (x > y || (x == y && places[j] < places[best]))
                best = j;
        }
        const uint32_t moved = places[i];
        places[i] = places[best];
        places[best] = moved;
    }
}

double rk_metric_top_overlap(const double *a, const double *b, size_t count, size_t k, uint32_t *places)
{
    if (k > count)
        k = count;
    select_best(a, places, count, k);
    select_best(b, places + count, count, k);
    size_t shared = 0;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            shared += places[i] == places[count + j];
    return (double)shared / (double)k;
}

/* Columns of one head. */
struct columns {
    struct rk_scored *samples;        /* [candidates] */
    double *logits, *truths, *errors; /* [candidates] */
    uint32_t *places;                 /* [2 * the largest request] */
};

static void measure_head(const struct rk_score_list *truth, const struct rk_score_list *scores, uint32_t head,
                         const struct columns *c, const struct rk_calibration *calibration,
                         struct rk_head_metrics *metrics)
{
    const size_t count = truth->num_candidates;
    double squares = 0, overlap = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t at = i * truth->num_heads + head;
        c->logits[i] = scores->logits[at];
        c->truths[i] = truth->logits[at];
        c->errors[i] = fabs(c->logits[i] - c->truths[i]);
        squares += c->errors[i] * c->errors[i];
        c->samples[i] = (struct rk_scored){.logit = (float)scores->logits[at], .positive = truth->labels[at]};
    }
    const uint32_t groups = truth->num_requests < RK_METRICS_GROUPS ? (uint32_t)truth->num_requests : RK_METRICS_GROUPS;
    for (size_t r = 0; r < truth->num_requests; r++) {
        const size_t first = truth->first[r];
        for (size_t i = first; i < truth->first[r + 1]; i++)
            c->samples[i].group = (uint8_t)(r % groups);
        overlap += rk_metric_top_overlap(c->logits + first, c->truths + first, truth->first[r + 1] - first,
                                         RK_METRICS_TOP, c->places);
    }
    *metrics = (struct rk_head_metrics){
        .auc = truth->labelled ? rk_metric_auc(c->samples, count) : NAN,
        .normalised_entropy = truth->labelled ? rk_metric_normalised_entropy(c->samples, count, calibration) : NAN,
        .mean_squared_error = squares / (double)count,
        .p999_error = rk_metric_percentile(c->errors, count, 99.9),
        .top_overlap = overlap / (double)truth->num_requests,
        .num_groups = groups,
    };
    for (uint32_t g = 0; g < groups; g++) /* the AUC has sorted the samples */
        metrics->auc_without[g] = truth->labelled ? sorted_auc(c->samples, count, g) : NAN;
    metrics->largest_error = c->errors[count - 1]; /* the percentile has sorted them */
}

enum rk_status rk_metrics_measure(const struct rk_score_list *truth, const struct rk_score_list *scores,
                                  const struct rk_calibration *calibration, struct rk_head_metrics *heads,
                                  struct rk_error *error)
{
    const size_t count = truth->num_candidates;
    if (count == 0)
        return rk_error_set(error, RK_INVALID, "there are no candidates to measure");
    size_t largest = 0;
    for (size_t r = 0; r < truth->num_requests; r++)
        if (truth->first[r + 1] - truth->first[r] > largest)
            largest = truth->first[r + 1] - truth->first[r];
    const struct columns c = {
        .samples = malloc(count * sizeof *c.samples),
        .logits = malloc(count * sizeof *c.logits),
        .truths = malloc(count * sizeof *c.truths),
        .errors = malloc(count * sizeof *c.errors),
        .places = malloc(2 * largest * sizeof *c.places),
    };
    enum rk_status status = RK_OK;
    if (c.samples == NULL || c.logits == NULL || c.truths == NULL || c.errors == NULL || c.places == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory for the metrics of %zu candidates", count);
    for (uint32_t h = 0; status == RK_OK && h < truth->num_heads; h++)
        measure_head(truth, scores, h, &c, calibration != NULL ? &calibration[h] : NULL, &heads[h]);
    free(c.samples);
    free(c.logits);
    free(c.truths);
    free(c.errors);
    free(c.places);
    return status;
}
