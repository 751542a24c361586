/* Calibration, selection and encoding. All of it happens on a worker, so that event loops only move bytes.
 *
 * Rows of the response are candidates in request order, or with top_k the best ones; `positions` maps a row to its
 * candidate. */
#include "server/rank_answer.h"

#include <math.h>

#include "model/engine.h"
#include "proto/rank_codec.h"
#include "server/top_k.h"

static enum rk_status check_finite(const struct rk_job *job, struct rk_error *error)
{
    const struct rk_model_spec *spec = job->model->spec;
    size_t count = (size_t)job->request.num_candidates * spec->num_heads;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(job->logits[i]))
            return rk_error_set(error, RK_INTERNAL,
                                "the logit of candidate %zu, head '%s', is %g: the model's weights or the "
                                "request's values are too large",
                                i / spec->num_heads, spec->heads[i % spec->num_heads], (double)job->logits[i]);
    return RK_OK;
}

/* Copies the rows that are returned, best first, into arrays of their own. */
static enum rk_status select_rows(struct rk_job *job, const struct rk_rank_details *details,
                                  Rankd__V1__RankResponse *response, const float **logits)
{
    const Rankd__V1__RankRequest *message = details->message;
    uint32_t heads = job->model->spec->num_heads;
    uint32_t rows = job->request.num_candidates < message->top_k ? job->request.num_candidates : message->top_k;
    uint32_t *positions = rk_arena_alloc(&job->arena, rows * sizeof *positions);
    int64_t *ids = rk_arena_alloc(&job->arena, rows * sizeof *ids);
    float *chosen = rk_arena_alloc(&job->arena, (size_t)rows * heads * sizeof *chosen);
    if (positions == NULL || ids == NULL || chosen == NULL)
        return RK_NO_MEMORY;
    rk_top_k(job->logits + details->order_by, heads, job->request.num_candidates, rows, positions);
    for (uint32_t row = 0; row < rows; row++) {
        if (message->n_candidate_ids > 0)
            ids[row] = message->candidate_ids[positions[row]];
        for (uint32_t head = 0; head < heads; head++)
            chosen[(size_t)row * heads + head] = job->logits[(size_t)positions[row] * heads + head];
    }
    response->positions = positions;
    response->n_positions = rows;
    response->candidate_ids = ids;
    response->n_candidate_ids = message->n_candidate_ids > 0 ? rows : 0;
    response->n_probabilities = (size_t)rows * heads;
    *logits = chosen;
    return RK_OK;
}

static enum rk_status build(struct rk_job *job, struct rk_rank_details *details)
{
    const struct rk_model_spec *spec = job->model->spec;
    const Rankd__V1__RankRequest *message = details->message;
    Rankd__V1__RankResponse response = RANKD__V1__RANK_RESPONSE__INIT;
    const float *logits = job->logits;
    enum rk_status status = check_finite(job, &details->error);
    if (status != RK_OK)
        return status;
    response.n_probabilities = (size_t)job->request.num_candidates * spec->num_heads;
    response.candidate_ids = message->candidate_ids;
    response.n_candidate_ids = message->n_candidate_ids;
    if (message->top_k > 0)
        status = select_rows(job, details, &response, &logits);
    response.probabilities = rk_arena_alloc(&job->arena, response.n_probabilities * sizeof(float));
    if (status != RK_OK || response.probabilities == NULL)
        return RK_NO_MEMORY;
    for (size_t i = 0; i < response.n_probabilities; i++)
        response.probabilities[i] = rk_sigmoid(logits[i]);
    if (message->include_logits) {
        response.logits = (float *)logits; /* the encoder only reads */
        response.n_logits = response.n_probabilities;
    }
    response.request_id = message->request_id;
    response.model = (char *)job->model->name;
    response.version = job->model->version;
    response.heads = (char **)spec->heads;
    response.n_heads = spec->num_heads;
    response.out_of_range_ids = job->request.out_of_range_ids;
    return rk_rank_response_encode(&response, &job->arena, &details->answer, &details->answer_bytes);
}

void rk_rank_answer(struct rk_job *job)
{
    struct rk_rank_details *details = job->details;
    enum rk_status status = build(job, details);
    if (status != RK_OK) {
        details->answer = NULL;
        rk_error_set(&details->error, status, "out of memory for the answer");
    }
}
