/* A valid spec, changed in one place at a time: every change must be refused with a text that names it. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "tests/unit/model/small_model.h"

static struct rk_model model;

static void describe(enum rk_interaction_op op)
{
    const struct small_shape shape = small_shape_typical(op);
    small_model_close(&model);
    small_model_describe(&model, &shape);
}

static void setup(void)
{
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    small_model_describe(&model, &shape);
}

static void teardown(void)
{
    small_model_close(&model);
}

TestSuite(spec, .init = setup, .fini = teardown, .timeout = 60);

static void expect_valid(const char *what)
{
    struct rk_error error = {0};
    cr_assert_eq(rk_model_spec_check(&model.spec, &error), RK_OK, "%s: %s", what, error.text);
}

static void expect_invalid(const char *text)
{
    struct rk_error error = {0};
    enum rk_status status = rk_model_spec_check(&model.spec, &error);
    cr_assert_eq(status, RK_INVALID, "status is %s, expected text '%s'", rk_status_name(status), text);
    cr_assert_not_null(strstr(error.text, text), "text is '%s', expected '%s' in it", error.text, text);
}

/* Sets a place, expects the text, and puts the old value back. */
#define REFUSED(place, value, text)                                                                                    \
    do {                                                                                                               \
        __typeof__(place) was = (place);                                                                               \
        (place) = (value);                                                                                             \
        expect_invalid(text);                                                                                          \
        (place) = was;                                                                                                 \
        expect_valid("put back: " #place);                                                                             \
    } while (0)

Test(spec, every_random_architecture_is_valid)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 300; round++) {
        const struct small_shape shape = small_shape_random(&random);
        small_model_close(&model);
        small_model_describe(&model, &shape);
        char what[64];
        snprintf(what, sizeof what, "round %d", round);
        expect_valid(what);
    }
}

Test(spec, widths_follow_from_the_shape)
{
    static const uint32_t top_in[] = {8 + 10, 8 + 4 * 8, 8 + 4 * 8};
    for (int op = 0; op < 3; op++) {
        describe((enum rk_interaction_op)op);
        const struct rk_model_widths w = rk_model_spec_widths(&model.spec);
        cr_assert_eq(w.dense, 5);
        cr_assert_eq(w.bottom_out, 8);
        cr_assert_eq(w.pooled, 32);
        cr_assert_eq(w.num_vectors, 5);
        cr_assert_eq(w.top_in, top_in[op], "op %d: %u", op, w.top_in);
    }
}

Test(spec, cost_counts_what_requests_and_candidates_take)
{
    const uint64_t bottom = 5 * 16 + 16 * 8, bottom_bias = 16 + 8;
    struct rk_model_cost cost = rk_model_spec_cost(&model.spec, 2.5);
    uint64_t top = 18 * 24 + 24 * 12 + 12 * 2;
    const uint64_t top_bias = 24 + 12 + 2;
    cr_assert_eq(cost.multiply_adds, bottom + 10 * 8 + top, "%llu", (unsigned long long)cost.multiply_adds);
    /* two dense inputs to 16, and the product of the two context features, once more to 24 */
    cr_assert_eq(cost.context_multiply_adds, 2 * 16 + 1 * 8 + 1 * 24, "%llu",
                 (unsigned long long)cost.context_multiply_adds);
    cr_assert_eq(cost.weight_bytes, 4 * (bottom + bottom_bias + top + top_bias));
    cr_assert_eq(cost.context_bytes, 160); /* two features of 32 bytes, 2.5 rows each */
    cr_assert_eq(cost.candidate_bytes, 160);
    describe(RK_INTERACTION_DCN_V2);
    cost = rk_model_spec_cost(&model.spec, 1);
    top = 40 * 24 + 24 * 12 + 12 * 2;
    cr_assert_eq(cost.multiply_adds, bottom + 2 * (2 * 40 * 4 + 40) + top);
    cr_assert_eq(cost.context_multiply_adds,
                 2 * 16 + 2 * 8 * 4); /* both features' 8 numbers in the first V of rank 4 */
    cr_assert_eq(cost.weight_bytes, 4 * (bottom + bottom_bias + 2 * (2 * 40 * 4 + 40) + top + top_bias));
    describe(RK_INTERACTION_CAT);
    cost = rk_model_spec_cost(&model.spec, 1);
    cr_assert_eq(cost.multiply_adds, bottom + top);
    cr_assert_eq(cost.context_multiply_adds, 2 * 16 + 2 * 8 * 24);
    /* Without candidate's dense inputs, all of the bottom MLP and x are the context's. */
    model.spec.num_candidate_dense = 0;
    model.spec.num_context_dense = 5;
    cost = rk_model_spec_cost(&model.spec, 1);
    cr_assert_eq(cost.context_multiply_adds, bottom + (8 + 2 * 8) * 24);
}

