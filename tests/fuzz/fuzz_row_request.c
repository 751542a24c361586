/* Any bytes as a request of the protocols that send rows: ModelInfer (first byte even) or Predict (odd). Refused with a
 * reason, or a request that binds or is refused there, without a read or write past what was sent. */
#include <stdlib.h>
#include <string.h>

#include "server/grpc/call.h"
#include "server/inference_protocol.h"
#include "server/predictor_protocol.h"
#include "server/rank_answer.h"
#include "server/rank_service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The features of the demo model: three of the context, one of them weighted, and two of the candidates. */
static const struct rk_table_spec table = {.name = "t", .num_embeddings = 1000, .embedding_dim = 4};
static const struct rk_feature_spec features[] = {
    {.name = "history", .side = RK_SIDE_CONTEXT, .weighted = true},
    {.name = "top", .side = RK_SIDE_CONTEXT},
    {.name = "user", .side = RK_SIDE_CONTEXT},
    {.name = "game", .side = RK_SIDE_CANDIDATE},
    {.name = "cross", .side = RK_SIDE_CANDIDATE},
};
static const char *const dense[] = {"a", "b", "c"};
static const char *const heads[] = {"play", "binge"};
static const struct rk_model_spec spec = {.name = "m",
                                          .tables = &table,
                                          .num_tables = 1,
                                          .features = features,
                                          .num_features = 5,
                                          .context_dense = dense,
                                          .num_context_dense = 2,
                                          .candidate_dense = dense + 2,
                                          .num_candidate_dense = 1,
                                          .heads = heads,
                                          .num_heads = 2};

static struct rk_named_block block_of(const Rankd__V1__Features *from, struct rk_arena *arena)
{
    struct rk_named_bags *bags = rk_arena_array(arena, from->n_ids, sizeof *bags);
    for (size_t i = 0; i < from->n_ids; i++) {
        const Rankd__V1__JaggedIds *ids = from->ids[i];
        bags[i] = (struct rk_named_bags){.name = ids->feature,
                                         .name_bytes = strlen(ids->feature),
                                         .ids = ids->ids,
                                         .num_ids = ids->n_ids,
                                         .lengths = ids->lengths,
                                         .num_lengths = ids->n_lengths,
                                         .weights = ids->weights,
                                         .num_weights = ids->n_weights};
    }
    return (struct rk_named_block){.dense = from->dense,
                                   .num_dense = from->n_dense,
                                   .features = bags,
                                   .num_features = (uint32_t)from->n_ids};
}

static void bind_request(const Rankd__V1__RankRequest *message, struct rk_job *job)
{
    const struct rk_request_limits limits = {.max_candidates = 1000, .max_ids = 100000};
    struct rk_error error = {0};
    struct rk_named_request named = {.id = "",
                                     .context = block_of(message->context, &job->arena),
                                     .candidates = block_of(message->candidates, &job->arena),
                                     .num_candidates = message->num_candidates};
    const enum rk_status status = rk_request_bind(&spec, &limits, &named, &job->arena, &job->request, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct rk_served_model model = {.name = "m", .version = 1, .spec = &spec};
    const struct rk_registry registry = {.models = &model, .num_models = 1};
    struct rk_rank_service service = {.registry = &registry};
    struct rk_inference_stats stats = {0};
    const bool predict = data[0] % 2 == 1;
    const struct rk_rank_entry entry = {.service = &service,
                                        .protocol = predict ? &rk_predictor_protocol : &rk_inference_protocol,
                                        .context = predict ? (void *)"" : &stats};
    struct rk_call call = {.start_us = 1000, .deadline_us = UINT64_MAX};
    struct rk_rank_details details = {.protocol = entry.protocol};
    struct rk_job job = {.call = &call, .details = &details, .deadline_us = UINT64_MAX};
    struct rk_error error = {0};
    rk_arena_init(&job.arena, 4096);
    const enum rk_status status = entry.protocol->decode(&entry, &job, data + 1, size - 1, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
    if (status == RK_OK && strcmp(details.message->model, "m") == 0 && details.message->context != NULL)
        bind_request(details.message, &job);
    rk_arena_deinit(&job.arena);
    return 0;
}
