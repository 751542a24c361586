/* See plain_model.h. */
#include "tests/unit/model/plain_model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* Bytes of layers and vectors are rounded as FORMAT.md says, in float32, from numbers that were computed in double
 * precision. */
static double bf16(double value)
{
    return (double)rk_bf16_to_f32(rk_bf16_from_f32((float)value));
}

/* What the layer makes of its inputs, those of one side: where of_context[i] is `side`. */
static void round_side(const struct rk_linear_spec *layer, const double *x, const bool *of_context, bool side,
                       double *rounded)
{
    const uint32_t in = layer->weight.columns;
    float low = 0.0f, high = 0.0f;
    for (uint32_t i = 0; i < in; i++) {
        if (of_context[i] != side)
            continue;
        low = fminf(low, (float)x[i]);
        high = fmaxf(high, (float)x[i]);
    }
    if (layer->calibrated) {
        low = layer->low;
        high = layer->high;
    }
    const float scale = (high - low) / 255.0f, zero = scale > 0.0f ? rintf(-low / scale) : 0.0f;
    for (uint32_t i = 0; i < in; i++)
        if (of_context[i] != side)
            continue;
        else if (layer->format == RK_DENSE_BF16)
            rounded[i] = bf16(x[i]);
        else if (layer->format == RK_DENSE_INT8)
            rounded[i] = scale > 0.0f
                             ? (double)scale * ((double)fmaxf(0.0f, fminf(255.0f, rintf((float)x[i] / scale) + zero)) -
                                                (double)zero)
                             : 0.0;
        else
            rounded[i] = x[i];
}

/* of_context NULL: the layer reads one side. */
static double *multiply(const struct rk_model *model, const struct rk_linear_spec *layer, const double *x,
                        const bool *of_context, struct rk_arena *arena)
{
    static const bool none[1 << 12];
    const uint32_t in = layer->weight.columns, out = layer->weight.rows;
    double *y = rk_arena_array(arena, out, sizeof *y), *rounded = rk_arena_array(arena, in, sizeof *rounded);
    float *weights = rk_arena_array(arena, (uint64_t)in * out, sizeof *weights);
    rk_dense_decode(layer->format, model->weights + layer->weight.offset,
                    (const float *)(model->weights + layer->scale.offset), out, in, weights);
    double *gained = rk_arena_array(arena, in, sizeof *gained);
    for (uint32_t i = 0; i < in; i++)
        gained[i] =
            layer->gain.rows > 0 ? x[i] * (double)((const float *)(model->weights + layer->gain.offset))[i] : x[i];
    cr_assert_leq(in, sizeof none);
    for (int side = 0; side < 2; side++)
        round_side(layer, gained, of_context != NULL ? of_context : none, side, rounded);
    for (uint32_t o = 0; o < out; o++) {
        for (uint32_t i = 0; i < in; i++)
            y[o] += (double)weights[(size_t)o * in + i] * rounded[i];
        if (layer->bias.rows > 0)
            y[o] += (double)((const float *)(model->weights + layer->bias.offset))[o];
    }
    return y;
}

static double *plain_mlp(const struct rk_model *model, const struct rk_mlp_spec *mlp, bool relu_last, double *x,
                         const bool *of_context, struct rk_arena *arena)
{
    for (uint32_t l = 0; l < mlp->num_layers; l++) {
        x = multiply(model, &mlp->layers[l], x, l == 0 ? of_context : NULL, arena);
        for (uint32_t o = 0; (l + 1 < mlp->num_layers || relu_last) && o < mlp->layers[l].weight.rows; o++)
            x[o] = fmax(x[o], 0.0);
    }
    return x;
}

/* A vector of the dot interaction in its format. */
static void round_vector(enum rk_dense_format format, double *vector, uint32_t dim)
{
    float most = 0.0f;
    for (uint32_t d = 0; d < dim; d++)
        most = fmaxf(most, fabsf((float)vector[d]));
    const float scale = most / 127.0f;
    for (uint32_t d = 0; d < dim; d++)
        if (format == RK_DENSE_BF16)
            vector[d] = bf16(vector[d]);
        else if (format == RK_DENSE_INT8)
            vector[d] = scale > 0.0f ? (double)scale * (double)rintf((float)vector[d] / scale) : 0.0;
}

