/* Probabilities, values, selection and encoding. All of it happens on a worker, so that event loops only move bytes.
 *
 * Rows of the response are candidates in request order, or with top_k the best ones; `positions` maps a row to its
 * candidate. */
#include "server/rank_answer.h"

#include <math.h>
#include <string.h>

#include "model/probability.h"
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

/* What the response is made of, row by row: first of all candidates, then of those that are returned. */
struct rows {
    uint32_t count;
    const float *logits; /* [count][heads] */
    float *probabilities;
    double *values;      /* [count]; NULL: there is no value model */
    uint32_t *positions; /* [count]; NULL: every candidate, in order */
    int64_t *ids;        /* [count]; NULL: the request had none */
};

static enum rk_status compute_rows(struct rk_job *job, struct rk_rank_details *details, struct rows *rows)
{
    const struct rk_model_spec *spec = job->model->spec;
    const Rankd__V1__RankRequest *message = details->message;
    const uint32_t count = job->request.num_candidates;
    *rows = (struct rows){.count = count, .logits = job->logits};
    rows->ids = message->n_candidate_ids > 0 ? message->candidate_ids : NULL;
    rows->probabilities = rk_arena_alloc(&job->arena, (size_t)count * spec->num_heads * sizeof(float));
    if (rows->probabilities == NULL)
        return RK_NO_MEMORY;
    rk_probabilities(spec, rows->logits, count, rows->probabilities);
    if (details->order.value == NULL)
        return RK_OK;
    rows->values = rk_arena_alloc(&job->arena, count * sizeof *rows->values);
    if (rows->values == NULL)
        return RK_NO_MEMORY;
    return rk_value_compute(details->order.value, spec->num_heads, rows->logits, rows->probabilities, count,
                            rows->values, &details->error);
}

/* The values, or the logits of the head that candidates are ordered by. */
static const double *scores_of(struct rk_job *job, const struct rk_rank_order *order, const struct rows *all)
{
    if (all->values != NULL)
        return all->values;
    double *scores = rk_arena_alloc(&job->arena, all->count * sizeof *scores);
    for (uint32_t c = 0; scores != NULL && c < all->count; c++)
        scores[c] = (double)all->logits[(size_t)c * job->model->spec->num_heads + order->head];
    return scores;
}

/* Copies the best k rows, best first, into arrays of their own. */
static enum rk_status select_rows(struct rk_job *job, const struct rk_rank_order *order, uint32_t k,
                                  const struct rows *all, struct rows *best)
{
    const size_t heads = job->model->spec->num_heads;
    const double *scores = scores_of(job, order, all);
    float *logits = rk_arena_alloc(&job->arena, k * heads * sizeof *logits);
    *best = (struct rows){
        .count = k,
        .logits = logits,
        .probabilities = rk_arena_alloc(&job->arena, k * heads * sizeof *best->probabilities),
        .values = rk_arena_alloc(&job->arena, k * sizeof *best->values),
        .positions = rk_arena_alloc(&job->arena, k * sizeof *best->positions),
        .ids = rk_arena_alloc(&job->arena, k * sizeof *best->ids),
    };
    if (scores == NULL || logits == NULL || best->probabilities == NULL || best->values == NULL ||
        best->positions == NULL || best->ids == NULL)
        return RK_NO_MEMORY;
    rk_top_k(scores, all->count, k, best->positions);
    for (uint32_t row = 0; row < k; row++) {
        const uint32_t from = best->positions[row];
        memcpy(logits + row * heads, all->logits + from * heads, heads * sizeof *logits);
        memcpy(best->probabilities + row * heads, all->probabilities + from * heads, heads * sizeof(float));
        best->values[row] = scores[from];
        best->ids[row] = all->ids != NULL ? all->ids[from] : 0;
    }
    if (all->values == NULL)
        best->values = NULL;
    if (all->ids == NULL)
        best->ids = NULL;
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
    const struct rk_rank_order *order = &details->order;
    Rankd__V1__RankResponse response = RANKD__V1__RANK_RESPONSE__INIT;
    struct rows all, best, *rows = &all;
    enum rk_status status = check_finite(job, &details->error);
    if (status == RK_OK)
        status = compute_rows(job, details, &all);
    if (status == RK_OK && message->top_k > 0) {
        rows = &best;
        status = select_rows(job, order, message->top_k < all.count ? message->top_k : all.count, &all, &best);
    }
    if (status == RK_OK)
        status = name_out_of_range(job, &response);
    if (status != RK_OK)
        return status;
    const size_t num_scores = (size_t)rows->count * spec->num_heads;
    response.request_id = message->request_id;
    response.model = (char *)job->model->name;
    response.version = job->model->version;
    response.heads = (char **)spec->heads;
    response.n_heads = spec->num_heads;
    response.probabilities = rows->probabilities;
    response.n_probabilities = num_scores;
    response.logits = (float *)rows->logits; /* the encoder only reads */
    response.n_logits = message->include_logits ? num_scores : 0;
    response.positions = rows->positions;
    response.n_positions = rows->positions != NULL ? rows->count : 0;
    response.candidate_ids = rows->ids;
    response.n_candidate_ids = rows->ids != NULL ? rows->count : 0;
    response.values = rows->values;
    response.n_values = rows->values != NULL ? rows->count : 0;
    response.degraded = details->degraded;
    response.ranked_candidates = details->degraded ? job->request.num_candidates : 0;
    if (order->value != NULL)
        response.value_model = (char *)order->value->name;
    return details->protocol->encode(job, &response, &details->answer, &details->answer_bytes);
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
    if (details->protocol->encode(job, &response, &bytes, &length) != RK_OK)
        return RK_NO_MEMORY;
    if (length == 0) /* the protocol keeps them to itself */
        return RK_OK;
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
