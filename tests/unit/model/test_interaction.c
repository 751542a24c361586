/* What interactions write, and in which order: on vectors that are whole numbers, every product can be read off, in
 * every format. */
#include <criterion/criterion.h>

#include "model/columns.h"
#include "model/interaction.h"
#include "tests/unit/model/small_model.h"

/* Vectors are (value, 127): in int8 their scale is then 1, and in no format is there anything to round. x is 2,
 * features are 3 (context), 5 (candidate), 7 (context); a second candidate has 11 and, where x is its own, x = 13. */
enum { SECOND = 127, DIM = 2 };

static void put(float *matrix, uint32_t row, uint32_t stride, const struct rk_vector *vector, float value)
{
    float *to = matrix + row * stride + vector->column;
    to[0] = value;
    to[1] = SECOND;
}

/* first, second: [count] products without what the second elements add, in the spec's order. */
static void expect_dot_in(enum rk_dense_format format, bool x_of_candidate, enum rk_pairs pairs, bool self,
                          uint32_t count, const float *first, const float *second)
{
    const struct small_shape shape = {
        .context_dense = x_of_candidate ? 0 : DIM,
        .candidate_dense = x_of_candidate ? DIM : 0,
        .num_tables = 1,
        .tables = {{.rows = 4, .dim = DIM}},
        .num_features = 3,
        .features = {{.side = RK_SIDE_CONTEXT}, {.side = RK_SIDE_CANDIDATE}, {.side = RK_SIDE_CONTEXT}},
        .num_heads = 1,
        .op = RK_INTERACTION_DOT,
        .pairs = pairs,
        .self = self,
        .vector_format = format,
    };
    struct random random = random_from_seed();
    struct rk_model model;
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    const uint32_t top_in = rk_model_spec_widths(&model.spec).top_in;
    cr_assert_eq(top_in, DIM + count);
    struct rk_interaction *interaction = NULL;
    cr_assert_eq(rk_interaction_create(&model.spec, model.towers, &interaction, NULL), RK_OK);
    const struct rk_vector *x = rk_interaction_x(interaction);
    cr_assert_eq(x->side, x_of_candidate ? RK_SIDE_CANDIDATE : RK_SIDE_CONTEXT);

    static _Alignas(64) unsigned char memory[1 << 14];
    memset(memory, 0, sizeof memory);
    struct rk_scratch scratch = {.base = memory};
    const uint32_t context_stride = rk_interaction_context_stride(interaction),
                   candidate_stride = rk_interaction_candidate_stride(interaction);
    float *context = rk_scratch_cut(&scratch, context_stride, sizeof *context);
    float *candidate = rk_scratch_cut(&scratch, 2u * candidate_stride, sizeof *candidate);
    struct rk_matrix out = rk_scratch_cut_matrix(&scratch, 2, rk_matrix_row_bytes(RK_DENSE_F32, top_in));
    struct rk_context_part part = {.linear = model.towers->context_part[RK_STAGE_TOP], .stage = RK_STAGE_TOP};
    rk_context_part_cut(&part, 2, &scratch);
    rk_interaction_cut(interaction, 2, &scratch);
    cr_assert_lt(scratch.end, sizeof memory);

    put(context, 0, context_stride, rk_interaction_feature(interaction, 0), 3);
    put(context, 0, context_stride, rk_interaction_feature(interaction, 2), 7);
    put(candidate, 0, candidate_stride, rk_interaction_feature(interaction, 1), 5);
    put(candidate, 1, candidate_stride, rk_interaction_feature(interaction, 1), 11);
    put(x_of_candidate ? candidate : context, 0, candidate_stride, x, 2);
    if (x_of_candidate)
        put(candidate, 1, candidate_stride, x, 13);
    const struct rk_segment segment = {0, 2, 2};
    const uint32_t segment_of[2] = {0, 0};
    const struct rk_tile tile = {.segments = &segment,
                                 .segment_of = segment_of,
                                 .num_segments = 1,
                                 .num_rows = 2,
                                 .context = context,
                                 .candidate = candidate};
    const struct rk_observer nobody = {0};
    rk_interaction_run(interaction, &tile, &nobody, &part, &out);

    uint32_t order[32];
    const struct rk_layer_use top = {&model.spec.top.layers[0], RK_STAGE_TOP, 0};
    const uint32_t shared = rk_layer_columns(&model.spec, &top, order);
    cr_assert_eq(rk_linear_columns(part.linear), shared);
    const float *of_context = part.in.values;
    for (uint32_t row = 0; row < 2; row++) {
        const float *own = (const float *)((const unsigned char *)out.values + row * out.row_bytes);
        bool there[32] = {false};
        for (uint32_t c = 0; c < top_in; c++) {
            const uint32_t column = order[c];
            const float got = c < shared ? of_context[c] : own[c - shared];
            cr_assert(column < top_in && !there[column], "column %u stands for the spec's %u, which is there already",
                      c, column);
            there[column] = true;
            const float of_x[] = {row == 1 && x_of_candidate ? 13 : 2, SECOND};
            const float expected =
                column < DIM ? of_x[column] : (row == 0 ? first : second)[column - DIM] + SECOND * SECOND;
            cr_assert_eq(got, expected, "%s, candidate %u: column %u is %g, expected %g", rk_dense_format_name(format),
                         row, column, (double)got, (double)expected);
        }
    }
    rk_interaction_destroy(interaction);
    small_model_close(&model);
}

