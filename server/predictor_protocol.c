/* Little-endian arrays become features (server/rows.h): one array of those with weights, one of the others. TorchRec's
 * own servers take lengths as int32 and clients send what their tensors hold, so that the width of lengths and values
 * is read off how many there must be. */
#include "server/predictor_protocol.h"

#include <inttypes.h>
#include <string.h>

#include "proto/predictor.pb-c.h"
#include "proto/rank_codec.h"
#include "server/grpc/session.h"
#include "server/rank_answer.h"
#include "server/rank_service.h"
#include "server/rows.h"

#define NARROW sizeof(int32_t)
#define WIDE   sizeof(int64_t)

typedef Predictor__SparseFeatures Sparse;
typedef Predictor__FloatFeatures Floats;

static void *or_nothing(const ProtobufCBinaryData *data)
{
    static int64_t nothing[2]; /* arrays without elements, which nobody writes to */
    return data->data != NULL ? (void *)data->data : nothing;
}

static enum rk_status wrong_size(const char *what, const char *array, size_t bytes, uint64_t count, const char *types,
                                 struct rk_error *error)
{
    return rk_error_set(error, RK_INVALID, "%s.%s has %zu bytes; it takes %" PRIu64 " values of %s", what, array, bytes,
                        count, types);
}

/* ---- the request ---- */

static enum rk_status read_lengths(const Sparse *sparse, const char *what, uint64_t count, struct rk_arena *arena,
                                   struct rk_row_bags *bags, struct rk_error *error)
{
    bags->num_lengths = count;
    if (sparse->lengths.len == count * NARROW)
        return rk_rows_lengths32(or_nothing(&sparse->lengths), count, what, &bags->lengths, error);
    if (sparse->lengths.len == count * WIDE)
        return rk_rows_lengths64(or_nothing(&sparse->lengths), count, what, arena, &bags->lengths, error);
    return wrong_size(what, "lengths", sparse->lengths.len, count, "int32 or int64", error);
}

