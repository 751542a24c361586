/* Creating and replaying golden requests: both bind each request and run it through a runner of their own, as a server
 * would. Texts are JSON lines, one request or one request's scores a line. One thread. */
#include "model/golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/probability.h"

struct rk_golden_difference rk_golden_compare(const float *logits, const struct rk_named_scores *expected)
{
    struct rk_golden_difference worst = {.error = -1};
    for (uint32_t c = 0; c < expected->num_candidates; c++) {
        for (uint32_t h = 0; h < expected->num_heads; h++) {
            size_t at = (size_t)c * expected->num_heads + h;
            double logit = (double)logits[at], wanted = expected->logits[at];
            double error = fabs(logit - wanted) / fmax(1, fabs(wanted));
            if (!isfinite(error))
                error = INFINITY;
            if (error > worst.error)
                worst = (struct rk_golden_difference){error, c, h, logit, wanted};
        }
    }
    if (worst.error < 0)
        worst.error = 0;
    return worst;
}

/* What scoring one request after the other needs. */
struct scorer {
    const struct rk_model *model;
    const struct rk_backend *backend;
    struct rk_loaded *own_loaded; /* when no place was given */
    struct rk_runner *runner;
    double tolerance;
    struct rk_arena arena; /* of the current request */
    float *logits, *probabilities;
    size_t capacity;
};

static enum rk_status scorer_init(struct scorer *scorer, const struct rk_model *model,
                                  const struct rk_golden_place *place, struct rk_error *error)
{
    *scorer = (struct scorer){.model = model, .backend = &rk_backend_cpu, .tolerance = RK_GOLDEN_TOLERANCE};
    rk_arena_init(&scorer->arena, 1u << 20);
    struct rk_device *device;
    enum rk_status status = RK_OK;
    if (place != NULL) {
        scorer->backend = place->backend;
        scorer->tolerance += place->error_bound;
    } else {
        status = rk_backend_cpu.open(&rk_backend_host, "", &device, error);
        if (status == RK_OK)
            status = rk_backend_cpu.load(device, model, NULL, &scorer->own_loaded, error);
    }
    if (status != RK_OK)
        return status;
    return scorer->backend->create(place != NULL ? place->loaded : scorer->own_loaded, RK_GOLDEN_BATCH, &scorer->runner,
                                   error);
}

static void scorer_deinit(struct scorer *scorer)
{
    scorer->backend->destroy(scorer->runner);
    rk_backend_cpu.unload(scorer->own_loaded);
    rk_arena_deinit(&scorer->arena);
    free(scorer->logits);
    free(scorer->probabilities);
}

static enum rk_status score(struct scorer *scorer, struct rk_named_request *named, struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(scorer->model);
    struct rk_request request;
    enum rk_status status = rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, named, &scorer->arena, &request, error);
    if (status != RK_OK)
        return status;
    size_t count = (size_t)request.num_candidates * spec->num_heads;
    if (count > scorer->capacity) {
        free(scorer->logits);
        free(scorer->probabilities);
        scorer->logits = malloc(count * sizeof(float));
        scorer->probabilities = malloc(count * sizeof(float));
        scorer->capacity = scorer->logits != NULL && scorer->probabilities != NULL ? count : 0;
        if (scorer->capacity == 0)
            return rk_error_set(error, RK_NO_MEMORY, "out of memory for %zu scores", count);
    }
    status = rk_backend_score(scorer->backend, scorer->runner, RK_GOLDEN_BATCH, spec->num_heads, &request,
                              scorer->logits, error);
    if (status != RK_OK) {
        rk_error_prefix(error, "backend %s failed", scorer->backend->name);
        return status;
    }
    for (size_t i = 0; i < count; i++)
        if (!isfinite(scorer->logits[i]))
            return rk_error_set(error, RK_CORRUPT, "candidate %zu, head '%s': the model gives %g, not a finite logit",
                                i / spec->num_heads, spec->heads[i % spec->num_heads], (double)scorer->logits[i]);
    rk_probabilities(spec, scorer->logits, request.num_candidates, scorer->probabilities);
    return RK_OK;
}

