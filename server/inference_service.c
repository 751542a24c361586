/* A table of methods: each decodes its request, and has a function that makes the response in the arena. Answers on the
 * spot. */
#include "server/inference_service.h"

#include <inttypes.h>
#include <string.h>

#include "proto/inference.pb-c.h"
#include "proto/rank_codec.h"
#include "server/daemon.h"
#include "server/inference_tensors.h"

#define ARENA_KEEP_BYTES 65536
#define PLATFORM         "rankd"

struct rk_inference_row {
    const char *path;
    const ProtobufCMessageDescriptor *request;
    /* *response: in the arena. */
    enum rk_status (*answer)(struct rk_inference_service *service, const ProtobufCMessage *request,
                             ProtobufCMessage **response, struct rk_error *error);
};

/* A message in the arena, initialised. */
#define NEW(type, init)                                                                                                \
    type *response = rk_arena_alloc(&service->arena, sizeof *response);                                                \
    if (response == NULL)                                                                                              \
        return RK_NO_MEMORY;                                                                                           \
    init(response);                                                                                                    \
    *result = &response->base

/* ---- models ---- */

static enum rk_status find_model(const struct rk_inference_service *service, const char *name, const char *version,
                                 const struct rk_served_model **model, struct rk_error *error)
{
    int64_t number;
    enum rk_status status = rk_inference_version(version, &number, error);
    if (status != RK_OK)
        return status;
    const struct rk_served_model *found = rk_registry_find(service->serving.registry, name);
    if (found != NULL && (number == 0 || number == found->version)) {
        *model = found;
        return RK_OK;
    }
    char served[300];
    rk_registry_list(service->serving.registry, served, sizeof served);
    return rk_error_set(error, RK_NOT_FOUND, "there is no model '%.128s'%s%.20s; served: %s", name,
                        number != 0 ? " version " : "", number != 0 ? version : "", served);
}

static char *version_text(struct rk_inference_service *service, const struct rk_served_model *model)
{
    return rk_arena_printf(&service->arena, "%" PRId64, model->version);
}

static enum rk_status server_live(struct rk_inference_service *service, const ProtobufCMessage *request,
                                  ProtobufCMessage **result, struct rk_error *error)
{
    (void)request, (void)error;
    NEW(Inference__ServerLiveResponse, inference__server_live_response__init);
    response->live = true;
    return RK_OK;
}

static enum rk_status server_ready(struct rk_inference_service *service, const ProtobufCMessage *request,
                                   ProtobufCMessage **result, struct rk_error *error)
{
    (void)request, (void)error;
    NEW(Inference__ServerReadyResponse, inference__server_ready_response__init);
    response->ready = rk_serving_is(&service->serving, NULL);
    return RK_OK;
}

static enum rk_status model_ready(struct rk_inference_service *service, const ProtobufCMessage *message,
                                  ProtobufCMessage **result, struct rk_error *error)
{
    const Inference__ModelReadyRequest *request = (const Inference__ModelReadyRequest *)message;
    const struct rk_served_model *model;
    enum rk_status status = find_model(service, request->name, request->version, &model, error);
    if (status != RK_OK)
        return status;
    NEW(Inference__ModelReadyResponse, inference__model_ready_response__init);
    response->ready = rk_serving_is(&service->serving, model);
    return RK_OK;
}

static enum rk_status server_metadata(struct rk_inference_service *service, const ProtobufCMessage *request,
                                      ProtobufCMessage **result, struct rk_error *error)
{
    static char *const extensions[] = {"model_repository", "model_configuration", "statistics", "schedule_policy"};
    (void)request, (void)error;
    NEW(Inference__ServerMetadataResponse, inference__server_metadata_response__init);
    response->name = "rankd";
    response->version = RANKD_VERSION;
    response->extensions = (char **)extensions; /* the encoder only reads */
    response->n_extensions = sizeof extensions / sizeof *extensions;
    return RK_OK;
}

/* ---- metadata and configuration ---- */

typedef Inference__ModelMetadataResponse__TensorMetadata Metadata;

static Metadata *new_metadata(struct rk_inference_service *service, const struct rk_tensor_kind *kind,
                              const int64_t *shape, uint32_t num_dims)
{
    Metadata *tensor = rk_arena_alloc(&service->arena, sizeof *tensor);
    int64_t *copy = rk_arena_array(&service->arena, num_dims, sizeof *copy);
    if (tensor == NULL || copy == NULL)
        return NULL;
    memcpy(copy, shape, num_dims * sizeof *copy);
    inference__model_metadata_response__tensor_metadata__init(tensor);
    tensor->name = (char *)kind->name;
    tensor->datatype = (char *)kind->datatype;
    tensor->shape = copy;
    tensor->n_shape = num_dims;
    return tensor;
}

