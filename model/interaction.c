/* The three interactions.
 *
 * dot multiplies vectors in the order "context's first, then the candidate's" (their rank), and writes the lower
 * triangle of that order. Rows of the triangle that belong to the context are a prefix, computed once per request. Both
 * parts of a candidate's row are put together in buffers that stay in the first-level cache and go from there straight
 * into the format of the top MLP. Vectors in bf16 or int8 are converted into one block, by rank, the context's into one
 * for each request:
 *
 *   context's   [x if it is the context's   | the context's triangle  | slack of the kernels]
 *   own         [x if it is the candidate's | the other rows of it    | slack]
 *   converted   [rank][vector_bytes]
 *
 * cat and dcn_v2 read the concatenation [the context's vectors | the candidate's], whose pieces are rows of both sides'
 * matrices as they are. */
#include "model/interaction.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/columns.h"
#include "model/context_part.h"
#include "quant/kernels.h"

enum { LINE = 64, LINE_FLOATS = 16 };

struct rk_interaction {
    const struct rk_model_spec *spec;
    const struct rk_kernels *kernels;
    const struct rk_towers *towers;
    struct rk_model_widths widths;
    uint32_t context_stride, candidate_stride;
    uint32_t context_width; /* cat and dcn_v2: of the concatenation's first piece */
    bool has_x;
    uint32_t num_vectors, num_context;
    struct rk_vector *vectors; /* [num_vectors] in the spec's order */

    /* dot */
    const struct rk_vector **ranked; /* [num_vectors] */
    const void **at;                 /* [num_vectors]: what is multiplied, by rank */
    float *scales;                   /* [num_vectors] of int8 vectors */
    size_t vector_bytes;
    unsigned char *converted, *gram_scratch; /* the rest is scratch that is cut for it */
    unsigned char *context_converted;        /* [requests][num_context][vector_bytes] */
    float *context_scales;                   /* [requests][num_context] */
    float *context_row, *own_row;

    /* dcn_v2 */
    struct rk_context_part v_context; /* of the first V */
    float *x, *y;                     /* [rows][x_stride] */
    uint32_t x_stride;
    struct rk_matrix wide, low; /* what V and W read */
    float *sums;
};

/* ---- where vectors lie ---- */

