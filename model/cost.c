/* What a model costs to run, counted from its spec. Multiply-adds are those of the mathematics: a dot product of two
 * vectors of length n is n. */
#include "model/columns.h"
#include "model/spec.h"
#include "quant/gram.h"

static uint64_t tensor_elements(const struct rk_tensor_spec *tensor)
{
    return (uint64_t)tensor->rows * tensor->columns;
}

static void add_towers(const struct rk_model_spec *spec, struct rk_model_cost *cost)
{
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    for (size_t l = 0; l < num_layers; l++) {
        const struct rk_tensor_spec *weight = &layers[l].layer->weight;
        const bool of_context = layers[l].stage == RK_STAGE_BOTTOM && spec->num_candidate_dense == 0;
        const uint64_t shared = of_context ? weight->columns : rk_layer_columns(spec, &layers[l], NULL);
        cost->multiply_adds += tensor_elements(weight);
        cost->context_multiply_adds += shared * weight->rows;
    }
    struct rk_tensor_use tensors[RK_MAX_TENSOR_USES];
    const size_t count = rk_model_spec_tensors(spec, tensors);
    for (size_t i = 0; i < count; i++)
        cost->weight_bytes += tensors[i].bytes;
}

static void add_interaction(const struct rk_model_spec *spec, struct rk_model_cost *cost)
{
    const struct rk_interaction_spec *interaction = &spec->interaction;
    const struct rk_model_widths widths = rk_model_spec_widths(spec);
    if (interaction->op == RK_INTERACTION_DOT && widths.num_vectors > 0) {
        uint32_t ranks[RK_MAX_FEATURES + 1];
        const uint64_t dim = rk_vector_dim(spec, 0), num_pairs = widths.top_in - widths.bottom_out;
        cost->multiply_adds += num_pairs * dim;
        cost->context_multiply_adds += rk_gram_elements(rk_vector_ranks(spec, ranks), interaction->self) * dim;
    }
    cost->multiply_adds += (uint64_t)interaction->num_cross * widths.top_in; /* x0 * y */
}

struct rk_model_cost rk_model_spec_cost(const struct rk_model_spec *spec, double ids_per_feature)
{
    struct rk_model_cost cost = {0};
    add_towers(spec, &cost);
    add_interaction(spec, &cost);
    uint64_t row_bytes[2] = {0}; /* one row per feature, by side */
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_table_spec *table = &spec->tables[spec->features[f].table];
        row_bytes[spec->features[f].side] += rk_row_bytes(table->format, table->embedding_dim);
    }
    cost.context_bytes = (uint64_t)((double)row_bytes[RK_SIDE_CONTEXT] * ids_per_feature);
    cost.candidate_bytes = (uint64_t)((double)row_bytes[RK_SIDE_CANDIDATE] * ids_per_feature);
    return cost;
}
