/* One table of inputs, one of outputs; contents come as raw bytes, or in the typed array of their type. Pure; any
 * thread. */
#include "server/inference_tensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_DIMS 8

#define FP32  "FP32", INFERENCE__DATA_TYPE__TYPE_FP32
#define INT32 "INT32", INFERENCE__DATA_TYPE__TYPE_INT32
#define INT64 "INT64", INFERENCE__DATA_TYPE__TYPE_INT64

const struct rk_tensor_kind rk_input_kinds[RK_INPUT_COUNT] = {
    [RK_INPUT_DENSE] = {"dense", FP32, false},
    [RK_INPUT_LENGTHS] = {"lengths", INT64, true},
    [RK_INPUT_INDICES] = {"indices", INT64, true},
    [RK_INPUT_WEIGHTS] = {"weights", FP32, false},
    [RK_INPUT_CONTEXT + RK_INPUT_DENSE] = {"context_dense", FP32, false},
    [RK_INPUT_CONTEXT + RK_INPUT_LENGTHS] = {"context_lengths", INT64, true},
    [RK_INPUT_CONTEXT + RK_INPUT_INDICES] = {"context_indices", INT64, true},
    [RK_INPUT_CONTEXT + RK_INPUT_WEIGHTS] = {"context_weights", FP32, false},
};

const struct rk_tensor_kind rk_output_kinds[RK_OUTPUT_COUNT] = {
    [RK_OUTPUT_PROBABILITIES] = {"probabilities", FP32, false},
    [RK_OUTPUT_LOGITS] = {"logits", FP32, false},
};

bool rk_input_describe(const struct rk_model_spec *spec, enum rk_input input, struct rk_input_about *about)
{
    const bool apart = input >= RK_INPUT_CONTEXT;
    uint32_t features = 0, weighted = 0;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const bool of_context = spec->features[f].side == RK_SIDE_CONTEXT;
        features += of_context || !apart;
        weighted += (of_context || !apart) && spec->features[f].weighted;
    }
    const uint32_t dense = spec->num_context_dense + (apart ? 0 : spec->num_candidate_dense);
    *about = (struct rk_input_about){.optional = apart, .shape = {-1}, .num_dims = 1};
    switch (input % RK_INPUT_CONTEXT) {
    case RK_INPUT_DENSE:
        *about = (struct rk_input_about){.optional = apart, .shape = {apart ? 1 : -1, dense}, .num_dims = 2};
        return dense > 0;
    case RK_INPUT_LENGTHS:
        *about = (struct rk_input_about){.optional = apart, .shape = {features, apart ? 1 : -1}, .num_dims = 2};
        return features > 0;
    case RK_INPUT_INDICES:
        return features > 0;
    default:
        return weighted > 0;
    }
}

/* "[3, -1]" */
static const char *print_shape(const Inference__ModelInferRequest__InferInputTensor *input, char text[static 160])
{
    size_t end = (size_t)snprintf(text, 160, "[");
    for (size_t i = 0; i < input->n_shape && i < MAX_DIMS && end < 150; i++)
        end += (size_t)snprintf(text + end, 160 - end, "%s%" PRId64, i > 0 ? ", " : "", input->shape[i]);
    if (end < 158)
        snprintf(text + end, 160 - end, "]");
    return text;
}

static enum rk_status count_elements(const Inference__ModelInferRequest__InferInputTensor *input, uint64_t *count,
                                     struct rk_error *error)
{
    char text[160];
    *count = 1;
    bool good = input->n_shape > 0 && input->n_shape <= MAX_DIMS;
    for (size_t i = 0; good && i < input->n_shape; i++)
        good = input->shape[i] >= 0 && !__builtin_mul_overflow(*count, (uint64_t)input->shape[i], count) &&
               *count <= UINT32_MAX;
    return good ? RK_OK
                : rk_error_set(error, RK_INVALID,
                               "input '%s' has the shape %s; it takes 1 to %d dimensions of 0 and more", input->name,
                               print_shape(input, text), MAX_DIMS);
}

static enum rk_status wrong_size(const Inference__ModelInferRequest__InferInputTensor *input, const char *where,
                                 uint64_t given, uint64_t expected, const char *unit, struct rk_error *error)
{
    char text[160];
    return rk_error_set(error, RK_INVALID, "input '%s': %s has %" PRIu64 " %s; the shape %s of %s takes %" PRIu64,
                        input->name, where, given, unit, print_shape(input, text), input->datatype, expected);
}

static void *or_nothing(void *data)
{
    static int64_t nothing[2]; /* arrays without elements, which nobody writes to */
    return data != NULL ? data : nothing;
}

