/* The tensors of the Open Inference Protocol: what a model takes and gives, and reading those of a request. */
#ifndef RANKD_SERVER_INFERENCE_TENSORS_H
#define RANKD_SERVER_INFERENCE_TENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "model/spec.h"
#include "proto/inference.pb-c.h"

/* What rows hold (server/rows.h). The context's own come where it is given apart; they are those plus RK_INPUT_CONTEXT.
 */
enum rk_input {
    RK_INPUT_DENSE,
    RK_INPUT_LENGTHS,
    RK_INPUT_INDICES,
    RK_INPUT_WEIGHTS,
    RK_INPUT_CONTEXT,
    RK_INPUT_COUNT = 8
};
enum rk_output { RK_OUTPUT_PROBABILITIES, RK_OUTPUT_LOGITS, RK_OUTPUT_COUNT };

struct rk_tensor_kind {
    const char *name;     /* "indices" */
    const char *datatype; /* "INT64" */
    Inference__DataType data_type;
    bool or_int32; /* an input that INT32 will do for as well */
};
extern const struct rk_tensor_kind rk_input_kinds[RK_INPUT_COUNT];
extern const struct rk_tensor_kind rk_output_kinds[RK_OUTPUT_COUNT];

/* What a model says about an input. False: the model has nothing to put there. */
struct rk_input_about {
    bool optional;
    int64_t shape[2]; /* -1: any */
    uint32_t num_dims;
};
bool rk_input_describe(const struct rk_model_spec *spec, enum rk_input input, struct rk_input_about *about);

/* An input of a request. */
struct rk_tensor {
    bool given, is_int32;
    const Inference__ModelInferRequest__InferInputTensor *input; /* its name, shape */
    void *data;     /* never NULL; as its type says, 16-byte aligned, may be rewritten */
    uint64_t count; /* elements */
};

/* Reads all inputs. RK_INVALID names the input, and what was expected: one that there is not, another type, contents
 * that are not what the shape says. RK_UNSUPPORTED: shared memory. */
enum rk_status rk_tensors_read(const Inference__ModelInferRequest *request, struct rk_tensor tensors[RK_INPUT_COUNT],
                               struct rk_error *error);

#endif