static enum rk_status model_metadata(struct rk_inference_service *service, const ProtobufCMessage *message,
                                     ProtobufCMessage **result, struct rk_error *error)
{
    const Inference__ModelMetadataRequest *request = (const Inference__ModelMetadataRequest *)message;
    const struct rk_served_model *model;
    enum rk_status status = find_model(service, request->name, request->version, &model, error);
    if (status != RK_OK)
        return status;
    NEW(Inference__ModelMetadataResponse, inference__model_metadata_response__init);
    response->name = (char *)model->name;
    response->platform = PLATFORM;
    response->versions = rk_arena_array(&service->arena, 1, sizeof *response->versions);
    response->inputs = rk_arena_array(&service->arena, RK_INPUT_COUNT, sizeof *response->inputs);
    response->outputs = rk_arena_array(&service->arena, RK_OUTPUT_COUNT, sizeof *response->outputs);
    if (response->versions == NULL || response->inputs == NULL || response->outputs == NULL)
        return RK_NO_MEMORY;
    response->versions[0] = version_text(service, model);
    response->n_versions = 1;
    bool whole = response->versions[0] != NULL;
    for (size_t i = 0; i < RK_INPUT_COUNT && whole; i++) {
        struct rk_input_about about;
        if (!rk_input_describe(model->spec, (enum rk_input)i, &about))
            continue;
        Metadata *tensor = new_metadata(service, &rk_input_kinds[i], about.shape, about.num_dims);
        whole = tensor != NULL;
        response->inputs[response->n_inputs++] = tensor;
    }
    for (size_t i = 0; i < RK_OUTPUT_COUNT && whole; i++) {
        response->outputs[i] =
            new_metadata(service, &rk_output_kinds[i], (const int64_t[]){-1, model->spec->num_heads}, 2);
        whole = response->outputs[i] != NULL;
    }
    response->n_outputs = RK_OUTPUT_COUNT;
    return whole ? RK_OK : RK_NO_MEMORY;
}

/* An input or output of the configuration. */
struct config_tensor {
    int64_t dims[2];
    union {
        Inference__ModelInput input;
        Inference__ModelOutput output;
    };
};

static void configure_input(const struct rk_tensor_kind *kind, const struct rk_input_about *about,
                            struct config_tensor *tensor)
{
    inference__model_input__init(&tensor->input);
    memcpy(tensor->dims, about->shape, sizeof tensor->dims);
    tensor->input.name = (char *)kind->name;
    tensor->input.data_type = kind->data_type;
    tensor->input.dims = tensor->dims;
    tensor->input.n_dims = about->num_dims;
    tensor->input.optional = about->optional;
}

static void configure_output(const struct rk_tensor_kind *kind, uint32_t num_heads, struct config_tensor *tensor)
{
    inference__model_output__init(&tensor->output);
    tensor->dims[0] = -1;
    tensor->dims[1] = num_heads;
    tensor->output.name = (char *)kind->name;
    tensor->output.data_type = kind->data_type;
    tensor->output.dims = tensor->dims;
    tensor->output.n_dims = 2;
}

static enum rk_status model_config(struct rk_inference_service *service, const ProtobufCMessage *message,
                                   ProtobufCMessage **result, struct rk_error *error)
{
    const Inference__ModelConfigRequest *request = (const Inference__ModelConfigRequest *)message;
    const struct rk_served_model *model;
    enum rk_status status = find_model(service, request->name, request->version, &model, error);
    if (status != RK_OK)
        return status;
    NEW(Inference__ModelConfigResponse, inference__model_config_response__init);
    Inference__ModelConfig *config = rk_arena_alloc(&service->arena, sizeof *config);
    struct config_tensor *tensors = rk_arena_array(&service->arena, RK_INPUT_COUNT + RK_OUTPUT_COUNT, sizeof *tensors);
    Inference__ModelInput **inputs = rk_arena_array(&service->arena, RK_INPUT_COUNT, sizeof *inputs);
    Inference__ModelOutput **outputs = rk_arena_array(&service->arena, RK_OUTPUT_COUNT, sizeof *outputs);
    if (config == NULL || tensors == NULL || inputs == NULL || outputs == NULL)
        return RK_NO_MEMORY;
    inference__model_config__init(config);
    config->name = (char *)model->name;
    config->platform = PLATFORM;
    config->backend = PLATFORM;
    config->input = inputs;
    config->output = outputs;
    for (size_t i = 0; i < RK_INPUT_COUNT; i++) {
        struct rk_input_about about;
        if (!rk_input_describe(model->spec, (enum rk_input)i, &about))
            continue;
        configure_input(&rk_input_kinds[i], &about, &tensors[i]);
        inputs[config->n_input++] = &tensors[i].input;
    }
    for (size_t i = 0; i < RK_OUTPUT_COUNT; i++) {
        configure_output(&rk_output_kinds[i], model->spec->num_heads, &tensors[RK_INPUT_COUNT + i]);
        outputs[config->n_output++] = &tensors[RK_INPUT_COUNT + i].output;
    }
    response->config = config;
    return RK_OK;
}

