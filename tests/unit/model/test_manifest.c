/* A manifest broken in one place at a time, with a right checksum: the reader itself must notice. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "model/manifest.h"
#include "tests/unit/model/tiny_model.h"

static struct tiny tiny;
static char *good;
static size_t good_bytes;

static void setup(void)
{
    tiny_create(&tiny);
    tiny_import_fine(&tiny);
    good = (char *)tiny_read(&tiny, "package/manifest.json", &good_bytes);
    good[good_bytes] = '\0';
}

static void teardown(void)
{
    free(good);
    tiny_destroy(&tiny);
}

TestSuite(manifest, .init = setup, .fini = teardown, .timeout = 60);

static enum rk_status parse(const char *text, size_t length, struct rk_error *error)
{
    struct rk_arena arena;
    struct rk_manifest manifest;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_manifest_parse(text, length, &arena, &manifest, error);
    rk_arena_deinit(&arena);
    return status;
}

Test(manifest, what_was_printed_is_read_back_and_printed_the_same)
{
    struct rk_arena arena;
    struct rk_manifest manifest;
    struct rk_error error = {0};
    rk_arena_init(&arena, 4096);
    cr_assert_eq(rk_manifest_parse(good, good_bytes, &arena, &manifest, &error), RK_OK, "%s", error.text);
    char *again = rk_manifest_print(&manifest);
    cr_assert_str_eq(again, good);
    free(again);
    rk_arena_deinit(&arena);
}

struct change {
    const char *from, *to;
    enum rk_status status;
    const char *text;
};

/* Each change alone makes the text a manifest that is refused, with the words that the case asks for. */
static void expect_refusals(const char *from_text, const struct change *cases, size_t count)
{
    const size_t capacity = strlen(from_text) + 256;
    char *text = malloc(capacity);
    for (size_t i = 0; i < count; i++) {
        const char *at = strstr(from_text, cases[i].from);
        cr_assert_not_null(at, "'%s' is not in the manifest:\n%s", cases[i].from, from_text);
        int length = snprintf(text, capacity, "%.*s%s%s", (int)(at - from_text), from_text, cases[i].to,
                              at + strlen(cases[i].from));
        struct rk_error error = {0};
        enum rk_status status = parse(text, (size_t)length, &error);
        cr_expect_eq(status, cases[i].status, "%s -> %s: %s '%s'", cases[i].from, cases[i].to, rk_status_name(status),
                     error.text);
        cr_expect_not_null(strstr(error.text, cases[i].text), "%s -> %s: '%s', expected '%s' in it", cases[i].from,
                           cases[i].to, error.text, cases[i].text);
        cr_expect_not_null(strstr(error.text, "manifest.json"), "'%s' does not name the file", error.text);
    }
    free(text);
}