static enum rk_status compare(const struct scorer *scorer, uint32_t num_candidates,
                              const struct rk_named_scores *expected, double *largest, struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(scorer->model);
    if (expected->num_candidates != num_candidates || expected->num_heads != spec->num_heads)
        return rk_error_set(error, RK_CORRUPT,
                            "there are scores for %u candidates x %u heads, but the request has %u x %u",
                            expected->num_candidates, expected->num_heads, num_candidates, spec->num_heads);
    struct rk_golden_difference worst = rk_golden_compare(scorer->logits, expected);
    if (!(worst.error <= scorer->tolerance))
        return rk_error_set(
            error, RK_CORRUPT,
            "candidate %u, head '%s': backend %s gives the logit %.9g, expected is %.9g; the difference is "
            "%.2g of max(1, |logit|), the tolerance %g",
            worst.candidate, spec->heads[worst.head], scorer->backend->name, worst.logit, worst.expected, worst.error,
            scorer->tolerance);
    if (worst.error > *largest)
        *largest = worst.error;
    return RK_OK;
}

enum rk_status rk_golden_create(const struct rk_model *model, struct rk_named_request *requests, size_t num_requests,
                                const struct rk_named_scores *expected, FILE *requests_stream, FILE *scores_stream,
                                struct rk_error *error)
{
    struct rk_error local = {0};
    struct scorer scorer;
    double largest = 0;
    enum rk_status status = scorer_init(&scorer, model, NULL, &local);
    for (size_t i = 0; status == RK_OK && i < num_requests; i++) {
        rk_arena_reset(&scorer.arena, SIZE_MAX);
        if (!rk_jsonl_print_request(requests_stream, &requests[i])) {
            status = rk_error_set(&local, RK_NO_MEMORY, "out of memory for golden requests");
            break;
        }
        status = score(&scorer, &requests[i], &local);
        if (status == RK_OK && expected != NULL)
            status = compare(&scorer, requests[i].num_candidates, &expected[i], &largest, &local);
        if (status != RK_OK)
            rk_error_prefix(&local, "golden request %zu ('%.64s')", i + 1, requests[i].id);
        else
            rk_jsonl_print_scores(scores_stream, requests[i].id, scorer.logits, scorer.probabilities, NULL,
                                  requests[i].num_candidates, rk_model_spec_of(model)->num_heads);
    }
    scorer_deinit(&scorer);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}

/* Cuts the next line off the text; returns false at its end. */
static bool next_line(const char **text, const char *end, const char **line, size_t *length)
{
    if (*text == end)
        return false;
    const char *newline = memchr(*text, '\n', (size_t)(end - *text));
    *line = *text;
    *length = (size_t)((newline != NULL ? newline : end) - *text);
    *text = newline != NULL ? newline + 1 : end;
    return true;
}

enum rk_status rk_golden_replay(const struct rk_model *model, const struct rk_golden_place *place, const char *requests,
                                size_t requests_length, const char *scores, size_t scores_length, double *largest,
                                uint32_t *count, struct rk_error *error)
{
    struct rk_error local = {0};
    struct scorer scorer;
    const char *requests_end = requests + requests_length, *scores_end = scores + scores_length;
    uint32_t number = 0;
    double worst = 0;
    enum rk_status status = scorer_init(&scorer, model, place, &local);
    while (status == RK_OK) {
        const char *request_line = NULL, *scores_line = NULL;
        size_t request_length = 0, score_length = 0;
        bool has_request = next_line(&requests, requests_end, &request_line, &request_length);
        bool has_scores = next_line(&scores, scores_end, &scores_line, &score_length);
        if (has_request != has_scores || (!has_request && number == 0))
            status = rk_error_set(&local, RK_CORRUPT,
                                  "the golden files must have as many requests as scores, and at least one");
        if (status != RK_OK || !has_request)
            break;
        number++;
        rk_arena_reset(&scorer.arena, SIZE_MAX);
        struct rk_named_request named;
        struct rk_named_scores expected;
        status = rk_jsonl_parse(request_line, request_length, &scorer.arena, &named, &local);
        if (status == RK_OK)
            status = rk_jsonl_parse_scores(scores_line, score_length, &scorer.arena, &expected, &local);
        if (status == RK_OK)
            status = score(&scorer, &named, &local);
        if (status == RK_OK)
            status = compare(&scorer, named.num_candidates, &expected, &worst, &local);
        if (status != RK_OK)
            rk_error_prefix(&local, "golden request %u", number);
    }
    scorer_deinit(&scorer);
    if (largest != NULL)
        *largest = worst;
    if (count != NULL)
        *count = number;
    if (status == RK_INVALID || status == RK_EXHAUSTED)
        status = RK_CORRUPT; /* the package's own files are at fault, not a caller */
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}