static enum rk_status read_raw(const Inference__ModelInferRequest *request, size_t index, size_t element_bytes,
                               struct rk_tensor *tensor, struct rk_error *error)
{
    const ProtobufCBinaryData *raw = &request->raw_input_contents[index];
    if (raw->len != tensor->count * element_bytes)
        return wrong_size(tensor->input, "its raw_input_contents", raw->len, tensor->count * element_bytes, "bytes",
                          error);
    tensor->data = or_nothing(raw->data);
    return RK_OK;
}

static enum rk_status read_typed(const char *datatype, struct rk_tensor *tensor, struct rk_error *error)
{
    static Inference__InferTensorContents none = INFERENCE__INFER_TENSOR_CONTENTS__INIT;
    const Inference__InferTensorContents *contents = tensor->input->contents != NULL ? tensor->input->contents : &none;
    const struct {
        const char *datatype, *name;
        void *data;
        size_t count;
    } arrays[] = {{"FP32", "contents.fp32_contents", contents->fp32_contents, contents->n_fp32_contents},
                  {"INT32", "contents.int_contents", contents->int_contents, contents->n_int_contents},
                  {"INT64", "contents.int64_contents", contents->int64_contents, contents->n_int64_contents}};
    size_t i = 0;
    while (strcmp(arrays[i].datatype, datatype) != 0)
        i++;
    if (arrays[i].count != tensor->count)
        return wrong_size(tensor->input, arrays[i].name, arrays[i].count, tensor->count, "values", error);
    tensor->data = or_nothing(arrays[i].data);
    return RK_OK;
}

static enum rk_status read_one(const Inference__ModelInferRequest *request, size_t index, enum rk_input kind_index,
                               struct rk_tensor *tensor, struct rk_error *error)
{
    const Inference__ModelInferRequest__InferInputTensor *input = request->inputs[index];
    const struct rk_tensor_kind *kind = &rk_input_kinds[kind_index];
    if (tensor->given)
        return rk_error_set(error, RK_INVALID, "input '%s' is given twice", kind->name);
    tensor->given = true;
    tensor->input = input;
    tensor->is_int32 = kind->or_int32 && strcmp(input->datatype, "INT32") == 0;
    if (!tensor->is_int32 && strcmp(input->datatype, kind->datatype) != 0)
        return rk_error_set(error, RK_INVALID, "input '%s' has the datatype '%.32s'; it takes %s%s", kind->name,
                            input->datatype, kind->datatype, kind->or_int32 ? " or INT32" : "");
    for (size_t i = 0; i < input->n_parameters; i++) {
        if (strncmp(input->parameters[i]->key, "shared_memory", strlen("shared_memory")) == 0)
            return rk_error_set(error, RK_UNSUPPORTED,
                                "input '%s' is in shared memory; send its contents with the request", kind->name);
    }
    enum rk_status status = count_elements(input, &tensor->count, error);
    if (status != RK_OK)
        return status;
    if (request->n_raw_input_contents == 0)
        return read_typed(tensor->is_int32 ? "INT32" : kind->datatype, tensor, error);
    if (input->contents != NULL)
        return rk_error_set(error, RK_INVALID,
                            "input '%s' has contents, and raw_input_contents are given; give one of them", kind->name);
    const bool wide = kind->data_type == INFERENCE__DATA_TYPE__TYPE_INT64 && !tensor->is_int32;
    return read_raw(request, index, wide ? 8 : 4, tensor, error);
}

enum rk_status rk_tensors_read(const Inference__ModelInferRequest *request, struct rk_tensor tensors[RK_INPUT_COUNT],
                               struct rk_error *error)
{
    for (size_t i = 0; i < RK_INPUT_COUNT; i++)
        tensors[i] = (struct rk_tensor){.data = or_nothing(NULL)};
    if (request->n_raw_input_contents != 0 && request->n_raw_input_contents != request->n_inputs)
        return rk_error_set(error, RK_INVALID,
                            "there are %zu raw_input_contents for %zu inputs; give one each, or none",
                            request->n_raw_input_contents, request->n_inputs);
    for (size_t i = 0; i < request->n_inputs; i++) {
        size_t kind = 0;
        while (kind < RK_INPUT_COUNT && strcmp(rk_input_kinds[kind].name, request->inputs[i]->name) != 0)
            kind++;
        if (kind == RK_INPUT_COUNT)
            return rk_error_set(
                error, RK_INVALID,
                "there is no input '%.128s'; a model takes dense, lengths, indices and weights, and may be "
                "given context_dense, context_lengths, context_indices and context_weights",
                request->inputs[i]->name);
        enum rk_status status = read_one(request, i, (enum rk_input)kind, &tensors[kind], error);
        if (status != RK_OK)
            return status;
    }
    return RK_OK;
}