Test(manifest, what_is_wrong_is_named)
{
    static const struct change cases[] = {
        {"\"version\": 1", "\"version\": 4", RK_UNSUPPORTED, "format.version is 4, newer than this program"},
        {"\"version\": 1", "\"version\": 0", RK_CORRUPT, "format.version is 0"},
        {"\"version\": 1", "\"version\": \"1\"", RK_CORRUPT, "format.version is a string"},
        {"rankd-model", "rankd-cache", RK_CORRUPT, "format.name is 'rankd-cache'"},
        {"\"version\": 1", "\"version\": 1, \"minor\": 2", RK_CORRUPT, "format.minor is not a known field"},
        {"\"heads\"", "\"colour\": 1, \"heads\"", RK_CORRUPT, "colour is not a known field"},
        {"\"heads\"", "\"name\": \"x\", \"heads\"", RK_CORRUPT, "duplicate"},
        {"\"rows\": 5", "\"rows\": 6", RK_CORRUPT, "table 'a'"},
        {"\"rows\": 5", "\"rows\": 4", RK_CORRUPT, "table 'a'"},
        {"\"num_rows\": 2", "\"num_rows\": -2", RK_CORRUPT, "tables[0].shards[0].num_rows is -2"},
        {"\"num_rows\": 2", "\"num_rows\": 0", RK_CORRUPT, "tables[0].shards[0].num_rows is 0"},
        {"\"num_rows\": 2", "\"num_rows\": 3", RK_CORRUPT, "shards"},
        {"\"first_row\": 2", "\"first_row\": 3", RK_CORRUPT, "shards"},
        {"\"first_row\": 0", "\"first_row\": 9223372036854775807", RK_CORRUPT, "tables[0].shards[0].first_row"},
        {"table-000.shard-0000.rows", "../table-000.shard-0000.rows", RK_CORRUPT, "tables[0].shards[0].file is '../"},
        {"table-000.shard-0000.rows", "..", RK_CORRUPT, "tables[0].shards[0].file is '..'"},
        {"table-000.shard-0000.rows", "table-000.shard-0001.rows", RK_CORRUPT, "table-000.shard-0001.rows"},
        {"\"xxh3\": \"", "\"xxh3\": \"g", RK_CORRUPT, "xxh3 must be a string of 16 hexadecimal digits"},
        {"\"format\": \"fp32\"", "\"format\": \"fp33\"", RK_CORRUPT, "tables[0].format is 'fp33'"},
        {"\"offset\": 0", "\"offset\": 1", RK_CORRUPT, "offset 1"},
        {"\"offset\": 64", "\"offset\": 0", RK_CORRUPT, "overlapping"},
        {"\"offset\": 64", "\"offset\": 9223372036854775744", RK_CORRUPT, "offset"},
        {"\"pairs\": \"tril\"", "\"pairs\": \"diag\"", RK_CORRUPT, "interaction.pairs is 'diag'"},
        {"\"side\": \"context\"", "\"side\": 1", RK_CORRUPT, "features[0].side is a whole number"},
        {"\"golden\"", "\"x-golden\"", RK_CORRUPT, "golden is missing"},
        {"\"weights\": {", "\"weights\": {\"more\": 1, ", RK_CORRUPT, "weights.more is not a known field"},
        {"\"out_of_range\": \"reject\"", "\"out_of_range\": \"clamp\"", RK_CORRUPT,
         "tables[0].out_of_range is 'clamp'"},
        /* What only version 2 knows. */
        {"\"format\": \"fp32\"", "\"format\": \"int8\"", RK_CORRUPT,
         "tables[0].format is 'int8', must be one of 'fp32'"},
        {"\"shards\"", "\"kept\": {}, \"shards\"", RK_CORRUPT, "tables[0].kept is not a known field"},
        {"\"weight\"", "\"format\": \"bf16\", \"weight\"", RK_CORRUPT, "bottom_mlp[0].format is not a known field"},
        {"\"pairs\"", "\"format\": \"fp32\", \"pairs\"", RK_CORRUPT, "interaction.format is not a known field"},
    };
    expect_refusals(good, cases, sizeof cases / sizeof *cases);
}

Test(manifest, a_text_cut_at_any_byte_is_refused)
{
    for (size_t length = 0; length < good_bytes; length++) {
        char *part = malloc(length + 1);
        memcpy(part, good, length);
        struct rk_error error = {0};
        enum rk_status status = parse(part, length, &error);
        cr_assert_eq(status, RK_CORRUPT, "cut at %zu: %s", length, rk_status_name(status));
        free(part);
    }
}

Test(manifest, annotations_are_ignored)
{
    char *text = malloc(good_bytes + 256);
    const char *at = strstr(good, "\"heads\"");
    int length = snprintf(text, good_bytes + 256, "%.*s\"x-trained-on\": \"steam\", %s", (int)(at - good), good, at);
    struct rk_error error = {0};
    cr_assert_eq(parse(text, (size_t)length, &error), RK_OK, "%s", error.text);
    free(text);
}

Test(manifest, a_table_of_five_billion_rows_can_be_described)
{
    static const struct rk_shard_spec shards[] = {{"r0", 0, 3000000000u, 1}, {"r1", 3000000000u, 2000000000u, 2}};
    struct rk_arena arena;
    struct rk_manifest manifest, read;
    struct rk_error error = {0};
    rk_arena_init(&arena, 4096);
    cr_assert_eq(rk_manifest_parse(good, good_bytes, &arena, &manifest, &error), RK_OK, "%s", error.text);
    struct rk_table_spec tables[2] = {manifest.spec.tables[0], manifest.spec.tables[1]};
    tables[0].num_embeddings = 5000000000u;
    tables[0].shards = shards;
    tables[0].num_shards = 2;
    manifest.spec.tables = tables;
    char *text = rk_manifest_print(&manifest);
    cr_assert_eq(rk_manifest_parse(text, strlen(text), &arena, &read, &error), RK_OK, "%s", error.text);
    cr_assert_eq(read.spec.tables[0].num_embeddings, 5000000000u);
    cr_assert_eq(read.spec.tables[0].shards[1].first_row, 3000000000u);
    free(text);
    rk_arena_deinit(&arena);
}

