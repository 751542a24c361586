/* Scoring files of requests and comparing them line by line with files of expected scores. One thread, one request in
 * memory at a time; samples for the AUC are kept, 8 bytes per candidate and head. */
#include "model/tools/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/engine.h"
#include "model/golden.h"
#include "model/probability.h"
#include "model/tools/cli.h"

void comparison_init(struct comparison *comparison, uint32_t num_heads)
{
    *comparison = (struct comparison){.labelled = true, .num_heads = num_heads};
}

void comparison_deinit(struct comparison *comparison)
{
    free(comparison->samples);
}

static enum rk_status add_labels(struct comparison *comparison, const float *logits, uint32_t num_candidates,
                                 const double *labels, struct rk_error *error)
{
    uint64_t needed = comparison->num_samples + num_candidates;
    if (needed > comparison->capacity) {
        uint64_t capacity = 2 * needed;
        struct rk_scored *samples = realloc(comparison->samples, capacity * comparison->num_heads * sizeof *samples);
        if (samples == NULL)
            return rk_error_set(error, RK_NO_MEMORY, "out of memory for %" PRIu64 " labels", needed);
        comparison->samples = samples;
        comparison->capacity = capacity;
    }
    size_t count = (size_t)num_candidates * comparison->num_heads;
    struct rk_scored *to = comparison->samples + comparison->num_samples * comparison->num_heads;
    for (size_t i = 0; i < count; i++)
        to[i] = (struct rk_scored){.logit = logits[i], .positive = labels[i] > 0.5};
    comparison->num_samples = needed;
    return RK_OK;
}

enum rk_status comparison_add(struct comparison *comparison, const struct rk_model_spec *spec, const char *id,
                              const float *logits, uint32_t num_candidates, const struct rk_named_scores *expected,
                              struct rk_error *error)
{
    if (strcmp(id, expected->id) != 0)
        return rk_error_set(error, RK_INVALID, "the expected scores are those of '%.64s', the request is '%.64s'",
                            expected->id, id);
    if (expected->num_candidates != num_candidates || (num_candidates > 0 && expected->num_heads != spec->num_heads))
        return rk_error_set(error, RK_INVALID, "expected are %u candidates x %u heads, the request has %u x %u",
                            expected->num_candidates, expected->num_heads, num_candidates, spec->num_heads);
    struct rk_golden_difference worst = rk_golden_compare(logits, expected);
    if (comparison->num_requests == 0 || worst.error > comparison->error) {
        comparison->error = worst.error;
        snprintf(comparison->where, sizeof comparison->where,
                 "request '%.64s', candidate %u, head '%.64s': %.9g, expected %.9g", id, worst.candidate,
                 spec->heads[worst.head], worst.logit, worst.expected);
    }
    comparison->num_requests++;
    comparison->num_logits += (uint64_t)num_candidates * spec->num_heads;
    comparison->labelled = comparison->labelled && expected->labels != NULL;
    return comparison->labelled ? add_labels(comparison, logits, num_candidates, expected->labels, error) : RK_OK;
}

double comparison_auc(const struct comparison *comparison, uint32_t head)
{
    struct rk_scored *column = malloc((comparison->num_samples + 1) * sizeof *column);
    if (column == NULL)
        return NAN;
    for (uint64_t i = 0; i < comparison->num_samples; i++)
        column[i] = comparison->samples[i * comparison->num_heads + head];
    const double auc = rk_metric_auc(column, comparison->num_samples);
    free(column);
    return auc;
}

struct scoring {
    const struct rk_model *model;
    struct rk_engine *engine;
    struct rk_jsonl_reader *expected; /* NULL: nothing to compare with */
    const char *expected_path;
    score_visit_fn *visit;
    void *context;
    struct comparison *comparison;
};

static enum rk_status compare_next(struct scoring *s, const char *id, const float *logits, uint32_t num_candidates,
                                   struct rk_arena *arena, struct rk_error *error)
{
    const char *line;
    size_t length;
    uint64_t number;
    struct rk_named_scores scores;
    enum rk_status status = rk_jsonl_next(s->expected, &line, &length, &number, error);
    if (status != RK_OK)
        return status;
    if (line == NULL)
        return rk_error_set(error, RK_INVALID, "%s has no scores for this request", s->expected_path);
    status = rk_jsonl_parse_scores(line, length, arena, &scores, error);
    if (status == RK_OK)
        status = comparison_add(s->comparison, rk_model_spec_of(s->model), id, logits, num_candidates, &scores, error);
    if (status != RK_OK)
        rk_error_prefix(error, "%s:%" PRIu64, s->expected_path, number);
    return status;
}

