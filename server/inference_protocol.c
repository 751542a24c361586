/* The request's tensors become features (server/rows.h), the response's scores become tensors; all scores are raw
 * bytes, as Triton sends them. Where the time went is asked of every request, and summed up for ModelStatistics. */
#include "server/inference_protocol.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/rank_codec.h"
#include "server/grpc/session.h"
#include "server/inference_tensors.h"
#include "server/rank_answer.h"
#include "server/rank_service.h"
#include "server/rows.h"

/* What the answer needs of the request. */
struct asked {
    enum rk_output outputs[RK_OUTPUT_COUNT];
    size_t num_outputs;
    struct rk_inference_stats *stats;
};

/* ---- the request ---- */

enum rk_status rk_inference_version(const char *text, int64_t *version, struct rk_error *error)
{
    char *end;
    *version = 0;
    if (text[0] == '\0')
        return RK_OK;
    *version = text[0] >= '1' && text[0] <= '9' ? strtoll(text, &end, 10) : 0;
    if (*version <= 0 || *version == INT64_MAX || *end != '\0')
        return rk_error_set(error, RK_INVALID,
                            "the version is '%.32s'; it takes a number from 1, or nothing for the one served", text);
    return RK_OK;
}

static enum rk_status read_parameters(const Inference__ModelInferRequest *request, struct rk_job *job,
                                      Rankd__V1__RankRequest *message, struct rk_error *error)
{
    for (size_t i = 0; i < request->n_parameters; i++) {
        const char *key = request->parameters[i]->key;
        const Inference__InferParameter *value = request->parameters[i]->value;
        if (strcmp(key, "priority") == 0) {
            if (value == NULL ||
                value->parameter_choice_case != INFERENCE__INFER_PARAMETER__PARAMETER_CHOICE_STRING_PARAM)
                return rk_error_set(error, RK_INVALID,
                                    "the parameter 'priority' is no string; it takes the name of a class");
            message->priority = value->string_param;
        } else if (strcmp(key, "timeout") == 0 && value != NULL &&
                   value->parameter_choice_case == INFERENCE__INFER_PARAMETER__PARAMETER_CHOICE_INT64_PARAM &&
                   value->int64_param > 0) { /* microseconds, as Triton has it */
            const uint64_t by_us = rk_call_start_us(job->call) + (uint64_t)value->int64_param;
            if (by_us < job->deadline_us)
                job->deadline_us = by_us;
        }
    }
    return RK_OK;
}

static enum rk_status read_outputs(const Inference__ModelInferRequest *request, struct asked *asked,
                                   struct rk_error *error)
{
    for (size_t i = 0; i < request->n_outputs; i++) {
        const Inference__ModelInferRequest__InferRequestedOutputTensor *output = request->outputs[i];
        size_t kind = 0;
        while (kind < RK_OUTPUT_COUNT && strcmp(rk_output_kinds[kind].name, output->name) != 0)
            kind++;
        if (kind == RK_OUTPUT_COUNT || asked->num_outputs == RK_OUTPUT_COUNT)
            return rk_error_set(error, RK_INVALID, "output '%.128s' is %s; a model gives probabilities and logits",
                                output->name, kind == RK_OUTPUT_COUNT ? "not there" : "one too many");
        if (output->n_parameters > 0 && strcmp(output->parameters[0]->key, "binary_data") != 0)
            return rk_error_set(error, RK_UNSUPPORTED,
                                "output '%s' has the parameter '%.64s', which rankd does not have", output->name,
                                output->parameters[0]->key);
        asked->outputs[asked->num_outputs++] = (enum rk_output)kind;
    }
    if (asked->num_outputs == 0) {
        for (size_t kind = 0; kind < RK_OUTPUT_COUNT; kind++)
            asked->outputs[asked->num_outputs++] = (enum rk_output)kind;
    }
    return RK_OK;
}

/* Candidates in the request: dense [n, inputs] says so, or lengths [features, n]. */
static enum rk_status count_rows(const struct rk_tensor *tensors, uint32_t num_features, uint64_t width,
                                 uint32_t *count, struct rk_error *error)
{
    const struct rk_tensor *dense = &tensors[RK_INPUT_DENSE], *lengths = &tensors[RK_INPUT_LENGTHS];
    uint64_t rows = 0;
    if (dense->given && width > 0)
        rows = dense->count / width;
    else if (lengths->given && num_features > 0)
        rows = lengths->count / num_features;
    *count = (uint32_t)rows; /* counts are at most 32 bits wide */
    return rows > 0
               ? RK_OK
               : rk_error_set(error, RK_INVALID,
                              "there are no rows: dense is [rows, %" PRIu64 "], lengths is [%u, rows], rows at least 1",
                              width, num_features);
}

