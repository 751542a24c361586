/* The three interactions.
 *
 * dot multiplies vectors in the order "context's first, then the candidate's" (their rank), and writes the lower
 * triangle of that order. Rows of the triangle that belong to the context are a prefix, computed once per request. A
 * candidate's row, [x | triangle], is put together in one buffer that stays in the first-level cache and goes from
 * there straight into the format of the top MLP. Vectors in bf16 or int8 are converted into one block, by rank:
 *
 *   row        [x | the context's triangle | the candidate's | slack of the kernels]
 *   converted  [rank][vector_bytes]
 *
 * cat and dcn_v2 work on the candidate's matrix, which is the concatenation already once the context's vectors are
 * copied into their holes. */
#include "model/interaction.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/kernels.h"

enum { LINE = 64, LINE_FLOATS = 16 };

struct rk_interaction {
    const struct rk_model_spec *spec;
    const struct rk_kernels *kernels;
    const struct rk_towers *towers;
    struct rk_model_widths widths;
    uint32_t context_stride, candidate_stride;
    bool has_x;
    uint32_t num_vectors, num_context;
    struct rk_vector *vectors; /* [num_vectors] in the spec's order */

    /* dot */
    const struct rk_vector **ranked; /* [num_vectors] */
    const void **at;                 /* [num_vectors]: what is multiplied, by rank */
    float *scales;                   /* [num_vectors] of int8 vectors */
    size_t vector_bytes;
    unsigned char *converted, *gram_scratch; /* the rest is scratch that is cut for it */
    float *row;

    /* dcn_v2 */
    float *x, *y;
    struct rk_matrix wide, low; /* what V and W read */
    float *sums;
};

/* ---- where vectors lie ---- */

