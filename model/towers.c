/* Packing a model's layers. One thread while it packs. */
#include "model/towers.h"

#include <stdlib.h>

#include "model/interaction.h"

static enum rk_status pack_layer(const struct rk_layer_use *use, const unsigned char *weights, const uint32_t *order,
                                 struct rk_linear **linear, struct rk_error *error)
{
    const struct rk_linear_spec *layer = use->layer;
    const struct rk_linear_source source = {
        .format = layer->format,
        .in = layer->weight.columns,
        .out = layer->weight.rows,
        .weight = weights + layer->weight.offset,
        .scale = layer->format == RK_DENSE_INT8 ? (const float *)(weights + layer->scale.offset) : NULL,
        .bias = layer->bias.rows > 0 ? (const float *)(weights + layer->bias.offset) : NULL,
        .gain = layer->gain.rows > 0 ? (const float *)(weights + layer->gain.offset) : NULL,
        .order = order,
        .columns = layer->weight.columns,
        .calibrated = layer->calibrated,
        .low = layer->low,
        .high = layer->high,
    };
    const struct rk_tensor_use weight = {.layer = *use, .part = RK_TENSOR_WEIGHT};
    char name[RK_TENSOR_NAME_BYTES];
    if (rk_linear_create(&source, linear, error) != RK_OK)
        return rk_error_prefix(error, "%s", rk_tensor_use_name(&weight, name));
    return RK_OK;
}

enum rk_status rk_towers_create(const struct rk_model_spec *spec, const void *weights, struct rk_towers **towers,
                                struct rk_error *error)
{
    struct rk_error local = {0};
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    const size_t num_uses = rk_model_spec_layers(spec, uses);
    const uint32_t top_in = rk_model_spec_widths(spec).top_in;
    uint32_t *order = calloc(top_in, sizeof *order);
    struct rk_towers *created = calloc(1, sizeof *created);
    bool enough = order != NULL && created != NULL;
    for (size_t u = 0; enough && u < num_uses; u++)
        created->num_layers[uses[u].stage]++;
    for (int stage = 0; enough && stage < RK_STAGE_COUNT; stage++) {
        created->layers[stage] = calloc((size_t)created->num_layers[stage] + 1, sizeof(struct rk_linear *));
        enough = created->layers[stage] != NULL;
    }
    if (!enough)
        rk_error_set(&local, RK_NO_MEMORY, "out of memory");
    else
        rk_interaction_order(spec, order);
    for (size_t u = 0; local.status == RK_OK && u < num_uses; u++) {
        const bool reads_interaction = uses[u].stage == RK_STAGE_TOP && uses[u].index == 0;
        struct rk_linear **linear = &created->layers[uses[u].stage][uses[u].index];
        if (pack_layer(&uses[u], weights, reads_interaction ? order : NULL, linear, &local) == RK_OK)
            created->bytes += rk_linear_bytes(*linear);
    }
    free(order);
    if (local.status != RK_OK) {
        rk_towers_destroy(created);
        return rk_error_set(error, local.status, "packing the towers: %s", local.text);
    }
    *towers = created;
    return RK_OK;
}

void rk_towers_destroy(struct rk_towers *towers)
{
    if (towers == NULL)
        return;
    for (int stage = 0; stage < RK_STAGE_COUNT; stage++) {
        for (uint32_t l = 0; towers->layers[stage] != NULL && l < towers->num_layers[stage]; l++)
            rk_linear_destroy(towers->layers[stage][l]);
        free(towers->layers[stage]);
    }
    free(towers);
}