Test(spec, names_are_printable_unique_and_bounded)
{
    char longest[RK_MAX_NAME_BYTES + 2];
    memset(longest, 'x', sizeof longest);
    longest[RK_MAX_NAME_BYTES] = '\0';
    model.heads[0] = longest;
    expect_valid("the longest name");
    longest[RK_MAX_NAME_BYTES] = 'x';
    longest[RK_MAX_NAME_BYTES + 1] = '\0';
    expect_invalid("heads[0] has a name of more than 128 bytes");
    model.heads[0] = "h\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x8e\xae";
    expect_valid("UTF-8");

    static const char *const bad[] = {"a\nb",
                                      "\x1b[2J",
                                      "a\x7f",
                                      "\xc2\x85",
                                      "\xff",
                                      "\xc3",
                                      "\xc0\x80",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xe6\x97",
                                      "\xf0\x9f\x8e",
                                      "\xf5\x80\x80\x80",
                                      "\x80",
                                      "\xf0\x80\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(model.heads[1], bad[i], "heads[1] has a name with a control character or invalid UTF-8");
    REFUSED(model.heads[1], "", "heads[1] has an empty name");
    REFUSED(model.heads[1], NULL, "heads[1] has an empty name");
    REFUSED(model.heads[1], model.heads[0], "two heads are named");
    REFUSED(model.table_specs[1].name, "t0", "two tables are named 't0'");
    REFUSED(model.features[2].name, "f0", "two features are named 'f0'");
    REFUSED(model.context_dense[1], "c0", "two dense.context are named 'c0'");
    REFUSED(model.candidate_dense[2], "d1", "two dense.candidate are named 'd1'");
    REFUSED(model.spec.name, "", "model[0] has an empty name");
    model.context_dense[0] = "d0";
    expect_valid("one name on both sides");
}

Test(spec, files_are_plain_names_and_used_once)
{
    REFUSED(model.spec.weights_file, "../weights", "weights.file");
    REFUSED(model.spec.weights_file, "", "weights.file");
    REFUSED(model.spec.weights_file, NULL, "weights.file");
    REFUSED(model.spec.weights_file, "t1.0.rows", "two files are named 't1.0.rows'");
    REFUSED(model.shards[0][1].file, "t0.0.rows", "two files are named");
    REFUSED(model.shards[0][1].file, "a/b", "table 't0': shards[1].file");
}

Test(spec, tables_and_shards_are_checked_with_their_bounds)
{
    REFUSED(model.table_specs[0].embedding_dim, 0, "table 't0': embedding_dim is 0");
    REFUSED(model.table_specs[0].embedding_dim, RK_MAX_WIDTH + 1, "tables[0].embedding_dim is 1048577");
    REFUSED(model.table_specs[0].num_embeddings, 0, "table 't0': num_embeddings is 0");
    REFUSED(model.table_specs[0].num_embeddings, RK_MAX_ROWS + 1, "tables[0].num_embeddings");
    REFUSED(model.table_specs[0].num_embeddings, 101, "cover 100 of 101 rows");
    REFUSED(model.table_specs[0].num_shards, RK_MAX_SHARDS + 1, "tables[0] has 65537 shards");
    REFUSED(model.shards[0][1].first_row, 33, "overlap");
    REFUSED(model.shards[0][1].first_row, 35, "gap");
    REFUSED(model.table_specs[2].default_row, 20, "default_row 20 is not below num_embeddings 20");
    model.table_specs[1].num_embeddings = model.shards[1][0].num_rows = UINT64_C(4000000000);
    expect_valid("four billion rows");
}

Test(spec, features_refer_to_what_is_there)
{
    REFUSED(model.features[0].table, 3, "features[0] reads table number 3 of 3");
    REFUSED(model.features[0].table, UINT32_MAX, "features[0] reads table");
    REFUSED(model.features[3].weighted, true, "features[3] is weighted with mean pooling");
    REFUSED(model.features[0].side, (enum rk_side)2, "features[0].side");
    REFUSED(model.features[0].pooling, (enum rk_pooling)2, "features[0].pooling");
}

Test(spec, counts_are_bounded_before_anything_is_read)
{
    REFUSED(model.spec.num_tables, UINT32_MAX, "tables");
    REFUSED(model.spec.num_features, RK_MAX_FEATURES + 1, "features: 4097 of them");
    REFUSED(model.spec.num_heads, RK_MAX_HEADS + 1, "heads: 65 of them");
    REFUSED(model.spec.bottom.num_layers, RK_MAX_LAYERS + 1, "bottom_mlp layers: 65");
    REFUSED(model.spec.top.num_layers, UINT32_MAX, "top_mlp layers");
    REFUSED(model.spec.interaction.num_cross, RK_MAX_LAYERS + 1, "interaction layers: 65");
    REFUSED(model.spec.num_context_dense, UINT32_MAX, "dense inputs");
}

Test(spec, layers_chain)
{
    REFUSED(model.bottom[0].weight.columns, 6, "bottom_mlp[0].weight is [16, 6] where [16, 5] fits");
    REFUSED(model.bottom[1].weight.columns, 15, "bottom_mlp[1].weight is [8, 15] where [8, 16] fits");
    REFUSED(model.bottom[0].bias.columns, 15, "bottom_mlp[0].bias is [1, 15] where [1, 16] fits");
    REFUSED(model.bottom[0].bias.rows, 16, "bottom_mlp[0].bias");
    REFUSED(model.bottom[0].weight.rows, 0, "bottom_mlp[0].weight has 0 rows");
    REFUSED(model.bottom[0].weight.rows, RK_MAX_WIDTH + 1, "bottom_mlp[0].weight has 1048577 rows");
    REFUSED(model.top[0].weight.columns, 19, "top_mlp[0].weight is [24, 19] where [24, 18] fits");
    REFUSED(model.spec.top.num_layers, 0, "top_mlp has no layers");
    REFUSED(model.spec.top.num_layers, 2, "top_mlp[1].weight has 12 rows for 2 heads");
    REFUSED(model.spec.num_heads, 0, "heads is empty");
    REFUSED(model.spec.num_heads, 1, "2 rows for 1 heads");
}

Test(spec, the_interaction_fits_its_inputs)
{
    REFUSED(model.table_specs[2].embedding_dim, 9, "features[3] 'f3' has embedding_dim 9 where the dot interaction");
    REFUSED(model.spec.interaction.self, true, "where [24, 23] fits");
    REFUSED(model.spec.interaction.pairs, (enum rk_pairs)7, "interaction.pairs");
    REFUSED(model.spec.interaction.op, (enum rk_interaction_op)9, "interaction.op");
    REFUSED(model.spec.interaction.num_cross, 1, "which only dcn_v2 reads");
    describe(RK_INTERACTION_DCN_V2);
    expect_valid("dcn_v2");
    REFUSED(model.spec.interaction.rank, 0, "rank 0");
    REFUSED(model.spec.interaction.rank, 5, "interaction.cross[0].v is [4, 40] where [5, 40] fits");
    REFUSED(model.spec.interaction.rank, UINT32_MAX, "interaction.rank");
    REFUSED(model.spec.interaction.num_cross, 0, "dcn_v2 has 0 layers");
    REFUSED(model.cross[1].w.weight.rows, 39, "interaction.cross[1].w");
    REFUSED(model.cross[1].w.bias.columns, 39, "interaction.cross[1].bias");
    REFUSED(model.cross[1].v.weight.columns, 39, "interaction.cross[1].v");
}

/* Gives every layer a format, its scales where it has some, and each tensor its place in the file. */
static void set_formats(enum rk_dense_format format)
{
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t num_layers = rk_model_spec_layers(&model.spec, layers);
    for (size_t l = 0; l < num_layers; l++) {
        struct rk_linear_spec *layer = (struct rk_linear_spec *)layers[l].layer;
        layer->format = format;
        layer->scale = (struct rk_tensor_spec){format == RK_DENSE_INT8, layer->weight.rows, 0};
    }
    const size_t num_uses = rk_model_spec_tensors(&model.spec, uses);
    model.spec.weights_bytes = 0;
    for (size_t i = 0; i < num_uses; i++) {
        struct rk_tensor_spec *tensor = (struct rk_tensor_spec *)uses[i].tensor;
        tensor->offset = (model.spec.weights_bytes + 63) / 64 * 64;
        model.spec.weights_bytes = tensor->offset + uses[i].bytes;
    }
}

Test(spec, formats_are_told_in_a_few_words)
{
    char text[64], little[8];
    describe(RK_INTERACTION_DOT);
    cr_assert_str_eq(rk_model_spec_formats(&model.spec, text, sizeof text), "fp32 rows, fp32 towers");
    model.table_specs[0].format = RK_ROWS_INT4;
    model.top[0].format = RK_DENSE_INT8;
    model.spec.interaction.format = RK_DENSE_BF16;
    cr_assert_str_eq(rk_model_spec_formats(&model.spec, text, sizeof text), "fp32/int4 rows, fp32/bf16/int8 towers");
    cr_assert_str_eq(rk_model_spec_formats(&model.spec, little, sizeof little), "fp32/in");
}

Test(spec, layers_have_formats)
{
    for (int op = 0; op < 3; op++)
        for (int format = 0; format < RK_DENSE_FORMAT_COUNT; format++) {
            describe((enum rk_interaction_op)op);
            set_formats((enum rk_dense_format)format);
            expect_valid(rk_dense_format_name((enum rk_dense_format)format));
        }
    /* dcn_v2, all int8 */
    struct rk_linear_spec *bottom = &model.bottom[0];
    REFUSED(bottom->format, (enum rk_dense_format)9, "bottom_mlp[0].weight has format 9");
    REFUSED(bottom->format, RK_DENSE_BF16, "bottom_mlp[0].scale is [1, 16]; here, layers in bf16 have none");
    REFUSED(bottom->gain, ((struct rk_tensor_spec){1, 3, 0}), "bottom_mlp[0].gain is [1, 3] where");
    REFUSED(bottom->scale.columns, 15, "bottom_mlp[0].scale is [1, 15] where [1, 16] fits");
    REFUSED(bottom->scale.rows, 0, "bottom_mlp[0].scale is [0, 16] where [1, 16] fits");
    REFUSED(model.cross[0].v.bias.rows, 1, "interaction.cross[0].v_bias is [1, 0]; here, layers in int8 have none");
    REFUSED(model.cross[1].w.scale.columns, 4, "interaction.cross[1].w_scale is [1, 4] where [1, 40] fits");
    REFUSED(bottom->scale.offset, bottom->scale.offset + 64, "a hole");
    REFUSED(model.spec.interaction.format, RK_DENSE_INT8, "interaction.format is int8, which only dot knows");
    set_formats(RK_DENSE_BF16);
    REFUSED(bottom->calibrated, true, "the inputs of bottom_mlp[0].weight have a range, which only int8 layers use");
    model.cross[0].v.format = RK_DENSE_F32;
    expect_invalid("interaction.cross[0]: v is fp32 and w bf16; a layer has one format");
    describe(RK_INTERACTION_DOT);
    REFUSED(model.spec.interaction.format, (enum rk_dense_format)3, "interaction.format is 3");
    model.spec.interaction.format = RK_DENSE_INT8;
    expect_valid("vectors in int8");
}

Test(spec, input_ranges_hold_zero_and_something_else)
{
    set_formats(RK_DENSE_INT8);
    struct rk_linear_spec *layer = &model.top[1];
    layer->calibrated = true;
    static const float good[][2] = {{0, 1}, {-1, 0}, {-0.5f, 7}, {0, 1e-30f}, {-3e38f, 3e38f}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        layer->low = good[i][0];
        layer->high = good[i][1];
        expect_valid("a range");
    }
    static const float bad[][2] = {{0, 0},    {1, 2},      {-2, -1},      {1, -1},       {NAN, 1},
                                   {-1, NAN}, {0, 1e-37f}, {0, INFINITY}, {-INFINITY, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        layer->low = bad[i][0];
        layer->high = bad[i][1];
        expect_invalid("the inputs of top_mlp[1].weight range from");
    }
}

Test(spec, int8_layers_are_narrow_enough_for_their_sums)
{
    for (uint32_t in = RK_DENSE_INT8_MAX_IN; in <= RK_DENSE_INT8_MAX_IN + 1; in++) {
        struct small_shape shape = small_shape_typical(RK_INTERACTION_CAT);
        shape.bottom[0] = in;
        small_model_close(&model);
        small_model_describe(&model, &shape);
        set_formats(RK_DENSE_INT8);
        if (in == RK_DENSE_INT8_MAX_IN)
            expect_valid("the widest");
        else
            expect_invalid("bottom_mlp[1].weight is int8 with 65537 inputs; its sums hold at most 65536: use bf16");
    }
}

Test(spec, pruned_tables_store_what_they_keep_and_one_row_more)
{
    struct rk_table_spec *table = &model.table_specs[1]; /* 50 rows in one shard */
    table->kept = (struct rk_kept_spec){"t1.kept", 10, 0};
    expect_invalid("shards[0].num_rows is 50, which goes past the table's 11 stored rows");
    model.shards[1][0].num_rows = 11;
    expect_valid("ten rows and the default row");
    REFUSED(table->kept.num_rows, 51, "kept.rows is 51, more than num_embeddings 50");
    REFUSED(table->kept.file, "t0.0.rows", "two files are named 't0.0.rows'");
    REFUSED(table->kept.file, "a/b", "kept.file is 'a/b'");
    table->kept.num_rows = 0;
    model.shards[1][0].num_rows = 1;
    expect_valid("nothing kept");
}

Test(spec, an_interaction_of_nothing_is_refused)
{
    struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    shape.context_dense = shape.candidate_dense = shape.num_bottom = 0;
    shape.num_features = 1;
    small_model_close(&model);
    small_model_describe(&model, &shape);
    expect_invalid("the interaction of 1 vectors is empty");
    shape.num_bottom = 1;
    small_model_close(&model);
    small_model_describe(&model, &shape);
    expect_invalid("bottom_mlp has 1 layers but there are no dense inputs");
}

Test(spec, an_interaction_wider_than_any_layer_is_refused)
{
    struct small_shape shape = small_shape_typical(RK_INTERACTION_CAT);
    shape.tables[0].dim = RK_MAX_WIDTH;
    small_model_close(&model);
    small_model_describe(&model, &shape);
    expect_invalid("at most 1048576 are allowed");
}

Test(spec, tensors_fill_the_weights_file)
{
    struct rk_tensor_spec *first = &model.bottom[0].weight, *second = &model.bottom[0].bias, *last = &model.top[2].bias;
    REFUSED(second->offset, second->offset + 4, "bottom_mlp[0].bias is at offset 324, not a multiple of 64");
    REFUSED(second->offset, first->offset, "overlapping");
    REFUSED(second->offset, first->offset + 64, "overlapping a tensor that ends at 320");
    REFUSED(last->offset, last->offset + 64, "a hole after the tensor");
    REFUSED(last->offset, UINT64_MAX - 63, "a hole after the tensor");
    REFUSED(model.spec.weights_bytes, model.spec.weights_bytes + 1, "trailing bytes");
    REFUSED(model.spec.weights_bytes, model.spec.weights_bytes - 1, "past the end of 'weights'");
    REFUSED(model.spec.weights_bytes, 0, "past the end of 'weights'");
}