static uint32_t whole_lines(uint32_t floats)
{
    return (floats + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

static enum rk_side side_of_x(const struct rk_model_spec *spec)
{
    return spec->num_candidate_dense > 0 ? RK_SIDE_CANDIDATE : RK_SIDE_CONTEXT;
}

/* `column` counts the concatenation of all vectors. */
static void place_vector(struct rk_interaction *interaction, enum rk_side side, uint32_t dim, uint32_t *column)
{
    struct rk_vector *vector = &interaction->vectors[interaction->num_vectors++];
    *vector = (struct rk_vector){.side = side, .dim = dim};
    if (side == RK_SIDE_CONTEXT) {
        vector->column = interaction->context_stride;
        interaction->context_stride += whole_lines(dim);
        interaction->num_context++;
    } else if (interaction->spec->interaction.op == RK_INTERACTION_DOT) {
        vector->column = interaction->candidate_stride;
        interaction->candidate_stride += whole_lines(dim);
    } else {
        vector->column = *column;
    }
    *column += dim;
}

static void place_vectors(struct rk_interaction *interaction)
{
    const struct rk_model_spec *spec = interaction->spec;
    uint32_t column = 0;
    if (interaction->has_x)
        place_vector(interaction, side_of_x(spec), interaction->widths.bottom_out, &column);
    for (uint32_t f = 0; f < spec->num_features; f++)
        place_vector(interaction, spec->features[f].side, spec->tables[spec->features[f].table].embedding_dim, &column);
    if (spec->interaction.op != RK_INTERACTION_DOT)
        interaction->candidate_stride = whole_lines(column);
}

/* The rank of each of the spec's vectors: the context's first. */
static uint32_t rank_vectors(const struct rk_model_spec *spec, uint32_t ranks[RK_MAX_FEATURES + 1])
{
    const bool has_x = rk_model_spec_widths(spec).bottom_out > 0;
    const uint32_t count = spec->num_features + has_x;
    uint32_t next = 0;
    for (int side = RK_SIDE_CONTEXT; side <= RK_SIDE_CANDIDATE; side++)
        for (uint32_t v = 0; v < count; v++) {
            const enum rk_side own = has_x && v == 0 ? side_of_x(spec) : spec->features[v - has_x].side;
            if ((int)own == side)
                ranks[v] = next++;
        }
    return count;
}

void rk_interaction_order(const struct rk_model_spec *spec, uint32_t *order)
{
    const struct rk_model_widths widths = rk_model_spec_widths(spec);
    const bool lower = spec->interaction.pairs == RK_PAIRS_TRIL, self = spec->interaction.self;
    const bool dot = spec->interaction.op == RK_INTERACTION_DOT;
    for (uint32_t c = 0; c < (dot ? widths.bottom_out : widths.top_in); c++)
        order[c] = c;
    if (!dot)
        return;
    uint32_t ranks[RK_MAX_FEATURES + 1];
    const uint32_t count = rank_vectors(spec, ranks);
    uint32_t column = widths.bottom_out;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t first = lower ? 0 : i + !self, end = lower ? i + self : count;
        for (uint32_t j = first; j < end; j++, column++) {
            const uint32_t high = ranks[i] > ranks[j] ? ranks[i] : ranks[j],
                           low = ranks[i] > ranks[j] ? ranks[j] : ranks[i];
            order[widths.bottom_out + rk_gram_elements(high, self) + low] = column;
        }
    }
}

/* ---- life ---- */

static size_t vector_bytes(enum rk_dense_format format, uint32_t dim)
{
    return (dim * rk_dense_element_bytes(format) + LINE - 1) / LINE * LINE;
}

/* Arrays of pointers by rank. */
static void rank(struct rk_interaction *interaction)
{
    uint32_t ranks[RK_MAX_FEATURES + 1];
    rank_vectors(interaction->spec, ranks);
    for (uint32_t v = 0; v < interaction->num_vectors; v++)
        interaction->ranked[ranks[v]] = &interaction->vectors[v];
    if (interaction->num_vectors > 0)
        interaction->vector_bytes = vector_bytes(interaction->spec->interaction.format, interaction->vectors[0].dim);
}

enum rk_status rk_interaction_create(const struct rk_model_spec *spec, const struct rk_towers *towers,
                                     struct rk_interaction **interaction, struct rk_error *error)
{
    struct rk_interaction *created = calloc(1, sizeof *created);
    if (created == NULL)
        goto fail;
    *created = (struct rk_interaction){.spec = spec,
                                       .kernels = rk_kernels_get(),
                                       .towers = towers,
                                       .widths = rk_model_spec_widths(spec)};
    created->has_x = created->widths.bottom_out > 0;
    const size_t num_vectors = created->widths.num_vectors;
    created->vectors = calloc(num_vectors, sizeof *created->vectors);
    created->ranked = calloc(num_vectors, sizeof *created->ranked);
    created->at = calloc(num_vectors, sizeof *created->at);
    created->scales = calloc(num_vectors, sizeof *created->scales);
    if (created->vectors == NULL || created->ranked == NULL || created->at == NULL || created->scales == NULL)
        goto fail;
    place_vectors(created);
    rank(created);
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
    free(interaction->scales);
    free(interaction->at);
    free(interaction->ranked);
    free(interaction->vectors);
    free(interaction);
}

uint32_t rk_interaction_context_stride(const struct rk_interaction *interaction)
{
    return interaction->context_stride;
}

uint32_t rk_interaction_candidate_stride(const struct rk_interaction *interaction)
{
    return interaction->candidate_stride;
}

const struct rk_vector *rk_interaction_x(const struct rk_interaction *interaction)
{
    return interaction->has_x ? &interaction->vectors[0] : NULL;
}

const struct rk_vector *rk_interaction_feature(const struct rk_interaction *interaction, uint32_t feature)
{
    return &interaction->vectors[interaction->has_x + feature];
}

/* ---- dot ---- */

static void cut_dot(struct rk_interaction *interaction, struct rk_scratch *scratch)
{
    const size_t count = interaction->num_vectors;
    interaction->row =
        rk_scratch_cut(scratch, (size_t)interaction->widths.top_in + RK_GRAM_SLACK, sizeof *interaction->row);
    if (interaction->spec->interaction.format != RK_DENSE_F32)
        interaction->converted = rk_scratch_cut(scratch, count, interaction->vector_bytes);
    if (interaction->spec->interaction.format == RK_DENSE_INT8)
        interaction->gram_scratch =
            rk_scratch_cut(scratch, 1, rk_gram_scratch_bytes(count, interaction->vectors[0].dim));
}

/* Symmetric: scale = max |v| / 127. What is too small to divide by counts as zero. */
static float to_int8(const struct rk_kernels *kernels, const float *vector, uint32_t dim, int8_t *to)
{
    float low, high;
    kernels->range(vector, dim, &low, &high);
    const float scale = (high >= -low || isnan(high) ? high : -low) / 127.0f;
    const bool none = scale < FLT_MIN;
    kernels->to_s8(vector, dim, none ? 0.0f : 1.0f / scale, to);
    return none ? 0.0f : scale;
}

/* Brings the vectors of ranks [first, end) to where they are multiplied, from a row of their side's matrix. */
static void bring(struct rk_interaction *interaction, uint32_t first, uint32_t end, const float *row)
{
    const enum rk_dense_format format = interaction->spec->interaction.format;
    for (uint32_t r = first; r < end; r++) {
        const float *vector = row + interaction->ranked[r]->column;
        const uint32_t dim = interaction->ranked[r]->dim;
        void *to = interaction->converted + r * interaction->vector_bytes;
        interaction->at[r] = format == RK_DENSE_F32 ? (const void *)vector : to;
        if (format == RK_DENSE_BF16)
            interaction->kernels->to_bf16(vector, dim, to);
        else if (format == RK_DENSE_INT8)
            interaction->scales[r] = to_int8(interaction->kernels, vector, dim, to);
    }
}

/* Rows [first, end) of the triangle, at their place in the row. */
static void multiply(struct rk_interaction *interaction, uint32_t first, uint32_t end)
{
    const struct rk_kernels *kernels = interaction->kernels;
    const bool self = interaction->spec->interaction.self;
    const uint32_t dim = interaction->vectors[0].dim;
    float *z = interaction->row + interaction->widths.bottom_out + rk_gram_elements(first, self);
    switch (interaction->spec->interaction.format) {
    case RK_DENSE_BF16:
        kernels->gram_bf16((const uint16_t *const *)interaction->at, first, end, dim, self, z);
        break;
    case RK_DENSE_INT8:
        kernels->gram_int8((const int8_t *const *)interaction->at, interaction->scales, first, end, dim, self,
                           interaction->gram_scratch, z);
        break;
    default:
        kernels->gram_f32((const float *const *)interaction->at, first, end, dim, self, z);
    }
}

/* x to the front of the row, if it belongs to this side. */
static void put_x(struct rk_interaction *interaction, enum rk_side side, const float *row)
{
    const struct rk_vector *x = &interaction->vectors[0];
    if (interaction->has_x && x->side == side)
        memcpy(interaction->row, row + x->column, x->dim * sizeof *row);
}

static void run_dot(struct rk_interaction *interaction, const struct rk_tile *tile, const struct rk_matrix *out)
{
    const struct rk_linear *top = interaction->towers->layers[RK_STAGE_TOP][0];
    const uint32_t shared = interaction->num_context, count = interaction->num_vectors;
    for (uint32_t s = 0; s < tile->num_segments; s++) {
        const struct rk_segment *segment = &tile->segments[s];
        const float *context = tile->context + (size_t)s * interaction->context_stride;
        put_x(interaction, RK_SIDE_CONTEXT, context);
        bring(interaction, 0, shared, context);
        multiply(interaction, 0, shared);
        for (uint32_t row = segment->first_row; row < segment->first_row + segment->num_rows; row++) {
            const float *candidate = tile->candidate + (size_t)row * interaction->candidate_stride;
            struct rk_matrix to = {.values = (unsigned char *)out->values + row * out->row_bytes,
                                   .row_bytes = out->row_bytes,
                                   .scales = out->scales + row,
                                   .zeros = out->zeros + row};
            put_x(interaction, RK_SIDE_CANDIDATE, candidate);
            bring(interaction, shared, count, candidate);
            multiply(interaction, shared, count);
            rk_linear_input(top, interaction->row, interaction->widths.top_in, 1, &to);
        }
    }
}

/* ---- cat and dcn_v2 ---- */

/* The context's vectors into the holes of the candidates' rows. */
static void fill_holes(const struct rk_interaction *interaction, const struct rk_tile *tile)
{
    for (uint32_t s = 0; s < tile->num_segments; s++) {
        const struct rk_segment *segment = &tile->segments[s];
        const float *context = tile->context + (size_t)s * interaction->context_stride;
        float *candidate = tile->candidate + (size_t)segment->first_row * interaction->candidate_stride;
        for (uint32_t row = 0; row < segment->num_rows; row++, candidate += interaction->candidate_stride) {
            uint32_t column = 0;
            for (uint32_t v = 0; v < interaction->num_vectors; column += interaction->vectors[v++].dim)
                if (interaction->vectors[v].side == RK_SIDE_CONTEXT)
                    memcpy(candidate + column, context + interaction->vectors[v].column,
                           interaction->vectors[v].dim * sizeof *candidate);
        }
    }
}

static void cut_dcn_v2(struct rk_interaction *interaction, uint32_t rows, struct rk_scratch *scratch)
{
    const struct rk_towers *towers = interaction->towers;
    size_t wide = 0, low = 0, sums = 0;
    for (uint32_t k = 0; k < interaction->spec->interaction.num_cross; k++) {
        const struct rk_linear *v = towers->layers[RK_STAGE_CROSS_V][k], *w = towers->layers[RK_STAGE_CROSS_W][k];
        const size_t sizes[] = {rk_linear_row_bytes(v), rk_linear_row_bytes(w), rk_linear_scratch_floats(v, w),
                                rk_linear_scratch_floats(w, NULL)};
        wide = sizes[0] > wide ? sizes[0] : wide;
        low = sizes[1] > low ? sizes[1] : low;
        sums = sizes[2] > sums ? sizes[2] : sums;
        sums = sizes[3] > sums ? sizes[3] : sums;
    }
    const size_t elements = (size_t)rows * interaction->candidate_stride;
    interaction->x = rk_scratch_cut(scratch, elements, sizeof(float));
    interaction->y = rk_scratch_cut(scratch, elements, sizeof(float));
    interaction->wide = rk_scratch_cut_matrix(scratch, rows, wide);
    interaction->low = rk_scratch_cut_matrix(scratch, rows, low);
    interaction->sums = rk_scratch_cut(scratch, rows, sums * sizeof(float));
}

/* to = x0 * y + x; `to` may be x. */
static void add_cross(const float *x0, const float *restrict y, const float *x, size_t elements, float *to)
{
    for (size_t i = 0; i < elements; i++)
        to[i] = x0[i] * y[i] + x[i];
}

static void run_dcn_v2(struct rk_interaction *interaction, const struct rk_tile *tile,
                       const struct rk_observer *observer, struct rk_matrix *out)
{
    const struct rk_towers *towers = interaction->towers;
    const size_t stride = interaction->candidate_stride;
    const uint32_t rows = tile->num_rows;
    const float *x = tile->candidate;
    for (uint32_t k = 0; k < interaction->spec->interaction.num_cross; k++) {
        const struct rk_linear *v = towers->layers[RK_STAGE_CROSS_V][k], *w = towers->layers[RK_STAGE_CROSS_W][k];
        struct rk_matrix wide = interaction->wide, low = interaction->low,
                         y = {.values = interaction->y, .row_bytes = stride * sizeof(float)};
        wide.row_bytes = rk_linear_row_bytes(v);
        low.row_bytes = rk_linear_row_bytes(w);
        rk_linear_input(v, x, stride, rows, &wide);
        rk_observe(observer, RK_STAGE_CROSS_V, k, v, &wide, rows);
        rk_linear_run(v, &wide, rows, false, w, interaction->sums, &low);
        rk_observe(observer, RK_STAGE_CROSS_W, k, w, &low, rows);
        rk_linear_run(w, &low, rows, false, NULL, interaction->sums, &y);
        for (uint32_t r = 0; r < rows; r++)
            add_cross(tile->candidate + r * stride, interaction->y + r * stride, x + r * stride,
                      interaction->widths.top_in, interaction->x + r * stride);
        x = interaction->x;
    }
    rk_linear_input(towers->layers[RK_STAGE_TOP][0], x, stride, rows, out);
}

/* ---- all of them ---- */

void rk_interaction_cut(struct rk_interaction *interaction, uint32_t rows, struct rk_scratch *scratch)
{
    if (interaction->spec->interaction.op == RK_INTERACTION_DOT)
        cut_dot(interaction, scratch);
    else if (interaction->spec->interaction.op == RK_INTERACTION_DCN_V2)
        cut_dcn_v2(interaction, rows, scratch);
}

void rk_interaction_run(struct rk_interaction *interaction, const struct rk_tile *tile,
                        const struct rk_observer *observer, struct rk_matrix *out)
{
    switch (interaction->spec->interaction.op) {
    case RK_INTERACTION_DOT:
        run_dot(interaction, tile, out);
        break;
    case RK_INTERACTION_CAT:
        fill_holes(interaction, tile);
        rk_linear_input(interaction->towers->layers[RK_STAGE_TOP][0], tile->candidate, interaction->candidate_stride,
                        tile->num_rows, out);
        break;
    case RK_INTERACTION_DCN_V2:
        fill_holes(interaction, tile);
        run_dcn_v2(interaction, tile, observer, out);
        break;
    }
}