/* ---- statistics ---- */

struct statistics {
    Inference__ModelStatistics model;
    Inference__InferStatistics infer;
    Inference__StatisticDuration success, queue, input, compute, output;
};

static void sum_up(const struct rk_daemon *daemon, const struct rk_served_model *model, struct statistics *sum)
{
    inference__model_statistics__init(&sum->model);
    inference__infer_statistics__init(&sum->infer);
    Inference__StatisticDuration *durations[] = {&sum->success, &sum->queue, &sum->input, &sum->compute, &sum->output};
    for (size_t d = 0; d < sizeof durations / sizeof *durations; d++)
        inference__statistic_duration__init(durations[d]);
    for (uint32_t l = 0; l < daemon->num_loops; l++) {
        const struct rk_inference_stats *stats = &daemon->loops[l].services.inference.stats[model->index];
        const uint64_t last_ms = atomic_load_explicit(&stats->last_ms, memory_order_relaxed);
        if (last_ms > sum->model.last_inference)
            sum->model.last_inference = last_ms;
        sum->model.inference_count += atomic_load_explicit(&stats->candidates, memory_order_relaxed);
        sum->model.execution_count += atomic_load_explicit(&stats->batches, memory_order_relaxed);
        sum->success.ns += atomic_load_explicit(&stats->total_ns, memory_order_relaxed);
        sum->queue.ns += atomic_load_explicit(&stats->queue_ns, memory_order_relaxed);
        sum->input.ns += atomic_load_explicit(&stats->input_ns, memory_order_relaxed);
        sum->compute.ns += atomic_load_explicit(&stats->infer_ns, memory_order_relaxed);
        sum->output.ns += atomic_load_explicit(&stats->output_ns, memory_order_relaxed);
        for (size_t d = 0; d < sizeof durations / sizeof *durations; d++)
            durations[d]->count += atomic_load_explicit(&stats->requests, memory_order_relaxed);
    }
    sum->infer.success = &sum->success;
    sum->infer.queue = &sum->queue;
    sum->infer.compute_input = &sum->input;
    sum->infer.compute_infer = &sum->compute;
    sum->infer.compute_output = &sum->output;
    sum->model.name = (char *)model->name;
    sum->model.inference_stats = &sum->infer;
}

static enum rk_status model_statistics(struct rk_inference_service *service, const ProtobufCMessage *message,
                                       ProtobufCMessage **result, struct rk_error *error)
{
    const Inference__ModelStatisticsRequest *request = (const Inference__ModelStatisticsRequest *)message;
    const struct rk_served_model *model = service->serving.registry->models;
    uint32_t count = service->serving.registry->num_models;
    if (request->name[0] != '\0') {
        enum rk_status status = find_model(service, request->name, request->version, &model, error);
        if (status != RK_OK)
            return status;
        count = 1;
    }
    NEW(Inference__ModelStatisticsResponse, inference__model_statistics_response__init);
    struct statistics *sums = rk_arena_array(&service->arena, count, sizeof *sums);
    response->model_stats = rk_arena_array(&service->arena, count, sizeof *response->model_stats);
    if (sums == NULL || response->model_stats == NULL)
        return RK_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        sum_up(service->daemon, &model[i], &sums[i]);
        sums[i].model.version = version_text(service, &model[i]);
        if (sums[i].model.version == NULL)
            return RK_NO_MEMORY;
        response->model_stats[response->n_model_stats++] = &sums[i].model;
    }
    return RK_OK;
}

/* ---- the repository ---- */

static enum rk_status repository_index(struct rk_inference_service *service, const ProtobufCMessage *message,
                                       ProtobufCMessage **result, struct rk_error *error)
{
    (void)error;
    const Inference__RepositoryIndexRequest *request = (const Inference__RepositoryIndexRequest *)message;
    const struct rk_registry *registry = service->serving.registry;
    NEW(Inference__RepositoryIndexResponse, inference__repository_index_response__init);
    Inference__RepositoryIndexResponse__ModelIndex *items =
        rk_arena_array(&service->arena, registry->num_models, sizeof *items);
    response->models = rk_arena_array(&service->arena, registry->num_models, sizeof *response->models);
    if (items == NULL || response->models == NULL)
        return RK_NO_MEMORY;
    for (uint32_t i = 0; i < registry->num_models; i++) {
        const struct rk_served_model *model = &registry->models[i];
        const bool ready = rk_serving_is(&service->serving, model);
        if (request->ready && !ready)
            continue;
        inference__repository_index_response__model_index__init(&items[i]);
        items[i].name = (char *)model->name;
        items[i].version = version_text(service, model);
        items[i].state = ready ? "READY" : "UNAVAILABLE";
        items[i].reason = ready                            ? ""
                          : rk_model_damaged(model->model) ? "its files changed while they were served"
                                                           : "the server is draining, or its device is lost";
        if (items[i].version == NULL)
            return RK_NO_MEMORY;
        response->models[response->n_models++] = &items[i];
    }
    return RK_OK;
}