static uint32_t whole_lines(uint32_t floats)
{
    return (floats + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

static void place_vectors(struct rk_interaction *interaction)
{
    const struct rk_model_spec *spec = interaction->spec;
    const bool dot = spec->interaction.op == RK_INTERACTION_DOT;
    for (uint32_t v = 0; v < interaction->num_vectors; v++) {
        const enum rk_side side = rk_vector_side(spec, v);
        const uint32_t dim = rk_vector_dim(spec, v);
        uint32_t *stride = side == RK_SIDE_CONTEXT ? &interaction->context_stride : &interaction->candidate_stride;
        interaction->vectors[v] = (struct rk_vector){.side = side, .dim = dim, .column = *stride};
        *stride += dot ? whole_lines(dim) : dim;
    }
    interaction->context_width = interaction->context_stride;
    interaction->context_stride = whole_lines(interaction->context_stride);
    /* Where no vector is the candidate's, its part of a layer still reads a column, of zeros. */
    interaction->candidate_stride = whole_lines(interaction->candidate_stride > 0 ? interaction->candidate_stride : 1);
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
    interaction->num_context = rk_vector_ranks(interaction->spec, ranks);
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
    created->v_context =
        (struct rk_context_part){.linear = towers->context_part[RK_STAGE_CROSS_V], .stage = RK_STAGE_CROSS_V};
    created->x_stride = whole_lines(created->widths.top_in);
    const size_t num_vectors = created->num_vectors = spec->num_features + created->has_x;
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

static void cut_dot(struct rk_interaction *interaction, uint32_t rows, struct rk_scratch *scratch)
{
    const size_t count = interaction->num_vectors, shared = interaction->num_context,
                 row_floats = (size_t)interaction->widths.top_in + RK_GRAM_SLACK;
    const enum rk_dense_format format = interaction->spec->interaction.format;
    interaction->context_row = rk_scratch_cut(scratch, row_floats, sizeof(float));
    interaction->own_row = rk_scratch_cut(scratch, row_floats, sizeof(float));
    if (format != RK_DENSE_F32) {
        interaction->converted = rk_scratch_cut(scratch, count - shared, interaction->vector_bytes);
        interaction->context_converted = rk_scratch_cut(scratch, rows * shared, interaction->vector_bytes);
        interaction->context_scales = rk_scratch_cut(scratch, rows * shared, sizeof(float));
    }
    if (format == RK_DENSE_INT8)
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

/* Where the vectors of ranks [first, end) lie when they are multiplied: as they are, or converted. */
static void find(struct rk_interaction *interaction, uint32_t first, uint32_t end, const float *row,
                 unsigned char *converted)
{
    const bool as_it_is = interaction->spec->interaction.format == RK_DENSE_F32;
    for (uint32_t r = first; r < end; r++)
        interaction->at[r] = as_it_is ? (const void *)(row + interaction->ranked[r]->column)
                                      : converted + (r - first) * interaction->vector_bytes;
}

/* Converts the vectors of ranks [first, end) from a row of their side's matrix. */
static void convert(struct rk_interaction *interaction, uint32_t first, uint32_t end, const float *row,
                    unsigned char *converted, float *scales)
{
    const struct rk_kernels *kernels = interaction->kernels;
    const enum rk_dense_format format = interaction->spec->interaction.format;
    for (uint32_t r = first; format != RK_DENSE_F32 && r < end; r++, converted += interaction->vector_bytes) {
        const struct rk_vector *vector = interaction->ranked[r];
        if (format == RK_DENSE_BF16)
            kernels->to_bf16(row + vector->column, vector->dim, (uint16_t *)converted);
        else
            *scales++ = to_int8(kernels, row + vector->column, vector->dim, (int8_t *)converted);
    }
}

/* Rows [first, end) of the triangle to z. */
static void multiply(struct rk_interaction *interaction, uint32_t first, uint32_t end, float *z)
{
    const struct rk_kernels *kernels = interaction->kernels;
    const bool self = interaction->spec->interaction.self;
    const uint32_t dim = interaction->vectors[0].dim;
    if (first == end)
        return;
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

/* x to the front of `to` if it belongs to this side; returns how many floats it is. */
static uint32_t put_x(const struct rk_interaction *interaction, enum rk_side side, const float *row, float *to)
{
    const struct rk_vector *x = &interaction->vectors[0];
    if (!interaction->has_x || x->side != side)
        return 0;
    memcpy(to, row + x->column, x->dim * sizeof *row);
    return x->dim;
}

/* NULL when vectors are multiplied as they are. */
static unsigned char *context_converted(const struct rk_interaction *interaction, uint32_t request)
{
    if (interaction->context_converted == NULL)
        return NULL;
    return interaction->context_converted + (size_t)request * interaction->num_context * interaction->vector_bytes;
}

static float *context_scales(const struct rk_interaction *interaction, uint32_t request)
{
    if (interaction->context_scales == NULL)
        return NULL;
    return interaction->context_scales + (size_t)request * interaction->num_context;
}

static void run_dot_context(struct rk_interaction *interaction, const struct rk_tile *tile, struct rk_context_part *top)
{
    const uint32_t shared = interaction->num_context;
    const bool int8 = interaction->spec->interaction.format == RK_DENSE_INT8;
    for (uint32_t s = tile->first_new; shared > 0 && s < tile->num_segments; s++) {
        const float *context = tile->context + (size_t)s * interaction->context_stride;
        unsigned char *converted = context_converted(interaction, s);
        float *scales = context_scales(interaction, s), *row = interaction->context_row;
        convert(interaction, 0, shared, context, converted, scales);
        if (top->linear == NULL)
            continue;
        find(interaction, 0, shared, context, converted);
        if (int8)
            memcpy(interaction->scales, scales, shared * sizeof *scales);
        multiply(interaction, 0, shared, row + put_x(interaction, RK_SIDE_CONTEXT, context, row));
        rk_context_part_set(top, s, row);
    }
}

static void run_dot(struct rk_interaction *interaction, const struct rk_tile *tile, struct rk_context_part *context,
                    const struct rk_matrix *out)
{
    const struct rk_linear *top = interaction->towers->layers[RK_STAGE_TOP][0];
    const uint32_t shared = interaction->num_context, count = interaction->num_vectors;
    float *own = interaction->own_row, *own_scales = interaction->scales + shared;
    run_dot_context(interaction, tile, context);
    for (uint32_t s = 0; s < tile->num_segments; s++) {
        const struct rk_segment *segment = &tile->segments[s];
        find(interaction, 0, shared, tile->context + (size_t)s * interaction->context_stride,
             context_converted(interaction, s));
        if (interaction->spec->interaction.format == RK_DENSE_INT8)
            memcpy(interaction->scales, context_scales(interaction, s), shared * sizeof(float));
        for (uint32_t row = segment->first_row; row < segment->first_row + segment->num_rows; row++) {
            const float *candidate = tile->candidate + (size_t)row * interaction->candidate_stride;
            struct rk_matrix to = rk_matrix_from(out, row);
            convert(interaction, shared, count, candidate, interaction->converted, own_scales);
            find(interaction, shared, count, candidate, interaction->converted);
            multiply(interaction, shared, count, own + put_x(interaction, RK_SIDE_CANDIDATE, candidate, own));
            rk_linear_input(top, own, 0, 1, &to);
        }
    }
}

/* ---- cat and dcn_v2 ---- */

static void set_contexts(const struct rk_interaction *interaction, const struct rk_tile *tile,
                         struct rk_context_part *part)
{
    for (uint32_t s = tile->first_new; s < tile->num_segments; s++)
        rk_context_part_set(part, s, tile->context + (size_t)s * interaction->context_stride);
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
    const size_t elements = (size_t)rows * interaction->x_stride;
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

/* x = x0 * y + x for all rows; before the first layer, x is x0. */
static void cross_rows(const struct rk_interaction *interaction, const struct rk_tile *tile, bool first)
{
    const size_t shared = interaction->context_width, own = interaction->widths.top_in - shared;
    for (uint32_t row = 0; row < tile->num_rows; row++) {
        const float *context = tile->context + (size_t)tile->segment_of[row] * interaction->context_stride,
                    *candidate = tile->candidate + (size_t)row * interaction->candidate_stride,
                    *y = interaction->y + (size_t)row * interaction->x_stride;
        float *x = interaction->x + (size_t)row * interaction->x_stride;
        add_cross(context, y, first ? context : x, shared, x);
        add_cross(candidate, y + shared, first ? candidate : x + shared, own, x + shared);
    }
}

static void run_dcn_v2(struct rk_interaction *interaction, const struct rk_tile *tile,
                       const struct rk_observer *observer, struct rk_matrix *out)
{
    const struct rk_towers *towers = interaction->towers;
    const uint32_t rows = tile->num_rows, width = interaction->widths.top_in;
    set_contexts(interaction, tile, &interaction->v_context);
    rk_context_part_run(&interaction->v_context, tile, observer);
    for (uint32_t k = 0; k < interaction->spec->interaction.num_cross; k++) {
        const struct rk_linear *v = towers->layers[RK_STAGE_CROSS_V][k], *w = towers->layers[RK_STAGE_CROSS_W][k];
        const bool first = k == 0;
        const uint32_t before = first ? interaction->context_width : 0;
        struct rk_matrix wide = interaction->wide, low = interaction->low,
                         y = {.values = interaction->y, .row_bytes = interaction->x_stride * sizeof(float)};
        wide.row_bytes = rk_linear_row_bytes(v);
        low.row_bytes = rk_linear_row_bytes(w);
        rk_linear_input(v, first ? tile->candidate : interaction->x,
                        first ? interaction->candidate_stride : interaction->x_stride, rows, &wide);
        if (first)
            rk_context_part_begin(&interaction->v_context, tile, &wide);
        rk_observe(observer, RK_STAGE_CROSS_V, k, before, width - before, &wide, rows);
        rk_linear_run(v, &wide, rows, false, w, interaction->sums, &low);
        rk_observe(observer, RK_STAGE_CROSS_W, k, 0, rk_linear_columns(w), &low, rows);
        rk_linear_run(w, &low, rows, false, NULL, interaction->sums, &y);
        cross_rows(interaction, tile, first);
    }
    rk_linear_input(towers->layers[RK_STAGE_TOP][0], interaction->x, interaction->x_stride, rows, out);
}

/* ---- all of them ---- */

void rk_interaction_cut(struct rk_interaction *interaction, uint32_t rows, struct rk_scratch *scratch)
{
    rk_context_part_cut(&interaction->v_context, rows, scratch);
    if (interaction->spec->interaction.op == RK_INTERACTION_DOT)
        cut_dot(interaction, rows, scratch);
    else if (interaction->spec->interaction.op == RK_INTERACTION_DCN_V2)
        cut_dcn_v2(interaction, rows, scratch);
}

void rk_interaction_run(struct rk_interaction *interaction, const struct rk_tile *tile,
                        const struct rk_observer *observer, struct rk_context_part *top, struct rk_matrix *out)
{
    switch (interaction->spec->interaction.op) {
    case RK_INTERACTION_DOT:
        run_dot(interaction, tile, top, out);
        break;
    case RK_INTERACTION_CAT:
        set_contexts(interaction, tile, top);
        rk_linear_input(interaction->towers->layers[RK_STAGE_TOP][0], tile->candidate, interaction->candidate_stride,
                        tile->num_rows, out);
        break;
    case RK_INTERACTION_DCN_V2: /* whose top MLP reads no side alone */
        run_dcn_v2(interaction, tile, observer, out);
        break;
    }
}

void rk_interaction_carry(struct rk_interaction *interaction, uint32_t request)
{
    rk_context_part_carry(&interaction->v_context, request);
    if (request == 0 || interaction->context_converted == NULL)
        return;
    const size_t shared = interaction->num_context;
    memcpy(interaction->context_converted, context_converted(interaction, request), shared * interaction->vector_bytes);
    memcpy(interaction->context_scales, context_scales(interaction, request), shared * sizeof(float));
}
