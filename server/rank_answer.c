/* Calibration, selection and encoding. All of it happens on a worker, so that event loops only move bytes.
 *
 * Rows of the response are candidates in request order, or with top_k the best ones; `positions` maps a row to its
 * candidate. */
#include "server/rank_answer.h"

#include <math.h>
#include <string.h>

#include "model/engine.h"
#include "proto/rank_codec.h"
#include "server/clock.h"
#include "server/job_cost.h"
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

/* Which features the ids out of range were of. */
static enum rk_status name_out_of_range(struct rk_job *job, Rankd__V1__RankResponse *response)
{
    const struct rk_model_spec *spec = job->model->spec;
    const uint64_t *counts = job->request.out_of_range;
    response->out_of_range_ids = job->request.out_of_range_ids;
    if (counts == NULL)
        return RK_OK;
    Rankd__V1__FeatureCount *items = rk_arena_array(&job->arena, spec->num_features, sizeof *items);
    response->out_of_range = rk_arena_array(&job->arena, spec->num_features, sizeof *response->out_of_range);
    if (items == NULL || response->out_of_range == NULL)
        return RK_NO_MEMORY;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        if (counts[f] == 0)
            continue;
        rankd__v1__feature_count__init(&items[f]);
        items[f].feature = (char *)spec->features[f].name;
        items[f].count = counts[f];
        response->out_of_range[response->n_out_of_range++] = &items[f];
    }
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
    if (name_out_of_range(job, &response) != RK_OK)
        return RK_NO_MEMORY;
    return rk_rank_response_encode(&response, &job->arena, &details->answer, &details->answer_bytes);
}

static double us(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e3 : 0.0;
}

static double sum_us(const _Atomic uint64_t *ns)
{
    return (double)atomic_load_explicit(ns, memory_order_relaxed) / 1e3;
}

/* What the answer itself cost is known once it is encoded. So the costs are encoded by themselves and put behind it:
 * parsers merge messages that follow one another. */
static enum rk_status append_costs(struct rk_job *job, struct rk_rank_details *details, uint64_t answer_ns)
{
    const struct rk_job_cost *cost = job->cost;
    const uint64_t now_ns = rk_clock_ns();
    Rankd__V1__Costs costs = RANKD__V1__COSTS__INIT;
    Rankd__V1__RankResponse response = RANKD__V1__RANK_RESPONSE__INIT;
    costs.receive_us = us(cost->start_ns, cost->queued_ns);
    costs.queue_us = us(cost->queued_ns, atomic_load_explicit(&cost->begun_ns, memory_order_relaxed));
    costs.lookup_us = sum_us(&cost->lookup_ns);
    costs.interaction_us = sum_us(&cost->interaction_ns);
    costs.towers_us = sum_us(&cost->towers_ns);
    costs.rest_us = sum_us(&cost->rest_ns);
    costs.answer_us = us(answer_ns, now_ns);
    costs.total_us = us(cost->start_ns, now_ns);
    costs.batches = (uint32_t)atomic_load_explicit(&cost->batches, memory_order_relaxed);
    costs.batch_candidates = atomic_load_explicit(&cost->batch_candidates, memory_order_relaxed);
    response.costs = &costs;
    uint8_t *bytes;
    size_t length;
    if (rk_rank_response_encode(&response, &job->arena, &bytes, &length) != RK_OK)
        return RK_NO_MEMORY;
    uint8_t *both = rk_arena_alloc(&job->arena, details->answer_bytes + length);
    if (both == NULL)
        return RK_NO_MEMORY;
    memcpy(both, details->answer, details->answer_bytes);
    memcpy(both + details->answer_bytes, bytes, length);
    details->answer = both;
    details->answer_bytes += length;
    return RK_OK;
}

void rk_rank_answer(struct rk_job *job)
{
    struct rk_rank_details *details = job->details;
    const uint64_t answer_ns = job->cost != NULL ? rk_clock_ns() : 0;
    enum rk_status status = build(job, details);
    if (status == RK_OK && job->cost != NULL)
        status = append_costs(job, details, answer_ns);
    if (status != RK_OK) {
        details->answer = NULL;
        rk_error_set(&details->error, status, "out of memory for the answer");
    }
}
