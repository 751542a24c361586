/* Packing a model's layers. One thread while it packs. */
#include "model/towers.h"

#include <stdlib.h>

#include "model/columns.h"

/* `columns` of the layer, those that `order` names; with or without its bias. */
static enum rk_status pack_part(const struct rk_layer_use *use, const unsigned char *weights, const uint32_t *order,
                                uint32_t columns, const uint32_t *out_order, bool bias, struct rk_linear **linear,
                                struct rk_error *error)
{
    const struct rk_linear_spec *layer = use->layer;
    const struct rk_linear_source source = {
        .format = layer->format,
        .in = layer->weight.columns,
        .out = layer->weight.rows,
        .weight = weights + layer->weight.offset,
        .scale = layer->format == RK_DENSE_INT8 ? (const float *)(weights + layer->scale.offset) : NULL,
        .bias = bias && layer->bias.rows > 0 ? (const float *)(weights + layer->bias.offset) : NULL,
        .gain = layer->gain.rows > 0 ? (const float *)(weights + layer->gain.offset) : NULL,
        .order = order,
        .columns = columns,
        .out_order = out_order,
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

static enum rk_status pack_layer(const struct rk_model_spec *spec, const struct rk_layer_use *use,
                                 const unsigned char *weights, uint32_t *order, struct rk_towers *towers,
                                 struct rk_error *error)
{
    static const uint32_t nothing = RK_LINEAR_NO_COLUMN;
    const uint32_t columns = use->layer->weight.columns;
    struct rk_linear **rest = &towers->layers[use->stage][use->index], **part = &towers->context_part[use->stage];
    if (use->stage == RK_STAGE_CROSS_W) { /* what it gives is multiplied with what V reads */
        const struct rk_layer_use v = {&spec->interaction.cross[use->index].v, RK_STAGE_CROSS_V, use->index};
        rk_layer_columns(spec, &v, order);
        return pack_part(use, weights, NULL, columns, order, true, rest, error);
    }
    const uint32_t of_context = rk_layer_columns(spec, use, order);
    if (of_context == 0)
        return pack_part(use, weights, order, columns, NULL, true, rest, error);
    const enum rk_status status = pack_part(use, weights, order, of_context, NULL, true, part, error);
    if (status != RK_OK)
        return status;
    return of_context == columns
               ? pack_part(use, weights, &nothing, 1, NULL, false, rest, error)
               : pack_part(use, weights, order + of_context, columns - of_context, NULL, false, rest, error);
}

static size_t bytes_of(const struct rk_linear *linear)
{
    return linear != NULL ? rk_linear_bytes(linear) : 0;
}

enum rk_status rk_towers_create(const struct rk_model_spec *spec, const void *weights, struct rk_towers **towers,
                                struct rk_error *error)
{
    struct rk_error local = {0};
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    const size_t num_uses = rk_model_spec_layers(spec, uses);
    uint32_t widest = 0;
    for (size_t u = 0; u < num_uses; u++)
        widest = uses[u].layer->weight.columns > widest ? uses[u].layer->weight.columns : widest;
    uint32_t *order = calloc(widest, sizeof *order);
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
    for (size_t u = 0; local.status == RK_OK && u < num_uses; u++)
        if (pack_layer(spec, &uses[u], weights, order, created, &local) == RK_OK)
            created->bytes += bytes_of(created->layers[uses[u].stage][uses[u].index]) +
                              (uses[u].index == 0 ? bytes_of(created->context_part[uses[u].stage]) : 0);
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
        rk_linear_destroy(towers->context_part[stage]);
    }
    free(towers);
}
