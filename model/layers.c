/* The linear layers of a model and their tensors as flat lists in the order of the weights file, for everything that
 * goes through all of them: checks, costs, packing, writing. Plain data; any thread. */
#include <stdio.h>

#include "model/spec.h"

static size_t list_mlp(const struct rk_mlp_spec *mlp, enum rk_stage stage, struct rk_layer_use *uses)
{
    for (uint32_t l = 0; l < mlp->num_layers; l++)
        uses[l] = (struct rk_layer_use){&mlp->layers[l], stage, l};
    return mlp->num_layers;
}

size_t rk_model_spec_layers(const struct rk_model_spec *spec, struct rk_layer_use uses[RK_MAX_LAYER_USES])
{
    size_t count = list_mlp(&spec->bottom, RK_STAGE_BOTTOM, uses);
    for (uint32_t k = 0; k < spec->interaction.num_cross; k++) {
        const struct rk_cross_spec *cross = &spec->interaction.cross[k];
        uses[count++] = (struct rk_layer_use){&cross->v, RK_STAGE_CROSS_V, k};
        uses[count++] = (struct rk_layer_use){&cross->w, RK_STAGE_CROSS_W, k};
    }
    return count + list_mlp(&spec->top, RK_STAGE_TOP, uses + count);
}

static size_t list_tensor(const struct rk_layer_use *layer, enum rk_tensor_part part,
                          const struct rk_tensor_spec *tensor, enum rk_dense_format format, struct rk_tensor_use *use)
{
    if (tensor->rows == 0)
        return 0;
    /* Both factors are at most RK_MAX_WIDTH, so the product fits. */
    const uint64_t bytes = (uint64_t)tensor->rows * tensor->columns * rk_dense_element_bytes(format);
    *use = (struct rk_tensor_use){tensor, *layer, part, format, bytes};
    return 1;
}

size_t rk_model_spec_tensors(const struct rk_model_spec *spec, struct rk_tensor_use uses[RK_MAX_TENSOR_USES])
{
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    size_t count = 0;
    for (size_t l = 0; l < num_layers; l++) {
        const struct rk_linear_spec *layer = layers[l].layer;
        count += list_tensor(&layers[l], RK_TENSOR_WEIGHT, &layer->weight, layer->format, &uses[count]);
        count += list_tensor(&layers[l], RK_TENSOR_SCALE, &layer->scale, RK_DENSE_F32, &uses[count]);
        count += list_tensor(&layers[l], RK_TENSOR_GAIN, &layer->gain, RK_DENSE_F32, &uses[count]);
        count += list_tensor(&layers[l], RK_TENSOR_BIAS, &layer->bias, RK_DENSE_F32, &uses[count]);
    }
    return count;
}

const char *rk_tensor_use_name(const struct rk_tensor_use *use, char name[RK_TENSOR_NAME_BYTES])
{
    static const struct {
        const char *stage, *parts[RK_TENSOR_PART_COUNT];
    } names[RK_STAGE_COUNT] = {
        [RK_STAGE_BOTTOM] = {"bottom_mlp", {"weight", "scale", "gain", "bias"}},
        [RK_STAGE_CROSS_V] = {"interaction.cross", {"v", "v_scale", "v_gain", "v_bias"}},
        [RK_STAGE_CROSS_W] = {"interaction.cross", {"w", "w_scale", "w_gain", "bias"}},
        [RK_STAGE_TOP] = {"top_mlp", {"weight", "scale", "gain", "bias"}},
    };
    snprintf(name, RK_TENSOR_NAME_BYTES, "%s[%u].%s", names[use->layer.stage].stage, use->layer.index,
             names[use->layer.stage].parts[use->part]);
    return name;
}