static enum rk_status model_load(struct rk_inference_service *service, const ProtobufCMessage *message,
                                 ProtobufCMessage **result, struct rk_error *error)
{
    const Inference__RepositoryModelLoadRequest *request = (const Inference__RepositoryModelLoadRequest *)message;
    const struct rk_served_model *model;
    enum rk_status status = find_model(service, request->model_name, "", &model, error);
    if (status != RK_OK)
        return status;
    if (request->n_parameters > 0)
        return rk_error_set(error, RK_UNSUPPORTED,
                            "models are loaded as they stand in the repository; leave the parameter '%.64s' out",
                            request->parameters[0]->key);
    NEW(Inference__RepositoryModelLoadResponse, inference__repository_model_load_response__init);
    return RK_OK;
}

static enum rk_status model_unload(struct rk_inference_service *service, const ProtobufCMessage *message,
                                   ProtobufCMessage **result, struct rk_error *error)
{
    (void)result;
    const Inference__RepositoryModelUnloadRequest *request = (const Inference__RepositoryModelUnloadRequest *)message;
    const struct rk_served_model *model;
    enum rk_status status = find_model(service, request->model_name, "", &model, error);
    return status != RK_OK
               ? status
               : rk_error_set(error, RK_UNSUPPORTED,
                              "model '%s' is served until rankd ends: take it out of the repository and restart",
                              model->name);
}

/* ---- calls ---- */

#define SERVICE "/inference.GRPCInferenceService/"
static const struct rk_inference_row rows[RK_INFERENCE_METHODS] = {
    {SERVICE "ServerLive", &inference__server_live_request__descriptor, server_live},
    {SERVICE "ServerReady", &inference__server_ready_request__descriptor, server_ready},
    {SERVICE "ModelReady", &inference__model_ready_request__descriptor, model_ready},
    {SERVICE "ServerMetadata", &inference__server_metadata_request__descriptor, server_metadata},
    {SERVICE "ModelMetadata", &inference__model_metadata_request__descriptor, model_metadata},
    {SERVICE "ModelConfig", &inference__model_config_request__descriptor, model_config},
    {SERVICE "ModelStatistics", &inference__model_statistics_request__descriptor, model_statistics},
    {SERVICE "RepositoryIndex", &inference__repository_index_request__descriptor, repository_index},
    {SERVICE "RepositoryModelLoad", &inference__repository_model_load_request__descriptor, model_load},
    {SERVICE "RepositoryModelUnload", &inference__repository_model_unload_request__descriptor, model_unload},
};

static enum rk_status answer(const struct rk_inference_entry *entry, struct rk_call *call, const uint8_t *bytes,
                             size_t length, struct rk_error *error)
{
    struct rk_arena *arena = &entry->service->arena;
    ProtobufCMessage *request, *response;
    enum rk_status status = rk_message_decode(entry->row->request, bytes, length, arena, &request, error);
    if (status == RK_OK)
        status = entry->row->answer(entry->service, request, &response, error);
    uint8_t *encoded;
    size_t encoded_bytes;
    if (status == RK_OK)
        status = rk_message_encode(response, arena, &encoded, &encoded_bytes);
    return status == RK_OK ? rk_call_send(call, encoded, encoded_bytes) : status;
}

static void message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    const struct rk_inference_entry *entry = argument;
    struct rk_error error = {0};
    enum rk_status status = answer(entry, call, bytes, length, &error);
    rk_call_finish(call, rk_grpc_status_of(status), error.text[0] != '\0' ? error.text : NULL);
    rk_arena_reset(&entry->service->arena, ARENA_KEEP_BYTES);
}

void rk_inference_service_methods(struct rk_inference_service *service, struct rk_method *methods)
{
    for (size_t i = 0; i < RK_INFERENCE_METHODS; i++) {
        service->entries[i] = (struct rk_inference_entry){service, &rows[i]};
        methods[i] = (struct rk_method){.path = rows[i].path,
                                        .kind = RK_METHOD_UNARY,
                                        .message = message,
                                        .service = &service->entries[i]};
    }
}
