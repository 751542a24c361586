/* The three interactions.
 *
 * What depends on the context alone is computed for a request's first candidate and copied to its others: under `dot`,
 * the pairs of two context vectors (and x, where it is one). `pairs` is therefore kept in two stretches, shared ones
 * first:
 *
 *   pairs: [shared: both vectors on the context side ... | own: at least one on the candidate's ...]
 */
#include "model/interaction.h"

#include <stdlib.h>
#include <string.h>

/* out[column] = vectors[i] . vectors[j] */
struct pair {
    uint32_t i, j, column;
};

struct rk_interaction {
    const struct rk_model_spec *spec;
    const unsigned char *weights;
    const struct rk_kernels *kernels;
    struct rk_model_widths widths;
    uint32_t context_width, candidate_width;
    bool has_x;
    uint32_t num_vectors;
    struct rk_vector *vectors; /* [num_vectors] */
    const float **at;          /* [num_vectors]: the vectors of the row that is being computed */
    struct pair *pairs;        /* dot only */
    uint32_t num_shared, num_pairs;
};

static void place_vector(struct rk_interaction *interaction, enum rk_side side, uint32_t dim)
{
    uint32_t *width = side == RK_SIDE_CONTEXT ? &interaction->context_width : &interaction->candidate_width;
    interaction->vectors[interaction->num_vectors++] = (struct rk_vector){side, *width, dim};
    *width += dim;
}

static void place_vectors(struct rk_interaction *interaction)
{
    const struct rk_model_spec *spec = interaction->spec;
    interaction->has_x = interaction->widths.bottom_out > 0;
    if (interaction->has_x)
        place_vector(interaction, spec->num_candidate_dense > 0 ? RK_SIDE_CANDIDATE : RK_SIDE_CONTEXT,
                     interaction->widths.bottom_out);
    for (uint32_t f = 0; f < spec->num_features; f++)
        place_vector(interaction, spec->features[f].side, spec->tables[spec->features[f].table].embedding_dim);
}

/* Numbers the pairs row by row in the spec's order and keeps those that are (or are not) shared. */
static void add_pairs(struct rk_interaction *interaction, bool shared)
{
    const bool lower = interaction->spec->interaction.pairs == RK_PAIRS_TRIL,
               self = interaction->spec->interaction.self;
    const struct rk_vector *vectors = interaction->vectors;
    uint32_t column = interaction->widths.bottom_out;
    for (uint32_t i = 0; i < interaction->num_vectors; i++) {
        const uint32_t first = lower ? 0 : i + !self, end = lower ? i + self : interaction->num_vectors;
        for (uint32_t j = first; j < end; j++, column++)
            if (shared == (vectors[i].side == RK_SIDE_CONTEXT && vectors[j].side == RK_SIDE_CONTEXT))
                interaction->pairs[interaction->num_pairs++] = (struct pair){i, j, column};
    }
}

enum rk_status rk_interaction_create(const struct rk_model_spec *spec, const void *weights,
                                     const struct rk_kernels *kernels, struct rk_interaction **interaction,
                                     struct rk_error *error)
{
    struct rk_interaction *created = calloc(1, sizeof *created);
    if (created == NULL)
        goto fail;
    *created = (struct rk_interaction){.spec = spec,
                                       .weights = weights,
                                       .kernels = kernels,
                                       .widths = rk_model_spec_widths(spec)};
    const size_t num_vectors = created->widths.num_vectors;
    created->vectors = calloc(num_vectors, sizeof *created->vectors);
    created->at = calloc(num_vectors, sizeof *created->at);
    if (created->vectors == NULL || created->at == NULL)
        goto fail;
    place_vectors(created);
    if (spec->interaction.op == RK_INTERACTION_DOT) {
        created->pairs =
            calloc((size_t)created->widths.top_in - created->widths.bottom_out + 1, sizeof *created->pairs);
        if (created->pairs == NULL)
            goto fail;
        add_pairs(created, true);
        created->num_shared = created->num_pairs;
        add_pairs(created, false);
    }
    *interaction = created;
    return RK_OK;
fail:
    rk_interaction_destroy(created);
    return rk_error_set(error, RK_NO_MEMORY, "out of memory while preparing the interaction of model '%s'", spec->name);
}

void rk_interaction_destroy(struct rk_interaction *interaction)
{
    if (interaction == NULL)
        return;
    free(interaction->pairs);
    free(interaction->at);
    free(interaction->vectors);
    free(interaction);
}

uint32_t rk_interaction_context_width(const struct rk_interaction *interaction)
{
    return interaction->context_width;
}

uint32_t rk_interaction_candidate_width(const struct rk_interaction *interaction)
{
    return interaction->candidate_width;
}

const struct rk_vector *rk_interaction_x(const struct rk_interaction *interaction)
{
    return interaction->has_x ? &interaction->vectors[0] : NULL;
}

const struct rk_vector *rk_interaction_feature(const struct rk_interaction *interaction, uint32_t feature)
{
    return &interaction->vectors[interaction->has_x + feature];
}