static enum rk_status score_request(void *context, uint64_t line, struct rk_named_request *named,
                                    struct rk_arena *arena, struct rk_error *error)
{
    struct scoring *s = context;
    const struct rk_model_spec *spec = rk_model_spec_of(s->model);
    struct rk_request request;
    (void)line;
    enum rk_status status = rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, named, arena, &request, error);
    if (status != RK_OK)
        return status;
    size_t count = (size_t)request.num_candidates * spec->num_heads;
    float *logits = rk_arena_array(arena, count, sizeof *logits);
    float *probabilities = rk_arena_array(arena, count, sizeof *probabilities);
    if (logits == NULL || probabilities == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %zu scores", count);
    status = rk_engine_score(s->engine, &request, logits);
    if (status != RK_OK)
        return rk_error_set(error, status, "the engine failed: %s", rk_status_name(status));
    rk_probabilities(spec, logits, request.num_candidates, probabilities);
    if (s->expected != NULL)
        status = compare_next(s, named->id, logits, request.num_candidates, arena, error);
    if (status == RK_OK && s->visit != NULL)
        status = s->visit(s->context, named, logits, probabilities, request.num_candidates, error);
    return status;
}

enum rk_status score_file(const struct rk_model *model, const char *requests_path, const char *expected_path,
                          uint32_t batch, score_visit_fn *visit, void *context, struct comparison *comparison,
                          struct rk_error *error)
{
    struct scoring s = {
        .model = model, .expected_path = expected_path, .visit = visit, .context = context, .comparison = comparison};
    enum rk_status status = rk_engine_create(model, batch, &s.engine, error);
    if (status == RK_OK && expected_path != NULL)
        status = rk_jsonl_open(expected_path, &s.expected, error);
    if (status == RK_OK)
        status = rk_jsonl_read(requests_path, score_request, &s, error);
    rk_jsonl_close(s.expected);
    rk_engine_destroy(s.engine);
    return status;
}

/* ---- into a list ---- */

#define LIST_BATCH 256u

struct collecting {
    struct rk_score_list *list;
    size_t num_requests; /* of the truth; 0 while it is not known */
    double *logits;
    size_t capacity;
};

static enum rk_status collect(void *context, const struct rk_named_request *named, const float *logits,
                              const float *probabilities, uint32_t num_candidates, struct rk_error *error)
{
    struct collecting *c = context;
    const size_t count = (size_t)num_candidates * c->list->num_heads;
    (void)probabilities;
    if (count > c->capacity) {
        free(c->logits);
        c->capacity = 2 * count;
        c->logits = malloc(c->capacity * sizeof *c->logits);
        if (c->logits == NULL)
            return rk_error_set(error, RK_NO_MEMORY, "out of memory for %zu logits", count);
    }
    for (size_t i = 0; i < count; i++)
        c->logits[i] = (double)logits[i];
    cli_progress_count("scoring requests", c->list->num_requests, c->num_requests);
    return rk_score_list_add(c->list, named->id, num_candidates, c->logits, NULL, error);
}

enum rk_status score_list_file(const struct rk_model *model, const char *requests_path, size_t num_requests,
                               struct rk_score_list *list, struct rk_error *error)
{
    struct collecting collecting = {.list = list, .num_requests = num_requests};
    enum rk_status status = score_file(model, requests_path, NULL, LIST_BATCH, collect, &collecting, NULL, error);
    free(collecting.logits);
    return status;
}

bool comparison_print(const struct comparison *comparison, const struct rk_model_spec *spec)
{
    bool fine = comparison->num_requests > 0 && comparison->error <= RK_GOLDEN_TOLERANCE;
    printf("compared   %" PRIu64 " logits of %" PRIu64 " requests\n", comparison->num_logits, comparison->num_requests);
    printf("largest    %.3g of max(1, |logit|), tolerance %g: %s\n", comparison->error, RK_GOLDEN_TOLERANCE,
           fine ? "within" : "NOT within");
    printf("           %s\n", comparison->where);
    for (uint32_t h = 0; comparison->labelled && comparison->num_samples > 0 && h < spec->num_heads; h++)
        printf("AUC        %s %.5f\n", spec->heads[h], comparison_auc(comparison, h));
    return fine;
}