static void expect_dot(bool x_of_candidate, enum rk_pairs pairs, bool self, uint32_t count, const float *first,
                       const float *second)
{
    for (int format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        expect_dot_in((enum rk_dense_format)format, x_of_candidate, pairs, self, count, first, second);
}

#define LIST(...) ((const float[]){__VA_ARGS__})

Test(interaction, the_lower_triangle_goes_row_by_row)
{
    expect_dot(false, RK_PAIRS_TRIL, false, 6, LIST(6, 10, 15, 14, 21, 35), LIST(6, 22, 33, 14, 21, 77));
    expect_dot(true, RK_PAIRS_TRIL, false, 6, LIST(6, 10, 15, 14, 21, 35), LIST(39, 143, 33, 91, 21, 77));
}

Test(interaction, the_lower_triangle_with_the_diagonal)
{
    expect_dot(false, RK_PAIRS_TRIL, true, 10, LIST(4, 6, 9, 10, 15, 25, 14, 21, 35, 49),
               LIST(4, 6, 9, 22, 33, 121, 14, 21, 77, 49));
}

Test(interaction, the_upper_triangle_goes_row_by_row)
{
    expect_dot(false, RK_PAIRS_TRIU, false, 6, LIST(6, 10, 14, 15, 21, 35), LIST(6, 22, 14, 33, 21, 77));
}

Test(interaction, the_upper_triangle_with_the_diagonal)
{
    expect_dot(true, RK_PAIRS_TRIU, true, 10, LIST(4, 6, 10, 14, 9, 15, 21, 25, 35, 49),
               LIST(169, 39, 143, 91, 9, 33, 21, 121, 77, 49));
}

Test(interaction, the_contexts_columns_come_first)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 300; round++) {
        const struct small_shape shape = small_shape_random(&random);
        struct rk_model model;
        struct rk_layer_use uses[RK_MAX_LAYER_USES];
        small_model_describe(&model, &shape);
        const struct rk_model_spec *spec = &model.spec;
        const size_t count = rk_model_spec_layers(spec, uses);
        for (size_t u = 0; u < count; u++) {
            const uint32_t columns = uses[u].layer->weight.columns;
            uint32_t order[4096];
            bool there[4096] = {false};
            cr_assert_leq(columns, 4096);
            const uint32_t shared = rk_layer_columns(spec, &uses[u], order);
            for (uint32_t c = 0; c < columns; c++) {
                cr_assert(order[c] < columns && !there[order[c]]);
                there[order[c]] = true;
            }
            /* The concatenation: the context's vectors, which V of the first cross layer and the top MLP under cat have
             * apart, then the candidate's, each side's in the spec's order. */
            const bool reads_all =
                           uses[u].stage == RK_STAGE_CROSS_V || (uses[u].stage == RK_STAGE_TOP && uses[u].index == 0),
                       crossed =
                           uses[u].index > 0 || (uses[u].stage == RK_STAGE_TOP && spec->interaction.num_cross > 0);
            if (!reads_all || spec->interaction.op == RK_INTERACTION_DOT) {
                for (uint32_t c = 0; c < columns && !reads_all; c++)
                    cr_assert_eq(order[c], c);
                continue;
            }
            uint32_t vectors_of_context = 0;
            bool of_context[4096];
            for (uint32_t v = 0, first = 0; first < columns; first += rk_vector_dim(spec, v++))
                for (uint32_t c = first; c < first + rk_vector_dim(spec, v); c++)
                    vectors_of_context += of_context[c] = rk_vector_side(spec, v) == RK_SIDE_CONTEXT;
            cr_assert_eq(shared, crossed ? 0 : vectors_of_context);
            for (uint32_t c = 0; c < columns; c++) {
                cr_assert_eq(of_context[order[c]], c < vectors_of_context);
                cr_assert(c == 0 || c == vectors_of_context || order[c - 1] < order[c]);
            }
        }
        small_model_close(&model);
    }
}
