/* Comparing a model's scores with expected ones: the largest error, and per head the area under the ROC curve when the
 * expected scores come with labels. */
#ifndef RANKD_MODEL_TOOLS_COMPARE_H
#define RANKD_MODEL_TOOLS_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "model/jsonl.h"
#include "model/metrics.h"
#include "model/model.h"

struct comparison {
    uint64_t num_requests, num_logits;
    double error;    /* the largest |logit - expected| / max(1, |expected|) */
    char where[256]; /* which logit that was */
    bool labelled;   /* every request so far had labels */
    uint32_t num_heads;
    struct rk_scored *samples;      /* [num_samples][num_heads] */
    uint64_t num_samples, capacity; /* in candidates */
};

void comparison_init(struct comparison *comparison, uint32_t num_heads);
void comparison_deinit(struct comparison *comparison);

/* Adds one request's logits. RK_INVALID when id or shape differ. */
enum rk_status comparison_add(struct comparison *comparison, const struct rk_model_spec *spec, const char *id,
                              const float *logits, uint32_t num_candidates, const struct rk_named_scores *expected,
                              struct rk_error *error);

/* NaN without both kinds of samples. */
double comparison_auc(const struct comparison *comparison, uint32_t head);

/* Scores the requests of a file and, when expected_path is given, compares. `visit`, when not NULL, gets each request's
 * scores; another status than RK_OK stops the scoring. */
typedef enum rk_status score_visit_fn(void *context, const struct rk_named_request *named, const float *logits,
                                      const float *probabilities, uint32_t num_candidates, struct rk_error *error);
enum rk_status score_file(const struct rk_model *model, const char *requests_path, const char *expected_path,
                          uint32_t batch, score_visit_fn *visit, void *context, struct comparison *comparison,
                          struct rk_error *error);

/* Scores the requests of a file into a list that is set up for the model's heads. num_requests: how many there will be,
 * for the progress that is shown; 0: nobody knows. */
enum rk_status score_list_file(const struct rk_model *model, const char *requests_path, size_t num_requests,
                               struct rk_score_list *list, struct rk_error *error);

/* Prints the result for people. Returns whether the error is within the tolerance of golden requests. */
bool comparison_print(const struct comparison *comparison, const struct rk_model_spec *spec);

#endif
