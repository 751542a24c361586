/* Golden requests: a few requests with the scores that the model gave when it was packaged. They are replayed whenever
 * it is loaded, so that a model that this machine, this build or this damaged memory scores differently is never
 * served. */
#ifndef RANKD_MODEL_GOLDEN_H
#define RANKD_MODEL_GOLDEN_H

#include <stdbool.h>
#include <stdio.h>

#include "model/backends.h"
#include "model/jsonl.h"
#include "model/model.h"

/* A logit x may differ from its golden value g by RK_GOLDEN_TOLERANCE * max(1, |g|); on a backend that is not exact, by
 * what it says in addition. */
#define RK_GOLDEN_TOLERANCE 1e-5
#define RK_GOLDEN_BATCH     64u /* candidates per batch of a replay */

/* How far the logits of one request are off. A NaN counts as infinitely far. */
struct rk_golden_difference {
    double error; /* the largest |x - g| / max(1, |g|) */
    uint32_t candidate, head;
    double logit, expected;
};
struct rk_golden_difference rk_golden_compare(const float *logits, const struct rk_named_scores *expected);

/* Scores `requests` (copied to the stream before binding changes their ids) and prints the scores. `expected`, when not
 * NULL, holds as many scores that must be met. */
enum rk_status rk_golden_create(const struct rk_model *model, struct rk_named_request *requests, size_t num_requests,
                                const struct rk_named_scores *expected, FILE *requests_stream, FILE *scores_stream,
                                struct rk_error *error);

/* A model in a backend's device. */
struct rk_golden_place {
    const struct rk_backend *backend;
    struct rk_loaded *loaded;
    double error_bound; /* what rk_backend_error_bound says that it is at most */
};

/* Scores the requests of one text and compares with the scores of the other, line by line. place NULL: on the
 * processor. RK_CORRUPT names request, candidate and head. *largest, when not NULL, is the largest difference seen;
 * *count the number of requests. */
enum rk_status rk_golden_replay(const struct rk_model *model, const struct rk_golden_place *place, const char *requests,
                                size_t requests_length, const char *scores, size_t scores_length, double *largest,
                                uint32_t *count, struct rk_error *error);

#endif