/* ---- version 2 ---- */

/* The tiny model with an int8 bottom layer that is calibrated, top layers in bf16 and int8, quantised vectors, and a
 * first table of int4 rows of which two are kept. What the spec points to lies in the arena. */
static void quantise(struct rk_manifest *manifest, struct rk_arena *arena)
{
    struct rk_model_spec *spec = &manifest->spec;
    struct rk_linear_spec *bottom = rk_arena_array(arena, 1, sizeof *bottom),
                          *top = rk_arena_array(arena, 2, sizeof *top);
    bottom[0] = spec->bottom.layers[0];
    bottom[0].format = RK_DENSE_INT8;
    bottom[0].calibrated = true;
    bottom[0].low = -0.1f;
    bottom[0].high = 3.0f;
    memcpy(top, spec->top.layers, 2 * sizeof *top);
    top[0].format = RK_DENSE_BF16;
    top[1].format = RK_DENSE_INT8;
    bottom[0].scale = (struct rk_tensor_spec){1, bottom[0].weight.rows, 0};
    top[1].scale = (struct rk_tensor_spec){1, top[1].weight.rows, 0};
    spec->bottom.layers = bottom;
    spec->top.layers = top;
    spec->interaction.format = RK_DENSE_INT8;
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t count = rk_model_spec_tensors(spec, uses);
    spec->weights_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        struct rk_tensor_spec *tensor = (struct rk_tensor_spec *)uses[i].tensor;
        tensor->offset = (spec->weights_bytes + 63) / 64 * 64;
        spec->weights_bytes = tensor->offset + uses[i].bytes;
    }
    static const struct rk_shard_spec shards[] = {{"r0", 0, 3, 1}};
    struct rk_table_spec *tables = rk_arena_array(arena, spec->num_tables, sizeof *tables);
    memcpy(tables, spec->tables, spec->num_tables * sizeof *tables);
    tables[0].format = RK_ROWS_INT4;
    tables[0].kept = (struct rk_kept_spec){"table-000.kept", 2, 7};
    tables[0].shards = shards;
    tables[0].num_shards = 1;
    spec->tables = tables;
}

/* The text of the quantised manifest, in the arena. */
static char *quantised_text(struct rk_arena *arena)
{
    struct rk_manifest manifest;
    struct rk_error error = {0};
    cr_assert_eq(rk_manifest_parse(good, good_bytes, arena, &manifest, &error), RK_OK, "%s", error.text);
    quantise(&manifest, arena);
    char *printed = rk_manifest_print(&manifest), *text = rk_arena_printf(arena, "%s", printed);
    free(printed);
    return text;
}

Test(manifest, formats_and_pruned_tables_are_read_back_and_printed_the_same)
{
    struct rk_arena arena;
    struct rk_manifest read;
    struct rk_error error = {0};
    rk_arena_init(&arena, 4096);
    const char *text = quantised_text(&arena);
    cr_assert_not_null(strstr(text, "\"version\": 2"), "%s", text);
    cr_assert_eq(rk_manifest_parse(text, strlen(text), &arena, &read, &error), RK_OK, "%s", error.text);
    char *again = rk_manifest_print(&read);
    cr_assert_str_eq(again, text);
    free(again);
    const struct rk_linear_spec *bottom = read.spec.bottom.layers;
    cr_assert(bottom->format == RK_DENSE_INT8 && bottom->calibrated && bottom->low == -0.1f && bottom->high == 3.0f);
    cr_assert_eq(bottom->scale.columns, bottom->weight.rows);
    cr_assert_eq(read.spec.top.layers[0].format, RK_DENSE_BF16);
    cr_assert(!read.spec.top.layers[1].calibrated);
    cr_assert_eq(read.spec.interaction.format, RK_DENSE_INT8);
    cr_assert_eq(read.spec.tables[0].format, RK_ROWS_INT4);
    cr_assert(read.spec.tables[0].kept.num_rows == 2 && read.spec.tables[0].kept.xxh3 == 7);
    cr_assert_null(read.spec.tables[1].kept.file);
    rk_arena_deinit(&arena);
}

