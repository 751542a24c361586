/* Inside quantising: the towers in their new formats, and the input ranges of int8 layers. */
#ifndef RANKD_MODEL_QUANTIZE_TOWERS_H
#define RANKD_MODEL_QUANTIZE_TOWERS_H

#include "model/model.h"
#include "model/plan.h"

/* In what ranges layers shall take their inputs, times their gains, to lie; in the order of rk_model_spec_layers. */
struct rk_input_ranges {
    struct rk_input_range {
        float low, high;
    } layers[RK_MAX_LAYER_USES];
    uint64_t num_candidates; /* of the sample */
};

/* Scores the requests of a file, twice, and chooses for each layer the range that rounds what it read best: the one
 * with the smallest mean squared error, which may clip the largest inputs. Towers must be float32. Errors name file and
 * line.
 */
enum rk_status rk_input_ranges_read(const struct rk_model *model, const char *requests, struct rk_input_ranges *ranges,
                                    struct rk_error *error);

/* Does the layer get gains when it becomes int8? Then gains[columns] are these, of its float32 weights [rows][columns].
 */
bool rk_layer_takes_gains(const struct rk_layer_use *use);
void rk_layer_gains(const float *weights, size_t rows, size_t columns, float *gains);

/* Makes spec->bottom, top and interaction copies (in the arena) in the plan's formats with the weights file laid out
 * anew. ranges NULL: int8 layers find each row's range themselves. RK_INVALID where a layer that is quantised already
 * is to become something else. */
enum rk_status rk_quantize_layers(const struct rk_plan *plan, const struct rk_input_ranges *ranges,
                                  struct rk_arena *arena, struct rk_model_spec *spec, struct rk_error *error);

/* The bytes of the weights file of `to` (spec.weights_bytes of them, zeros between the tensors), to be freed. */
enum rk_status rk_quantize_weights(const struct rk_model *model, const struct rk_model_spec *to, unsigned char **image,
                                   struct rk_error *error);

#endif
