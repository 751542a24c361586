/* What a model costs to run, counted from its spec. Multiply-adds are those of the mathematics (a dot product of two
 * vectors of length n is n), whatever the engine saves by computing the context once. */
#include "model/spec.h"

static uint64_t tensor_elements(const struct rk_tensor_spec *tensor)
{
    return (uint64_t)tensor->rows * tensor->columns;
}

static void add_mlp(const struct rk_mlp_spec *mlp, struct rk_model_cost *cost)
{
    for (uint32_t l = 0; l < mlp->num_layers; l++) {
        cost->multiply_adds += tensor_elements(&mlp->layers[l].weight);
        cost->weight_bytes +=
            sizeof(float) * (tensor_elements(&mlp->layers[l].weight) + tensor_elements(&mlp->layers[l].bias));
    }
}

static void add_interaction(const struct rk_model_spec *spec, struct rk_model_cost *cost)
{
    const struct rk_interaction_spec *interaction = &spec->interaction;
    const struct rk_model_widths widths = rk_model_spec_widths(spec);
    if (interaction->op == RK_INTERACTION_DOT && widths.num_vectors > 0) {
        uint64_t num_pairs = widths.top_in - widths.bottom_out;
        uint64_t dim = widths.bottom_out > 0 ? widths.bottom_out : widths.pooled / widths.num_vectors;
        cost->multiply_adds += num_pairs * dim;
    }
    for (uint32_t k = 0; k < interaction->num_cross; k++) {
        const struct rk_cross_spec *cross = &interaction->cross[k];
        uint64_t elements = tensor_elements(&cross->v.weight) + tensor_elements(&cross->w.weight);
        cost->multiply_adds += elements + widths.top_in; /* and x0 * y */
        cost->weight_bytes += sizeof(float) * (elements + tensor_elements(&cross->w.bias));
    }
}

struct rk_model_cost rk_model_spec_cost(const struct rk_model_spec *spec, double ids_per_feature)
{
    struct rk_model_cost cost = {0};
    add_mlp(&spec->bottom, &cost);
    add_interaction(spec, &cost);
    add_mlp(&spec->top, &cost);
    uint64_t row_bytes[2] = {0}; /* one row per feature, by side */
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_table_spec *table = &spec->tables[spec->features[f].table];
        row_bytes[spec->features[f].side] += rk_row_bytes(table->format, table->embedding_dim);
    }
    cost.context_bytes = (uint64_t)((double)row_bytes[RK_SIDE_CONTEXT] * ids_per_feature);
    cost.candidate_bytes = (uint64_t)((double)row_bytes[RK_SIDE_CANDIDATE] * ids_per_feature);
    return cost;
}