static enum rk_status read_values(const Sparse *sparse, const char *what, struct rk_arena *arena,
                                  struct rk_row_bags *bags, struct rk_error *error)
{
    bags->num_ids = 0;
    for (uint64_t i = 0; i < bags->num_lengths; i++)
        bags->num_ids += bags->lengths[i];
    if (sparse->values.len == bags->num_ids * WIDE) /* first: there may be none at all */
        bags->ids = or_nothing(&sparse->values);
    else if (sparse->values.len == bags->num_ids * NARROW)
        bags->ids = rk_rows_widen(or_nothing(&sparse->values), bags->num_ids, arena);
    else
        return wrong_size(what, "values", sparse->values.len, bags->num_ids, "int64 or int32, as the lengths add up to",
                          error);
    if (bags->ids == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request's ids");
    bags->weights = or_nothing(&sparse->weights);
    bags->num_weights = sparse->weights.len / sizeof(float);
    if (sparse->weights.len != 0 && sparse->weights.len != bags->num_ids * sizeof(float))
        return wrong_size(what, "weights", sparse->weights.len, bags->num_ids, "float32", error);
    return RK_OK;
}

static enum rk_status add_sparse(struct rk_rows *rows, const Sparse *sparse, bool weighted, struct rk_error *error)
{
    static const Sparse none = PREDICTOR__SPARSE_FEATURES__INIT;
    const char *what = weighted ? "id_score_list_features" : "id_list_features";
    const struct rk_row_choice choice = {.context = true,
                                         .candidates = true,
                                         .weighted = weighted,
                                         .not_weighted = !weighted};
    const uint32_t num_features = rk_rows_count_features(rows->spec, &choice);
    struct rk_row_bags bags = {0};
    if (sparse == NULL)
        sparse = &none;
    if (sparse->num_features != (int64_t)num_features)
        return rk_error_set(error, RK_INVALID, "%s.num_features is %d; model '%s' has %u features %s weights", what,
                            (int)sparse->num_features, rows->spec->name, num_features, weighted ? "with" : "without");
    enum rk_status status =
        read_lengths(sparse, what, (uint64_t)num_features * rows->num_rows, rows->arena, &bags, error);
    if (status == RK_OK)
        status = read_values(sparse, what, rows->arena, &bags, error);
    return status == RK_OK ? rk_rows_add_bags(rows, &choice, &bags, what, what, error) : status;
}

static enum rk_status add_floats(struct rk_rows *rows, const Floats *floats, struct rk_error *error)
{
    static const Floats none = PREDICTOR__FLOAT_FEATURES__INIT;
    const struct rk_model_spec *spec = rows->spec;
    const uint64_t width = (uint64_t)spec->num_context_dense + spec->num_candidate_dense;
    if (floats == NULL)
        floats = &none;
    if (floats->num_features != (int64_t)width)
        return rk_error_set(error, RK_INVALID,
                            "float_features.num_features is %d; model '%s' has %" PRIu64 " dense inputs",
                            (int)floats->num_features, spec->name, width);
    if (floats->values.len % sizeof(float) != 0)
        return wrong_size("float_features", "values", floats->values.len, width * rows->num_rows, "float32", error);
    return rk_rows_add_dense(rows, or_nothing(&floats->values), floats->values.len / sizeof(float),
                             "float_features.values", error);
}

static enum rk_status fill(const Predictor__PredictionRequest *request, const struct rk_model_spec *spec,
                           struct rk_job *job, Rankd__V1__RankRequest *message, struct rk_error *error)
{
    struct rk_rows rows;
    if (request->batch_size < 1)
        return rk_error_set(error, RK_INVALID, "batch_size is %d; a request has at least 1 row",
                            (int)request->batch_size);
    if ((request->embedding_features != NULL && request->embedding_features->values.len > 0) ||
        (request->unary_features != NULL && request->unary_features->values.len > 0))
        return rk_error_set(error, RK_INVALID,
                            "embedding_features and unary_features must be empty: no model here has such");
    enum rk_status status =
        rk_rows_begin(&rows, spec, &job->arena, message, (uint32_t)request->batch_size, false, error);
    if (status == RK_OK)
        status = add_floats(&rows, request->float_features, error);
    if (status == RK_OK)
        status = add_sparse(&rows, request->id_list_features, false, error);
    return status == RK_OK ? add_sparse(&rows, request->id_score_list_features, true, error) : status;
}

static enum rk_status choose_model(const struct rk_rank_entry *entry, const struct rk_call *call, const char **name,
                                   struct rk_error *error)
{
    const struct rk_registry *registry = entry->service->registry;
    const char *asked = rk_call_metadata(call, "model");
    *name = asked != NULL ? asked : entry->context;
    if (**name == '\0' && registry->num_models == 1)
        *name = registry->models[0].name;
    if (**name != '\0')
        return RK_OK;
    char served[300];
    rk_registry_list(registry, served, sizeof served);
    return rk_error_set(error, RK_INVALID,
                        "several models are served; say which in the call's metadata `model`, or set rankd's option "
                        "predictor_model; served: %s",
                        served);
}

static enum rk_status decode(const struct rk_rank_entry *entry, struct rk_job *job, const uint8_t *bytes, size_t length,
                             struct rk_error *error)
{
    struct rk_rank_details *details = job->details;
    ProtobufCMessage *decoded;
    enum rk_status status =
        rk_message_decode(&predictor__prediction_request__descriptor, bytes, length, &job->arena, &decoded, error);
    const char *name;
    if (status == RK_OK)
        status = choose_model(entry, job->call, &name, error);
    if (status != RK_OK)
        return status;
    Rankd__V1__RankRequest *message = rk_arena_alloc(&job->arena, sizeof *message);
    if (message == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request");
    rankd__v1__rank_request__init(message);
    details->message = message;
    message->model = (char *)name; /* only read, while there is the call */
    const struct rk_served_model *model = rk_registry_find(entry->service->registry, name);
    if (model == NULL)
        return RK_OK; /* said where every request's model is looked for */
    message->model = (char *)model->name;
    return fill((const Predictor__PredictionRequest *)decoded, model->spec, job, message, error);
}

/* ---- the answer ---- */

struct prediction {
    Predictor__PredictionResponse__PredictionsEntry entry;
    Predictor__FloatVec values;
};

/* What of [rows][heads] is one head's. */
static float *column(struct rk_job *job, const float *values, uint32_t head)
{
    const uint32_t rows = job->request.num_candidates, heads = job->model->spec->num_heads;
    float *column = rk_arena_alloc(&job->arena, rows * sizeof *column);
    for (uint32_t row = 0; column != NULL && row < rows; row++)
        column[row] = values[(size_t)row * heads + head];
    return column;
}

static enum rk_status encode(struct rk_job *job, const Rankd__V1__RankResponse *response, uint8_t **bytes,
                             size_t *length)
{
    const uint32_t heads = job->model->spec->num_heads;
    Predictor__PredictionResponse answer = PREDICTOR__PREDICTION_RESPONSE__INIT;
    struct prediction *predictions = rk_arena_array(&job->arena, heads + 1, sizeof *predictions);
    answer.predictions = rk_arena_array(&job->arena, heads + 1, sizeof *answer.predictions);
    if (predictions == NULL || answer.predictions == NULL)
        return RK_NO_MEMORY;
    for (uint32_t i = 0; i <= heads;
         i++) { /* the last is the first one's, under the name that TorchRec's client reads */
        struct prediction *prediction = &predictions[i];
        predictor__prediction_response__predictions_entry__init(&prediction->entry);
        predictor__float_vec__init(&prediction->values);
        prediction->values.data = column(job, response->probabilities, i % heads);
        prediction->values.n_data = job->request.num_candidates;
        prediction->entry.key = i < heads ? response->heads[i] : "default";
        prediction->entry.value = &prediction->values;
        if (prediction->values.data == NULL)
            return RK_NO_MEMORY;
        answer.predictions[answer.n_predictions++] = &prediction->entry;
    }
    return rk_message_encode(&answer.base, &job->arena, bytes, length);
}

const struct rk_rank_protocol rk_predictor_protocol = {.decode = decode, .encode = encode};
