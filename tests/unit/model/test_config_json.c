/* A good configuration, broken in one place at a time: the error names the field. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "model/config_json.h"
#include "tests/unit/model/tiny_model.h"

TestSuite(config_json, .timeout = 60);

static enum rk_status parse(const char *text, struct rk_config *config, struct rk_error *error)
{
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_config_parse("config.json", text, strlen(text), &arena, config, error);
    rk_arena_deinit(&arena);
    return status;
}

/* The tiny configuration with `from` replaced by `to`. */
static char *changed(const char *from, const char *to)
{
    static char good[2048], text[4096];
    snprintf(good, sizeof good, TINY_CONFIG_FORMAT, "", "", "");
    const char *at = strstr(good, from);
    cr_assert_not_null(at, "'%s' is not in the configuration", from);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    return text;
}

Test(config_json, a_good_configuration_is_read)
{
    struct rk_config config;
    struct rk_error error = {0};
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    const char *text = changed("\"rows\": 5", "\"rows\": 5, \"out_of_range\": \"default_row\", \"default_row\": 4");
    cr_assert_eq(rk_config_parse("config.json", text, strlen(text), &arena, &config, &error), RK_OK, "%s", error.text);
    cr_assert_str_eq(config.spec.name, "tiny");
    cr_assert_eq(config.spec.num_tables, 2);
    cr_assert_eq(config.tables[0].out_of_range, RK_OUT_OF_RANGE_DEFAULT);
    cr_assert_eq(config.tables[0].default_row, 4);
    cr_assert_eq(config.tables[1].out_of_range, RK_OUT_OF_RANGE_REJECT);
    cr_assert_str_eq(config.table_tensors[1], "emb.b");
    cr_assert_eq(config.spec.num_features, 3);
    cr_assert(config.spec.features[0].weighted);
    cr_assert_not(config.spec.features[1].weighted);
    cr_assert_eq(config.spec.features[1].pooling, RK_POOLING_MEAN);
    cr_assert_eq(config.num_top, 2);
    cr_assert_str_eq(config.top[1], "top.1");
    rk_arena_deinit(&arena);
}

