/* Towers in new formats: first the spec (formats, ranges, offsets), then the bytes. Towers are small beside tables, so
 * the whole weights file is made in memory. One thread. */
#include "model/quantize_towers.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/package.h"

/* The plan's part that a layer belongs to. */
static enum rk_plan_part part_of(enum rk_stage stage)
{
    return stage == RK_STAGE_BOTTOM ? RK_PART_BOTTOM : stage == RK_STAGE_TOP ? RK_PART_TOP : RK_PART_INTERACTION;
}

static bool copy_mlp(struct rk_mlp_spec *mlp, struct rk_arena *arena)
{
    struct rk_linear_spec *layers = rk_arena_array(arena, (size_t)mlp->num_layers + 1, sizeof *layers);
    if (layers == NULL)
        return false;
    if (mlp->num_layers > 0)
        memcpy(layers, mlp->layers, mlp->num_layers * sizeof *layers);
    mlp->layers = layers;
    return true;
}

static bool copy_cross(struct rk_interaction_spec *interaction, struct rk_arena *arena)
{
    struct rk_cross_spec *cross = rk_arena_array(arena, (size_t)interaction->num_cross + 1, sizeof *cross);
    if (cross == NULL)
        return false;
    if (interaction->num_cross > 0)
        memcpy(cross, interaction->cross, interaction->num_cross * sizeof *cross);
    interaction->cross = cross;
    return true;
}

/* Tensors follow one another at multiples of 64 bytes. */
static void lay_out(struct rk_model_spec *spec)
{
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t count = rk_model_spec_tensors(spec, uses);
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        /* The layers are this file's own copies; only a finished spec is constant. */
        struct rk_tensor_spec *tensor = (struct rk_tensor_spec *)uses[i].tensor;
        tensor->offset = (end + RK_WEIGHTS_ALIGNMENT - 1) / RK_WEIGHTS_ALIGNMENT * RK_WEIGHTS_ALIGNMENT;
        end = tensor->offset + uses[i].bytes;
    }
    spec->weights_bytes = end;
}

enum rk_status rk_quantize_layers(const struct rk_plan *plan, const struct rk_input_ranges *ranges,
                                  struct rk_arena *arena, struct rk_model_spec *spec, struct rk_error *error)
{
    if (!copy_mlp(&spec->bottom, arena) || !copy_mlp(&spec->top, arena) || !copy_cross(&spec->interaction, arena))
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the layers of model '%s'", spec->name);
    if (spec->interaction.op == RK_INTERACTION_DOT && plan->parts[RK_PART_INTERACTION].has_format)
        spec->interaction.format = plan->parts[RK_PART_INTERACTION].format;
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    const size_t count = rk_model_spec_layers(spec, uses);
    for (size_t l = 0; l < count; l++) {
        struct rk_linear_spec *layer = (struct rk_linear_spec *)uses[l].layer;
        const struct rk_part_plan *part = &plan->parts[part_of(uses[l].stage)];
        if (!part->has_format || part->format == layer->format)
            continue;
        if (layer->format != RK_DENSE_F32)
            return rk_error_set(error, RK_INVALID,
                                "the %s layers are %s already and can't become %s: quantise the fp32 model instead",
                                rk_plan_part_name(part_of(uses[l].stage)), rk_dense_format_name(layer->format),
                                rk_dense_format_name(part->format));
        layer->format = part->format;
        if (part->format != RK_DENSE_INT8)
            continue;
        layer->scale = (struct rk_tensor_spec){.rows = 1, .columns = layer->weight.rows};
        if (rk_layer_takes_gains(&uses[l]))
            layer->gain = (struct rk_tensor_spec){.rows = 1, .columns = layer->weight.columns};
        layer->calibrated = ranges != NULL;
        if (ranges != NULL) {
            layer->low = ranges->layers[l].low;
            layer->high = ranges->layers[l].high;
        }
    }
    lay_out(spec);
    return RK_OK;
}

/* The first layer of an MLP reads numbers of very different sizes (dense inputs, dot products), and an output's largest
 * weight would set the step for the weights of all of them. So each column of weights is divided by its largest one and
 * the input multiplied by it: the products are the same, every column uses all steps, and an input's steps are as fine
 * as its share of the sums is large (channel equalisation: https://arxiv.org/abs/1906.04721, section 4.1). */
void rk_layer_gains(const float *weights, size_t rows, size_t columns, float *gains)
{
    memset(gains, 0, columns * sizeof *gains);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            gains[c] = fmaxf(gains[c], fabsf(weights[r * columns + c]));
    for (size_t c = 0; c < columns; c++)
        gains[c] = gains[c] < FLT_MIN ? 0.0f : gains[c];
}

bool rk_layer_takes_gains(const struct rk_layer_use *use)
{
    return use->index == 0 && (use->stage == RK_STAGE_BOTTOM || use->stage == RK_STAGE_TOP);
}

static void divide_by_gains(float *weights, size_t rows, size_t columns, const float *gains)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++, weights++)
            *weights = gains[c] > 0.0f ? *weights / gains[c] : 0.0f;
}

static enum rk_status put_layer(const struct rk_linear_spec *from, const unsigned char *source,
                                const struct rk_linear_spec *to, unsigned char *image, struct rk_error *error)
{
    const size_t rows = to->weight.rows, columns = to->weight.columns;
    if (to->bias.rows > 0)
        memcpy(image + to->bias.offset, source + from->bias.offset, (size_t)to->bias.columns * sizeof(float));
    if (to->format != from->format) {
        float *weights = malloc(rows * columns * sizeof *weights);
        if (weights == NULL)
            return rk_error_set(error, RK_NO_MEMORY, "out of memory for a layer of %zu inputs and %zu outputs", columns,
                                rows);
        memcpy(weights, source + from->weight.offset, rows * columns * sizeof *weights);
        if (to->gain.rows > 0) {
            float *gains = (float *)(image + to->gain.offset);
            rk_layer_gains(weights, rows, columns, gains);
            divide_by_gains(weights, rows, columns, gains);
        }
        rk_dense_encode(to->format, weights, rows, columns, image + to->weight.offset,
                        to->format == RK_DENSE_INT8 ? (float *)(image + to->scale.offset) : NULL);
        free(weights);
        return RK_OK;
    }
    memcpy(image + to->weight.offset, source + from->weight.offset,
           rows * columns * rk_dense_element_bytes(to->format));
    if (to->format == RK_DENSE_INT8)
        memcpy(image + to->scale.offset, source + from->scale.offset, rows * sizeof(float));
    if (to->gain.rows > 0)
        memcpy(image + to->gain.offset, source + from->gain.offset, columns * sizeof(float));
    return RK_OK;
}

enum rk_status rk_quantize_weights(const struct rk_model *model, const struct rk_model_spec *to, unsigned char **image,
                                   struct rk_error *error)
{
    struct rk_layer_use before[RK_MAX_LAYER_USES], after[RK_MAX_LAYER_USES];
    const size_t count = rk_model_spec_layers(rk_model_spec_of(model), before);
    rk_model_spec_layers(to, after);
    *image = calloc(1, to->weights_bytes);
    if (*image == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory: the towers take %llu bytes",
                            (unsigned long long)to->weights_bytes);
    enum rk_status status = RK_OK;
    for (size_t l = 0; status == RK_OK && l < count; l++)
        status = put_layer(before[l].layer, rk_model_weights(model), after[l].layer, *image, error);
    return status;
}