static enum rk_status to_bags(const struct rk_tensor *tensors, struct rk_arena *arena, const char *name,
                              struct rk_row_bags *bags, struct rk_error *error)
{
    const struct rk_tensor *lengths = &tensors[RK_INPUT_LENGTHS], *indices = &tensors[RK_INPUT_INDICES];
    *bags = (struct rk_row_bags){.num_lengths = lengths->count,
                                 .ids = indices->data,
                                 .num_ids = indices->count,
                                 .weights = tensors[RK_INPUT_WEIGHTS].data,
                                 .num_weights = tensors[RK_INPUT_WEIGHTS].count};
    if (indices->is_int32)
        bags->ids = rk_rows_widen(indices->data, indices->count, arena);
    if (bags->ids == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request's ids");
    return lengths->is_int32 ? rk_rows_lengths32(lengths->data, lengths->count, name, &bags->lengths, error)
                             : rk_rows_lengths64(lengths->data, lengths->count, name, arena, &bags->lengths, error);
}

static enum rk_status add_bags(struct rk_rows *rows, const struct rk_tensor *tensors, size_t first,
                               const struct rk_row_choice *choice, struct rk_error *error)
{
    const char *lengths = rk_input_kinds[first + RK_INPUT_LENGTHS].name;
    const char *indices = rk_input_kinds[first + RK_INPUT_INDICES].name;
    struct rk_row_bags bags;
    enum rk_status status = to_bags(tensors + first, rows->arena, lengths, &bags, error);
    return status == RK_OK ? rk_rows_add_bags(rows, choice, &bags, lengths, indices, error) : status;
}

static enum rk_status fill_features(const struct rk_tensor *tensors, const struct rk_model_spec *spec,
                                    struct rk_job *job, Rankd__V1__RankRequest *message, struct rk_error *error)
{
    bool apart = false;
    for (size_t i = RK_INPUT_CONTEXT; i < RK_INPUT_COUNT; i++)
        apart = apart || tensors[i].given;
    const struct rk_row_choice choice = {.context = !apart, .candidates = true, .weighted = true, .not_weighted = true};
    const struct rk_row_choice context = {.context = true, .weighted = true, .not_weighted = true};
    const uint64_t width = (apart ? 0 : spec->num_context_dense) + (uint64_t)spec->num_candidate_dense;
    struct rk_rows rows;
    uint32_t num_rows;
    enum rk_status status = count_rows(tensors, rk_rows_count_features(spec, &choice), width, &num_rows, error);
    if (status == RK_OK)
        status = rk_rows_begin(&rows, spec, &job->arena, message, num_rows, apart, error);
    if (status == RK_OK)
        status = rk_rows_add_dense(&rows, tensors[RK_INPUT_DENSE].data, tensors[RK_INPUT_DENSE].count, "dense", error);
    if (status == RK_OK && apart) {
        message->context->dense = tensors[RK_INPUT_CONTEXT + RK_INPUT_DENSE].data;
        message->context->n_dense = tensors[RK_INPUT_CONTEXT + RK_INPUT_DENSE].count;
        status = add_bags(&rows, tensors, RK_INPUT_CONTEXT, &context, error);
    }
    return status == RK_OK ? add_bags(&rows, tensors, 0, &choice, error) : status;
}

static enum rk_status decode(const struct rk_rank_entry *entry, struct rk_job *job, const uint8_t *bytes, size_t length,
                             struct rk_error *error)
{
    struct rk_rank_details *details = job->details;
    struct rk_tensor tensors[RK_INPUT_COUNT];
    ProtobufCMessage *decoded;
    enum rk_status status =
        rk_message_decode(&inference__model_infer_request__descriptor, bytes, length, &job->arena, &decoded, error);
    if (status != RK_OK)
        return status;
    const Inference__ModelInferRequest *request = (const Inference__ModelInferRequest *)decoded;
    Rankd__V1__RankRequest *message = rk_arena_alloc(&job->arena, sizeof *message);
    struct asked *asked = rk_arena_array(&job->arena, 1, sizeof *asked);
    if (message == NULL || asked == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request");
    rankd__v1__rank_request__init(message);
    details->message = message;
    details->extra = asked;
    message->model = request->model_name;
    message->request_id = request->id;
    message->include_costs = true;
    status = rk_inference_version(request->model_version, &message->version, error);
    const struct rk_served_model *model = rk_registry_find(entry->service->registry, request->model_name);
    if (status != RK_OK || model == NULL)
        return status; /* that there is no such model is said where every request's is looked for */
    asked->stats = &((struct rk_inference_stats *)entry->context)[model->index];
    status = read_parameters(request, job, message, error);
    if (status == RK_OK)
        status = read_outputs(request, asked, error);
    for (size_t i = 0; i < asked->num_outputs; i++)
        message->include_logits = message->include_logits || asked->outputs[i] == RK_OUTPUT_LOGITS;
    if (status == RK_OK)
        status = rk_tensors_read(request, tensors, error);
    return status == RK_OK ? fill_features(tensors, model->spec, job, message, error) : status;
}

/* ---- the answer ---- */

static void add(_Atomic uint64_t *sum, double us)
{
    atomic_fetch_add_explicit(sum, (uint64_t)(us * 1e3), memory_order_relaxed);
}

static void count(struct rk_inference_stats *stats, uint32_t candidates, const Rankd__V1__Costs *costs)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    atomic_store_explicit(&stats->last_ms, (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u,
                          memory_order_relaxed);
    atomic_fetch_add_explicit(&stats->requests, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&stats->candidates, candidates, memory_order_relaxed);
    atomic_fetch_add_explicit(&stats->batches, costs->batches, memory_order_relaxed);
    add(&stats->total_ns, costs->total_us);
    add(&stats->input_ns, costs->receive_us);
    add(&stats->queue_ns, costs->queue_us);
    add(&stats->infer_ns, costs->lookup_us + costs->interaction_us + costs->towers_us + costs->rest_us);
    add(&stats->output_ns, costs->answer_us);
}

static enum rk_status encode(struct rk_job *job, const Rankd__V1__RankResponse *response, uint8_t **bytes,
                             size_t *length)
{
    const struct rk_rank_details *details = job->details;
    const struct asked *asked = details->extra;
    const uint32_t heads = job->model->spec->num_heads, rows = job->request.num_candidates;
    if (response->costs != NULL) { /* they are counted, not sent */
        count(asked->stats, rows, response->costs);
        *length = 0;
        *bytes = details->answer;
        return RK_OK;
    }
    Inference__ModelInferResponse answer = INFERENCE__MODEL_INFER_RESPONSE__INIT;
    Inference__ModelInferResponse__InferOutputTensor outputs[RK_OUTPUT_COUNT], *list[RK_OUTPUT_COUNT];
    ProtobufCBinaryData raw[RK_OUTPUT_COUNT];
    int64_t shape[2] = {rows, heads};
    for (size_t i = 0; i < asked->num_outputs; i++) {
        const struct rk_tensor_kind *kind = &rk_output_kinds[asked->outputs[i]];
        const bool logits = asked->outputs[i] == RK_OUTPUT_LOGITS;
        inference__model_infer_response__infer_output_tensor__init(&outputs[i]);
        outputs[i].name = (char *)kind->name; /* the encoder only reads */
        outputs[i].datatype = (char *)kind->datatype;
        outputs[i].shape = shape;
        outputs[i].n_shape = 2;
        list[i] = &outputs[i];
        raw[i] = (ProtobufCBinaryData){(size_t)rows * heads * sizeof(float),
                                       (uint8_t *)(logits ? response->logits : response->probabilities)};
    }
    answer.model_name = response->model;
    answer.model_version = rk_arena_printf(&job->arena, "%" PRId64, response->version);
    answer.id = response->request_id;
    answer.outputs = list;
    answer.n_outputs = asked->num_outputs;
    answer.raw_output_contents = raw;
    answer.n_raw_output_contents = asked->num_outputs;
    return answer.model_version != NULL ? rk_message_encode(&answer.base, &job->arena, bytes, length) : RK_NO_MEMORY;
}

const struct rk_rank_protocol rk_inference_protocol = {.decode = decode, .encode = encode};