static inline const float *vector_at(const struct rk_interaction *interaction, const struct rk_tile *tile,
                                     const struct rk_vector *vector, uint32_t segment, uint32_t row)
{
    return vector->side == RK_SIDE_CONTEXT
               ? tile->context + (size_t)segment * interaction->context_width + vector->column
               : tile->candidate + (size_t)row * interaction->candidate_width + vector->column;
}

/* ---- dot ---- */

static void multiply_pairs(const struct rk_interaction *interaction, uint32_t first, uint32_t end, float *out)
{
    const uint32_t dim = interaction->vectors[0].dim;
    for (uint32_t p = first; p < end; p++) {
        const struct pair *pair = &interaction->pairs[p];
        out[pair->column] = interaction->kernels->dot_f32(interaction->at[pair->i], interaction->at[pair->j], dim);
    }
}

static void run_dot(struct rk_interaction *interaction, const struct rk_tile *tile, float *out)
{
    const uint32_t x_dim = interaction->widths.bottom_out, top_in = interaction->widths.top_in;
    for (uint32_t s = 0; s < tile->num_segments; s++) {
        const struct rk_segment *segment = &tile->segments[s];
        const float *first = out + (size_t)segment->first_row * top_in;
        for (uint32_t row = segment->first_row; row < segment->first_row + segment->num_rows; row++) {
            float *to = out + (size_t)row * top_in;
            for (uint32_t v = 0; v < interaction->num_vectors; v++)
                interaction->at[v] = vector_at(interaction, tile, &interaction->vectors[v], s, row);
            if (row == segment->first_row)
                multiply_pairs(interaction, 0, interaction->num_shared, to);
            else if (interaction->num_shared > 0)
                memcpy(to, first, top_in * sizeof *to);
            if (x_dim > 0)
                memcpy(to, interaction->at[0], x_dim * sizeof *to);
            multiply_pairs(interaction, interaction->num_shared, interaction->num_pairs, to);
        }
    }
}

/* ---- cat ---- */

static void run_cat(const struct rk_interaction *interaction, const struct rk_tile *tile, float *out)
{
    for (uint32_t s = 0; s < tile->num_segments; s++) {
        const struct rk_segment *segment = &tile->segments[s];
        for (uint32_t row = segment->first_row; row < segment->first_row + segment->num_rows; row++)
            for (uint32_t v = 0; v < interaction->num_vectors; v++) {
                const struct rk_vector *vector = &interaction->vectors[v];
                memcpy(out, vector_at(interaction, tile, vector, s, row), vector->dim * sizeof *out);
                out += vector->dim;
            }
    }
}

/* ---- dcn_v2 ---- */

/* x = x0 * (y + bias) + x, over rows of `width` floats without gaps. */
static void add_cross(const float *restrict x0, const float *restrict y, const float *restrict bias, uint32_t rows,
                      uint32_t width, float *restrict x)
{
    for (uint32_t r = 0; r < rows; r++, x0 += width, y += width, x += width)
        for (uint32_t i = 0; i < width; i++)
            x[i] += x0[i] * (y[i] + bias[i]);
}

/* scratch: x0 [rows][width], y [rows][width], V x [rows][rank] */
static void run_dcn_v2(const struct rk_interaction *interaction, const struct rk_tile *tile,
                       const struct rk_observer *observer, float *scratch, float *out)
{
    const struct rk_interaction_spec *spec = &interaction->spec->interaction;
    const uint32_t rows = tile->num_rows, width = interaction->widths.top_in, rank = spec->rank;
    const size_t elements = (size_t)rows * width;
    float *x0 = scratch, *y = x0 + elements, *low = y + elements;
    run_cat(interaction, tile, x0);
    memcpy(out, x0, elements * sizeof *out);
    for (uint32_t k = 0; k < spec->num_cross; k++) {
        const struct rk_cross_spec *cross = &spec->cross[k];
        rk_observe(observer, RK_STAGE_CROSS_V, k, out, rows, width, width);
        rk_tower_linear((const float *)(interaction->weights + cross->v.weight.offset), width, rank, out, width, rows,
                        low, rank);
        rk_observe(observer, RK_STAGE_CROSS_W, k, low, rows, rank, rank);
        rk_tower_linear((const float *)(interaction->weights + cross->w.weight.offset), rank, width, low, rank, rows, y,
                        width);
        add_cross(x0, y, (const float *)(interaction->weights + cross->w.bias.offset), rows, width, out);
    }
}

/* ---- all of them ---- */

size_t rk_interaction_scratch_floats(const struct rk_interaction *interaction)
{
    if (interaction->spec->interaction.op != RK_INTERACTION_DCN_V2)
        return 0;
    return 2 * (size_t)interaction->widths.top_in + interaction->spec->interaction.rank;
}

void rk_interaction_run(struct rk_interaction *interaction, const struct rk_tile *tile,
                        const struct rk_observer *observer, float *scratch, float *out)
{
    switch (interaction->spec->interaction.op) {
    case RK_INTERACTION_DOT:
        run_dot(interaction, tile, out);
        break;
    case RK_INTERACTION_CAT:
        run_cat(interaction, tile, out);
        break;
    case RK_INTERACTION_DCN_V2:
        run_dcn_v2(interaction, tile, observer, scratch, out);
        break;
    }
}