Test(manifest, what_is_wrong_about_formats_is_named)
{
    static const struct change cases[] = {
        {"\"version\": 2", "\"version\": 1", RK_CORRUPT, "tables[0].kept is not a known field"},
        {"\"int4\"", "\"int5\"", RK_CORRUPT, "tables[0].format is 'int5', must be one of 'fp32', 'fp16'"},
        {"\"int4\"", "4", RK_CORRUPT, "tables[0].format is a whole number"},
        {"\"table-000.kept\"", "\"../kept\"", RK_CORRUPT, "tables[0].kept.file is '../kept'"},
        {"\"table-000.kept\"", "\"r0\"", RK_CORRUPT, "two files are named 'r0'"},
        {"\"rows\": 2,", "\"rows\": 6,", RK_CORRUPT, "tables[0].kept.rows is 6"},
        {"\"rows\": 2,", "\"rows\": 3,", RK_CORRUPT, "cover 3 of 4"},
        {"\"rows\": 2,", "\"more\": 2,", RK_CORRUPT, "tables[0].kept.more is not a known field"},
        {"\"0000000000000007\"", "\"7\"", RK_CORRUPT, "tables[0].kept.xxh3 must be"},
        {"\"format\": \"int8\"", "\"format\": \"int9\"", RK_CORRUPT, "bottom_mlp[0].format is 'int9'"},
        {"\"format\": \"int8\"", "\"format\": \"bf16\"", RK_CORRUPT,
         "bottom_mlp[0].scale has a meaning only with format 'int8'"},
        {"\"format\": \"int8\"", "\"x-format\": \"int8\"", RK_CORRUPT,
         "bottom_mlp[0].scale has a meaning only with format 'int8'"},
        {"\"input\"", "\"gain\"", RK_CORRUPT, "bottom_mlp[0].gain"},
        {"\"scale\"", "\"x-scale\"", RK_CORRUPT, "bottom_mlp[0].scale is missing"},
        {"\"scale\"", "\"w_scale\"", RK_CORRUPT, "bottom_mlp[0].w_scale is not a known field"},
        {"-0.100000001", "0.5", RK_CORRUPT, "the inputs of bottom_mlp[0].weight range from 0.5 to 3"},
        {"-0.100000001", "1e39", RK_CORRUPT, "bottom_mlp[0].input[0] is 1e+39, too large"},
        {"-0.100000001", "\"0\"", RK_CORRUPT, "bottom_mlp[0].input[0] is a string"},
        {"-0.100000001", "0, 1", RK_CORRUPT, "bottom_mlp[0].input has 3 items"},
        {"\"bf16\"", "\"int8\"", RK_CORRUPT, "top_mlp[0].scale is missing"},
    };
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    expect_refusals(quantised_text(&arena), cases, sizeof cases / sizeof *cases);
    rk_arena_deinit(&arena);
}

/* ---- version 3 ---- */

/* The tiny model, whose heads are 'click' and 'like', with the second one calibrated and two value models. */
static char *answering_text(struct rk_arena *arena)
{
    static const struct rk_calibration calibration[] = {{1, 0}, {1.25f, -0.1f}};
    static const struct rk_value_term terms[] = {{0, 1}, {1, 0.3f}};
    static const struct rk_value_model values[] = {
        {"engage", RK_VALUE_PRODUCT_OF_POWERS, 2.5f, terms, 2},
        {"likes", RK_VALUE_SUM_OF_LOGITS, 1, terms + 1, 1},
    };
    struct rk_manifest manifest;
    struct rk_error error = {0};
    cr_assert_eq(rk_manifest_parse(good, good_bytes, arena, &manifest, &error), RK_OK, "%s", error.text);
    manifest.spec.calibration = calibration;
    manifest.spec.value_models = values;
    manifest.spec.num_value_models = 2;
    manifest.spec.default_value = &values[1];
    char *printed = rk_manifest_print(&manifest), *text = rk_arena_printf(arena, "%s", printed);
    free(printed);
    return text;
}

