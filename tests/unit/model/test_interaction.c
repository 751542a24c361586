/* The order in which interactions write: on vectors of one number each, every product can be read off. */
#include <criterion/criterion.h>

#include "model/interaction.h"
#include "tests/unit/model/small_model.h"

/* x is 2, features are 3 (context), 5 (candidate), 7 (context); a second candidate has 11 and x = 13. */
static void expect_dot(bool x_of_candidate, enum rk_pairs pairs, bool self, uint32_t count, const float *first,
                       const float *second)
{
    const struct small_shape shape = {
        .context_dense = !x_of_candidate,
        .candidate_dense = x_of_candidate,
        .num_tables = 1,
        .tables = {{4, 1, 1, 0}},
        .num_features = 3,
        .features = {{.side = RK_SIDE_CONTEXT}, {.side = RK_SIDE_CANDIDATE}, {.side = RK_SIDE_CONTEXT}},
        .num_heads = 1,
        .op = RK_INTERACTION_DOT,
        .pairs = pairs,
        .self = self,
    };
    struct rk_model model;
    small_model_describe(&model, &shape);
    struct rk_interaction *interaction = NULL;
    cr_assert_eq(rk_interaction_create(&model.spec, NULL, rk_kernels_get(), &interaction, NULL), RK_OK);
    cr_assert_eq(rk_interaction_x(interaction)->side, x_of_candidate ? RK_SIDE_CANDIDATE : RK_SIDE_CONTEXT);
    float context[3] = {2, 3, 7}, candidate[4] = {5, 11};
    if (x_of_candidate) {
        memcpy(context, (const float[]){3, 7}, 2 * sizeof(float));
        memcpy(candidate, (const float[]){2, 5, 13, 11}, 4 * sizeof(float));
    }
    const struct rk_segment segment = {0, 2};
    const struct rk_tile tile = {&segment, 1, 2, context, candidate};
    float out[32];
    cr_assert_eq(rk_model_spec_widths(&model.spec).top_in, count);
    const struct rk_observer nobody = {0};
    rk_interaction_run(interaction, &tile, &nobody, NULL, out);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(out[i], first[i], "first candidate [%u] is %g, expected %g", i, (double)out[i], (double)first[i]);
        cr_assert_eq(out[count + i], second[i], "second candidate [%u] is %g, expected %g", i, (double)out[count + i],
                     (double)second[i]);
    }
    rk_interaction_destroy(interaction);
    small_model_close(&model);
}

#define LIST(...) ((const float[]){__VA_ARGS__})

Test(interaction, the_lower_triangle_goes_row_by_row)
{
    expect_dot(false, RK_PAIRS_TRIL, false, 7, LIST(2, 6, 10, 15, 14, 21, 35), LIST(2, 6, 22, 33, 14, 21, 77));
    expect_dot(true, RK_PAIRS_TRIL, false, 7, LIST(2, 6, 10, 15, 14, 21, 35), LIST(13, 39, 143, 33, 91, 21, 77));
}

Test(interaction, the_lower_triangle_with_the_diagonal)
{
    expect_dot(false, RK_PAIRS_TRIL, true, 11, LIST(2, 4, 6, 9, 10, 15, 25, 14, 21, 35, 49),
               LIST(2, 4, 6, 9, 22, 33, 121, 14, 21, 77, 49));
}

Test(interaction, the_upper_triangle_goes_row_by_row)
{
    expect_dot(false, RK_PAIRS_TRIU, false, 7, LIST(2, 6, 10, 14, 15, 21, 35), LIST(2, 6, 22, 14, 33, 21, 77));
}

Test(interaction, the_upper_triangle_with_the_diagonal)
{
    expect_dot(true, RK_PAIRS_TRIU, true, 11, LIST(2, 4, 6, 10, 14, 9, 15, 21, 25, 35, 49),
               LIST(13, 169, 39, 143, 91, 9, 33, 21, 121, 77, 49));
}
