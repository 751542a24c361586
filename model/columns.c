/* The engine's order of columns. Pure functions of the spec. */
#include "model/columns.h"

#include "quant/gram.h"

static bool has_x(const struct rk_model_spec *spec)
{
    return rk_model_spec_widths(spec).dense > 0;
}

enum rk_side rk_vector_side(const struct rk_model_spec *spec, uint32_t vector)
{
    const bool x = has_x(spec);
    if (x && vector == 0)
        return spec->num_candidate_dense > 0 ? RK_SIDE_CANDIDATE : RK_SIDE_CONTEXT;
    return spec->features[vector - x].side;
}

uint32_t rk_vector_dim(const struct rk_model_spec *spec, uint32_t vector)
{
    const bool x = has_x(spec);
    if (x && vector == 0)
        return rk_model_spec_widths(spec).bottom_out;
    return spec->tables[spec->features[vector - x].table].embedding_dim;
}

uint32_t rk_vector_ranks(const struct rk_model_spec *spec, uint32_t ranks[RK_MAX_FEATURES + 1])
{
    const uint32_t count = spec->num_features + has_x(spec);
    uint32_t next = 0, of_context = 0;
    for (int side = RK_SIDE_CONTEXT; side <= RK_SIDE_CANDIDATE; side++) {
        for (uint32_t v = 0; v < count; v++)
            if ((int)rk_vector_side(spec, v) == side)
                ranks[v] = next++;
        of_context = side == RK_SIDE_CONTEXT ? next : of_context;
    }
    return of_context;
}

/* The context's vectors one after the other, then the candidate's. */
static uint32_t order_concatenation(const struct rk_model_spec *spec, uint32_t *order)
{
    const uint32_t count = spec->num_features + has_x(spec);
    uint32_t next = 0, of_context = 0;
    for (int side = RK_SIDE_CONTEXT; side <= RK_SIDE_CANDIDATE; side++) {
        for (uint32_t v = 0, column = 0; v < count; column += rk_vector_dim(spec, v++))
            for (uint32_t i = 0; (int)rk_vector_side(spec, v) == side && i < rk_vector_dim(spec, v); i++, next++)
                if (order != NULL)
                    order[next] = column + i;
        of_context = side == RK_SIDE_CONTEXT ? next : of_context;
    }
    return of_context;
}

/* The products by rank: those of a context's vector with those before it are a prefix. */
static uint32_t order_products(const struct rk_model_spec *spec, uint32_t *order)
{
    const struct rk_model_widths widths = rk_model_spec_widths(spec);
    const bool lower = spec->interaction.pairs == RK_PAIRS_TRIL, self = spec->interaction.self;
    uint32_t ranks[RK_MAX_FEATURES + 1];
    const uint32_t shared_pairs = (uint32_t)rk_gram_elements(rk_vector_ranks(spec, ranks), self);
    const bool x_is_shared = has_x(spec) && rk_vector_side(spec, 0) == RK_SIDE_CONTEXT;
    const uint32_t x = x_is_shared ? 0 : shared_pairs, pairs_before = x_is_shared ? widths.bottom_out : 0;
    if (order == NULL)
        return pairs_before + shared_pairs;
    for (uint32_t c = 0; c < widths.bottom_out; c++)
        order[x + c] = c;
    uint32_t column = widths.bottom_out;
    for (uint32_t i = 0; i < widths.num_vectors; i++) {
        const uint32_t first = lower ? 0 : i + !self, end = lower ? i + self : widths.num_vectors;
        for (uint32_t j = first; j < end; j++, column++) {
            const uint32_t high = ranks[i] > ranks[j] ? ranks[i] : ranks[j],
                           low = ranks[i] > ranks[j] ? ranks[j] : ranks[i];
            const uint32_t pair = (uint32_t)rk_gram_elements(high, self) + low;
            order[(pair < shared_pairs ? pairs_before : widths.bottom_out) + pair] = column;
        }
    }
    return pairs_before + shared_pairs;
}

uint32_t rk_layer_columns(const struct rk_model_spec *spec, const struct rk_layer_use *use, uint32_t *order)
{
    const enum rk_interaction_op op = spec->interaction.op;
    const bool reads_interaction = use->stage == RK_STAGE_TOP && use->index == 0;
    if (reads_interaction && op == RK_INTERACTION_DOT)
        return order_products(spec, order);
    if (reads_interaction || use->stage == RK_STAGE_CROSS_V) {
        const uint32_t of_context = order_concatenation(spec, order);
        const bool crossed = use->index > 0 || (reads_interaction && op == RK_INTERACTION_DCN_V2);
        return crossed ? 0 : of_context; /* a cross layer has mixed the sides */
    }
    for (uint32_t c = 0; order != NULL && c < use->layer->weight.columns; c++)
        order[c] = c;
    const bool reads_dense = use->stage == RK_STAGE_BOTTOM && use->index == 0;
    return reads_dense && spec->num_candidate_dense > 0 ? spec->num_context_dense : 0;
}