/* Appends feature f of a candidate to `to`. */
static void plain_pool(const struct rk_model *model, const struct rk_request *request, uint32_t f, uint32_t candidate,
                       double *to)
{
    const struct rk_feature_spec *feature = &model->spec.features[f];
    const uint32_t dim = model->spec.tables[feature->table].embedding_dim;
    const struct rk_bags *bags = &request->bags[f];
    const uint32_t row = feature->side == RK_SIDE_CONTEXT ? 0 : candidate;
    const uint32_t first = bags->offsets[row], end = bags->offsets[row + 1];
    for (uint32_t d = 0; d < dim; d++) {
        double sum = 0.0;
        for (uint32_t i = first; i < end; i++)
            sum += (feature->weighted ? (double)bags->weights[i] : 1.0) *
                   (double)model->rows[feature->table][(uint64_t)bags->ids[i] * dim + d];
        to[d] = feature->pooling == RK_POOLING_MEAN && end > first ? sum / (end - first) : sum;
    }
}

const double *plain_logits(const struct rk_model *model, const struct rk_request *request, uint32_t candidate,
                           struct rk_arena *arena)
{
    const struct rk_model_spec *spec = &model->spec;
    double x0[1 << 12];
    bool of_context[1 << 12] = {false}, vector_of_context[SMALL_MAX + 2];
    uint32_t starts[SMALL_MAX + 2], num_vectors = 0, width = 0;
    for (uint32_t i = 0; i < spec->num_context_dense; i++)
        x0[width++] = (double)request->context_dense[i];
    for (uint32_t i = 0; i < spec->num_candidate_dense; i++)
        x0[width++] = (double)request->candidate_dense[candidate * spec->num_candidate_dense + i];
    if (width > 0) {
        memset(of_context, true, spec->num_context_dense);
        const double *x = plain_mlp(model, &spec->bottom, true, x0, of_context, arena);
        memset(of_context, false, sizeof of_context);
        if (spec->bottom.num_layers > 0)
            width = spec->bottom.layers[spec->bottom.num_layers - 1].weight.rows;
        memmove(x0, x, width * sizeof *x0);
        vector_of_context[num_vectors] = spec->num_candidate_dense == 0;
        starts[num_vectors++] = 0;
    }
    const uint32_t x_width = width;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        vector_of_context[num_vectors] = spec->features[f].side == RK_SIDE_CONTEXT;
        starts[num_vectors++] = width;
        plain_pool(model, request, f, candidate, x0 + width);
        width += spec->tables[spec->features[f].table].embedding_dim;
    }
    starts[num_vectors] = width;
    for (uint32_t v = 0; v < num_vectors; v++)
        memset(of_context + starts[v], vector_of_context[v], starts[v + 1] - starts[v]);
    double *in = rk_arena_array(arena, width + 100, sizeof *in);
    memcpy(in, x0, width * sizeof *in);
    if (spec->interaction.op == RK_INTERACTION_DOT) {
        const uint32_t dim = width / num_vectors;
        double *z = in + x_width;
        for (uint32_t v = 0; v < num_vectors; v++)
            round_vector(spec->interaction.format, x0 + starts[v], dim);
        for (uint32_t i = 0; i < num_vectors; i++)
            for (uint32_t j = 0; j < num_vectors; j++) {
                const bool wanted = i == j                                     ? spec->interaction.self
                                    : spec->interaction.pairs == RK_PAIRS_TRIL ? j < i
                                                                               : j > i;
                if (!wanted)
                    continue;
                of_context[z - in] = vector_of_context[i] && vector_of_context[j];
                *z = 0.0;
                for (uint32_t d = 0; d < dim; d++)
                    *z += x0[starts[i] + d] * x0[starts[j] + d];
                z++;
            }
    }
    for (uint32_t k = 0; k < spec->interaction.num_cross; k++) {
        const struct rk_cross_spec *cross = &spec->interaction.cross[k];
        const double *y =
            multiply(model, &cross->w, multiply(model, &cross->v, in, k == 0 ? of_context : NULL, arena), NULL, arena);
        for (uint32_t i = 0; i < width; i++)
            in[i] += x0[i] * y[i];
    }
    return plain_mlp(model, &spec->top, false, in, spec->interaction.num_cross == 0 ? of_context : NULL, arena);
}