Test(manifest, calibration_and_value_models_are_read_back_and_printed_the_same)
{
    struct rk_arena arena;
    struct rk_manifest read;
    struct rk_error error = {0};
    rk_arena_init(&arena, 4096);
    const char *text = answering_text(&arena);
    cr_assert_not_null(strstr(text, "\"version\": 3"), "%s", text);
    cr_assert_eq(rk_manifest_parse(text, strlen(text), &arena, &read, &error), RK_OK, "%s", error.text);
    char *again = rk_manifest_print(&read);
    cr_assert_str_eq(again, text);
    free(again);
    const struct rk_model_spec *spec = &read.spec;
    cr_assert(spec->calibration[0].scale == 1.0f && spec->calibration[1].scale == 1.25f);
    cr_assert(spec->calibration[0].shift == 0.0f && spec->calibration[1].shift == -0.1f);
    cr_assert_eq(spec->num_value_models, 2);
    cr_assert_str_eq(spec->value_models[0].name, "engage");
    cr_assert_eq(spec->value_models[0].kind, RK_VALUE_PRODUCT_OF_POWERS);
    cr_assert(spec->value_models[0].factor == 2.5f && spec->value_models[0].num_terms == 2);
    cr_assert(spec->value_models[0].terms[1].head == 1 && spec->value_models[0].terms[1].weight == 0.3f);
    cr_assert_eq(spec->default_value, &spec->value_models[1]);
    rk_arena_deinit(&arena);
}

Test(manifest, what_may_be_left_out_of_calibration_and_value_models_has_its_default)
{
    struct rk_arena arena;
    struct rk_manifest read;
    struct rk_error error = {0};
    rk_arena_init(&arena, 4096);
    const char *at = strstr(good, "\"version\": 1"), *heads = strstr(good, "\"heads\"");
    const char *text = rk_arena_printf(
        &arena,
        "%.*s\"version\": 3%.*s\"calibration\": [{\"head\": \"like\", \"shift\": 2}], \"value_models\": [{\"name\": "
        "\"v\", \"kind\": \"sum_of_logits\", \"terms\": [{\"head\": \"like\", \"weight\": 3}]}], %s",
        (int)(at - good), good, (int)(heads - at - 12), at + 12, heads);
    cr_assert_eq(rk_manifest_parse(text, strlen(text), &arena, &read, &error), RK_OK, "%s", error.text);
    cr_assert(read.spec.calibration[0].scale == 1.0f && read.spec.calibration[0].shift == 0.0f);
    cr_assert(read.spec.calibration[1].scale == 1.0f && read.spec.calibration[1].shift == 2.0f);
    cr_assert_eq(read.spec.value_models[0].factor, 1.0f);
    cr_assert_null(read.spec.default_value);
    rk_arena_deinit(&arena);
}

Test(manifest, what_is_wrong_about_calibration_and_value_models_is_named)
{
    static const struct change cases[] = {
        {"\"version\": 3", "\"version\": 2", RK_CORRUPT, "calibration is not a known field"},
        {"\"scale\": 1.25", "\"scale\": 0", RK_CORRUPT, "calibration of head 'like': scale is 0"},
        {"\"scale\": 1.25", "\"scale\": -1", RK_CORRUPT, "calibration of head 'like': scale is -1"},
        {"\"scale\": 1.25", "\"scale\": 1e39", RK_CORRUPT, "calibration[1].scale is 1e+39, too large"},
        {"\"scale\": 1.25", "\"slope\": 1.25", RK_CORRUPT, "calibration[1].slope is not a known field"},
        {"\"head\": \"click\"", "\"head\": \"clik\"", RK_CORRUPT,
         "calibration[0].head is 'clik', not the name of a head; did you mean 'click'?"},
        {"\"head\": \"click\"", "\"head\": \"like\"", RK_CORRUPT, "calibration[1] is about head 'like' again"},
        {"product_of_powers", "product", RK_CORRUPT,
         "value_models[0].kind is 'product', must be one of 'sum_of_probabilities', 'sum_of_logits', "
         "'product_of_powers'"},
        {"\"factor\": 2.5", "\"factor\": 0", RK_CORRUPT, "value_models[0].factor is 0"},
        {"\"weight\": 1.0", "\"weight\": \"1\"", RK_CORRUPT, "value_models[0].terms[0].weight is a string"},
        {"\"weight\": 1.0", "\"x-weight\": 1", RK_CORRUPT, "value_models[0].terms[0].weight is missing"},
        {"\"name\": \"engage\"", "\"name\": \"likes\"", RK_CORRUPT, "two value_models are named 'likes'"},
        {"\"name\": \"likes\"", "\"name\": \"lots\"", RK_CORRUPT,
         "default_value_model is 'likes', not the name of a value model"},
    };
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    expect_refusals(answering_text(&arena), cases, sizeof cases / sizeof *cases);
    rk_arena_deinit(&arena);
}
