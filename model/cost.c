/* What a model costs to run, counted from its spec. Multiply-adds are those of the mathematics (a dot product of two
 * vectors of length n is n), whatever the engine saves by computing the context once. */
#include "model/spec.h"

static uint64_t tensor_elements(const struct rk_tensor_spec *tensor)
{
    return (uint64_t)tensor->rows * tensor->columns;
}

static void add_towers(const struct rk_model_spec *spec, struct rk_model_cost *cost)
{
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t count = rk_model_spec_tensors(spec, uses);
    for (size_t i = 0; i < count; i++) {
        if (uses[i].part == RK_TENSOR_WEIGHT)
            cost->multiply_adds += tensor_elements(uses[i].tensor);
        cost->weight_bytes += uses[i].bytes;
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