Test(config_json, packed_tables_have_a_format_and_a_layout)
{
    static const struct {
        const char *fields;
        enum rk_row_format format;
        enum rk_row_layout layout;
    } cases[] = {
        {"\"format\": \"fp32\"", RK_ROWS_F32, RK_LAYOUT_NUMBERS},
        {"\"format\": \"fp16\"", RK_ROWS_F16, RK_LAYOUT_ROWS},
        {"\"format\": \"bf16\"", RK_ROWS_BF16, RK_LAYOUT_ROWS},
        {"\"format\": \"int8\"", RK_ROWS_INT8, RK_LAYOUT_ROWS},
        {"\"format\": \"int4\", \"layout\": \"pytorch\"", RK_ROWS_INT4, RK_LAYOUT_ROWS},
        {"\"layout\": \"fbgemm\", \"format\": \"int2\"", RK_ROWS_INT2, RK_LAYOUT_FBGEMM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_config config;
        struct rk_error error = {0};
        struct rk_arena arena;
        char fields[200];
        rk_arena_init(&arena, 4096);
        snprintf(fields, sizeof fields, "\"rows\": 5, %s", cases[i].fields);
        const char *text = changed("\"rows\": 5", fields);
        cr_assert_eq(rk_config_parse("config.json", text, strlen(text), &arena, &config, &error), RK_OK, "%s",
                     error.text);
        cr_assert_eq(config.tables[0].format, cases[i].format, "%s", fields);
        cr_assert_eq(config.table_layouts[0], cases[i].layout, "%s", fields);
        cr_assert_eq(config.tables[1].format, RK_ROWS_F32);
        cr_assert_eq(config.table_layouts[1], RK_LAYOUT_NUMBERS);
        rk_arena_deinit(&arena);
    }
}

Test(config_json, what_is_wrong_is_named)
{
    static const struct {
        const char *from, *to, *text;
    } cases[] = {
        {"{\"name\"", "[\"name\"", "not valid JSON"},
        {"\"heads\"", "\"name\": \"again\", \"heads\"", "duplicate object key"},
        {"\"name\": \"tiny\"", "\"name\": 7", "name is a whole number, must be a string"},
        {"\"name\": \"tiny\"", "\"name\": \"\"", "name is an empty string"},
        {"\"name\": \"tiny\"", "\"nam\": \"tiny\"", "nam is not a known field; did you mean 'name'?"},
        {"\"name\": \"tiny\", ", "", "name is missing"},
        {"\"dense\": {", "\"dense\": {\"user\": [], ", "dense.user is not a known field"},
        {"\"candidate\": [\"d0\"]", "\"candidate\": \"d0\"", "dense.candidate is a string, must be an array"},
        {"\"c1\"", "1", "dense.context[1] is a whole number"},
        {"\"rows\": 5", "\"rows\": -5", "tables[0].rows is -5, must be from 1"},
        {"\"rows\": 5", "\"rows\": 0", "tables[0].rows is 0"},
        {"\"rows\": 5", "\"rows\": 5.5", "tables[0].rows is a fraction"},
        {"\"rows\": 5", "\"rows\": \"5\"", "tables[0].rows is a string"},
        {"\"rows\": 5", "\"rows\": 99999999999999999999", "too big integer"},
        {"\"rows\": 5", "\"rows\": 281474976710657", "tables[0].rows is 281474976710657"},
        {"\"dim\": 4", "\"dim\": 1048577", "tables[0].dim is 1048577"},
        {"\"dim\": 4", "\"dims\": 4", "tables[0].dims is not a known field; did you mean 'dim'?"},
        {"\"weight\": \"emb.b\"", "\"weight\": null", "tables[1].weight is null"},
        {"\"rows\": 5", "\"rows\": 5, \"out_of_range\": \"wrap\"",
         "tables[0].out_of_range is 'wrap', must be one of 'reject'"},
        {"\"rows\": 5", "\"rows\": 5, \"out_of_range\": \"default_row\"", "tables[0].default_row is missing"},
        {"\"rows\": 5", "\"rows\": 5, \"default_row\": 1", "tables[0].default_row has a meaning only"},
        {"\"rows\": 5", "\"rows\": 5, \"out_of_range\": \"default_row\", \"default_row\": 5",
         "tables[0].default_row is 5"},
        {"\"rows\": 5", "\"rows\": 5, \"format\": \"int3\"", "tables[0].format is 'int3', must be one of 'fp32'"},
        {"\"rows\": 5", "\"rows\": 5, \"format\": \"mxint8\"", "tables[0].format is 'mxint8', must be one of 'fp32'"},
        {"\"rows\": 5", "\"rows\": 5, \"layout\": \"fbgemm\"", "tables[0].layout has a meaning only with format"},
        {"\"rows\": 5", "\"rows\": 5, \"format\": \"fp16\", \"layout\": \"pytorch\"",
         "tables[0].layout has a meaning only with format"},
        {"\"rows\": 5", "\"rows\": 5, \"format\": \"int8\", \"layout\": \"front\"",
         "tables[0].layout is 'front', must be one of 'pytorch', 'fbgemm'"},
        {"\"table\": \"b\"", "\"table\": \"bb\"",
         "features[2].table is 'bb', not the name of a table; did you mean 'b'?"},
        {"\"side\": \"context\"", "\"side\": \"user\"",
         "features[0].side is 'user', must be one of 'context', 'candidate'"},
        {"\"pooling\": \"mean\"", "\"pooling\": \"max\"", "features[1].pooling is 'max'"},
        {"\"weighted\": true", "\"weighted\": 1", "features[0].weighted is a whole number"},
        {"\"op\": \"dot\"", "\"op\": \"dott\"", "interaction.op is 'dott'"},
        {"\"op\": \"dot\", ", "", "interaction.op is missing"},
        {"\"pairs\": \"tril\"", "\"pairs\": \"full\"", "interaction.pairs is 'full'"},
        {"\"self\": false, ", "", "interaction.self is missing"},
        {"{\"op\": \"dot\", \"self\": false, \"pairs\": \"tril\"}", "{\"op\": \"cat\", \"self\": false}",
         "interaction.self is not"},
        {"{\"op\": \"dot\", \"self\": false, \"pairs\": \"tril\"}", "{\"op\": \"dcn_v2\", \"rank\": 2}",
         "interaction.layers is missing"},
        {"{\"op\": \"dot\", \"self\": false, \"pairs\": \"tril\"}",
         "{\"op\": \"dcn_v2\", \"rank\": 2, \"layers\": 65, \"weights\": \"c\"}", "interaction.layers is 65"},
        {"{\"op\": \"dot\", \"self\": false, \"pairs\": \"tril\"}", "[]", "interaction must be an object"},
        {"\"bottom_mlp\": [\"bot\"]", "\"bottom_mlp\": {}", "bottom_mlp is an object"},
        {"[\"top.0\", \"top.1\"]", "[]", "top_mlp has 0 items"},
        {"[\"click\", \"like\"]", "[]", "heads has 0 items"},
        {"[\"click\", \"like\"]", "[\"click\", [\"like\"]]", "heads[1] is an array"},
        {"\"heads\"", "\"calibration\": [{\"head\": \"clock\", \"scale\": 1}], \"heads\"",
         "calibration[0].head is 'clock', not the name of a head; did you mean 'click'?"},
        {"\"heads\"", "\"value_models\": {}, \"heads\"", "value_models is an object"},
        {"\"heads\"", "\"default_value_model\": \"v\", \"heads\"", "default_value_model is 'v'"},
        {"\"heads\"", "\"heds\"", "heds is not a known field; did you mean 'heads'?"},
        {"\"heads\"", "\"\\u001b[31m\": 1, \"heads\"", "?[31m is not a known field"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_config config;
        struct rk_error error = {0};
        enum rk_status status = parse(changed(cases[i].from, cases[i].to), &config, &error);
        cr_expect_eq(status, RK_INVALID, "%s -> %s: %s", cases[i].from, cases[i].to, rk_status_name(status));
        cr_expect_not_null(strstr(error.text, cases[i].text), "%s -> %s: '%s', expected '%s' in it", cases[i].from,
                           cases[i].to, error.text, cases[i].text);
        cr_expect_not_null(strstr(error.text, "config.json"), "'%s' does not name the file", error.text);
    }
}

Test(config_json, a_text_cut_at_any_byte_is_refused)
{
    const char *text = changed("\"rows\": 5", "\"rows\": 5");
    size_t length = strlen(text) - 1; /* without the newline, which is not missed */
    for (size_t cut = 0; cut < length; cut++) {
        char *part = malloc(cut + 1);
        memcpy(part, text, cut);
        part[cut] = '\0';
        struct rk_config config;
        struct rk_error error = {0};
        cr_assert_eq(parse(part, &config, &error), RK_INVALID, "cut at %zu", cut);
        free(part);
    }
}

Test(config_json, annotations_are_ignored)
{
    struct rk_config config;
    struct rk_error error = {0};
    cr_assert_eq(parse(changed("\"heads\"", "\"x-author\": {\"any\": 1}, \"heads\""), &config, &error), RK_OK, "%s",
                 error.text);
}
