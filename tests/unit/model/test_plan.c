/* Plans: what is read is what was printed, hostile text is refused for its field, and the grammar of the options. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "model/plan.h"

static struct rk_arena arena;

static void setup(void)
{
    rk_arena_init(&arena, 1 << 16);
}

static void teardown(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(plan, .init = setup, .fini = teardown);

static enum rk_status parse(const char *text, struct rk_plan *plan, struct rk_error *error)
{
    *error = (struct rk_error){0};
    return rk_plan_parse("plan.json", text, strlen(text), &arena, plan, error);
}

#define HEAD "{\"format\": {\"name\": \"rankd-plan\", \"version\": 1}, "

static const struct rk_table_spec tables[] = {
    {.name = "user", .num_embeddings = 100, .embedding_dim = 4},
    {.name = "user_city", .num_embeddings = 50, .embedding_dim = 4},
    {.name = "item", .num_embeddings = 10, .embedding_dim = 4},
};
static const struct rk_model_spec spec = {.name = "feed", .tables = tables, .num_tables = 3};

Test(plan, what_was_printed_is_read_back)
{
    static const struct rk_row_range kept[] = {{0, 12}, {12, 1}, {40, 3}};
    static const struct rk_table_plan wanted[] = {
        {.name = "user", .has_format = true, .format = RK_ROWS_INT4, .pruned = true, .kept = kept, .num_kept = 3},
        {.name = "item", .has_format = true, .format = RK_ROWS_MXFP6_E2M3},
        {.name = "user_city", .pruned = true},
    };
    const struct rk_plan plan = {.model = "feed",
                                 .parts[RK_PART_TOP] = {true, RK_DENSE_INT8},
                                 .parts[RK_PART_INTERACTION] = {true, RK_DENSE_BF16},
                                 .tables = wanted,
                                 .num_tables = 3};
    char *text = rk_plan_print(&plan);
    cr_assert_not_null(text);
    struct rk_plan read;
    struct rk_error error;
    cr_assert_eq(parse(text, &read, &error), RK_OK, "%s in %s", error.text, text);
    free(text);
    cr_assert_eq(rk_plan_check(&read, &spec, &error), RK_OK, "%s", error.text);
    cr_assert_str_eq(read.model, "feed");
    for (int s = 0; s < RK_PART_COUNT; s++) {
        cr_assert_eq(read.parts[s].has_format, plan.parts[s].has_format);
        cr_assert_eq(read.parts[s].format, plan.parts[s].format);
    }
    cr_assert_eq(read.num_tables, 3);
    for (int t = 0; t < 3; t++) {
        cr_assert_str_eq(read.tables[t].name, wanted[t].name);
        cr_assert_eq(read.tables[t].has_format, wanted[t].has_format);
        cr_assert_eq(read.tables[t].format, wanted[t].format);
        cr_assert_eq(read.tables[t].pruned, wanted[t].pruned);
        cr_assert_eq(read.tables[t].num_kept, wanted[t].num_kept);
        for (size_t i = 0; i < wanted[t].num_kept; i++) {
            cr_assert_eq(read.tables[t].kept[i].first, kept[i].first);
            cr_assert_eq(read.tables[t].kept[i].count, kept[i].count);
        }
    }
    cr_assert_eq(rk_plan_table(&read, "item"), &read.tables[1]);
    cr_assert_null(rk_plan_table(&read, "nobody"));
}

Test(plan, hostile_text_is_refused_for_its_field)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{}", "format"},
        {"{\"format\": {\"name\": \"rankd-model\", \"version\": 1}}", "format.name is 'rankd-model'"},
        {"{\"format\": {\"name\": \"rankd-plan\", \"version\": 2}}", "newer than this program"},
        {HEAD "\"tabels\": []}", "tabels"},
        {HEAD "\"towers\": {\"bottom\": \"int9\"}}", "towers.bottom"},
        {HEAD "\"towers\": {\"roof\": \"int8\"}}", "roof"},
        {HEAD "\"towers\": []}", "towers"},
        {HEAD "\"tables\": [{\"format\": \"int8\"}]}", "name"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"format\": \"int3\"}]}", "tables[0].format"},
        {HEAD "\"tables\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}", "tables[1] is about 'a'"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"kept\": [[0]]}]}", "tables[0].kept[0]"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"kept\": [[0, 0]]}]}", "tables[0].kept[0][1] is 0"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"kept\": [[-1, 2]]}]}", "tables[0].kept[0][0] is -1"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"kept\": [[0, 9223372036854775807]]}]}", "tables[0].kept[0][1]"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"kept\": [[5, 5], [9, 2]]}]}", "tables[0].kept[1][0] is 9"},
        {HEAD "\"tables\": [{\"name\": \"a\", \"kept\": [[0, 1.5]]}]}", "tables[0].kept[0][1]"},
        {HEAD "\"tables\": 7}", "tables"},
        {"[", "plan.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rk_plan plan;
        struct rk_error error;
        cr_assert_neq(parse(cases[i].text, &plan, &error), RK_OK, "%s", cases[i].text);
        cr_assert(strstr(error.text, cases[i].says) != NULL, "%s: '%s' does not say '%s'", cases[i].text, error.text,
                  cases[i].says);
    }
}

Test(plan, a_plan_for_another_model_is_refused)
{
    struct rk_plan plan;
    struct rk_error error;
    cr_assert_eq(parse(HEAD "\"model\": \"ads\"}", &plan, &error), RK_OK);
    cr_assert_eq(rk_plan_check(&plan, &spec, &error), RK_INVALID);
    cr_assert(strstr(error.text, "'ads'") != NULL && strstr(error.text, "'feed'") != NULL, "%s", error.text);
    cr_assert_eq(parse(HEAD "\"tables\": [{\"name\": \"usr\"}]}", &plan, &error), RK_OK);
    cr_assert_eq(rk_plan_check(&plan, &spec, &error), RK_INVALID);
    cr_assert(strstr(error.text, "did you mean 'user'") != NULL, "%s", error.text);
    cr_assert_eq(parse(HEAD "\"tables\": [{\"name\": \"item\", \"kept\": [[8, 3]]}]}", &plan, &error), RK_OK);
    error = (struct rk_error){0};
    cr_assert_eq(rk_plan_check(&plan, &spec, &error), RK_INVALID);
    cr_assert(strstr(error.text, "rows up to 10") != NULL, "%s", error.text);
}

static enum rk_row_format format_of(const struct rk_plan *plan, const char *table)
{
    const struct rk_table_plan *found = rk_plan_table(plan, table);
    return found != NULL && found->has_format ? found->format : RK_ROW_FORMAT_COUNT;
}

Test(plan, options_name_formats_for_all_or_for_some)
{
    struct rk_plan plan;
    struct rk_error error = {0};
    cr_assert_eq(rk_plan_from_options(&spec, "int4", "int8", &arena, &plan, &error), RK_OK, "%s", error.text);
    cr_assert_eq(plan.num_tables, 3);
    cr_assert_eq(format_of(&plan, "user"), RK_ROWS_INT4);
    for (int s = 0; s < RK_PART_COUNT; s++)
        cr_assert(plan.parts[s].has_format && plan.parts[s].format == RK_DENSE_INT8);

    cr_assert_eq(rk_plan_from_options(&spec, "user=int8,*=int4", "top=bf16", &arena, &plan, &error), RK_OK);
    cr_assert_eq(format_of(&plan, "user"), RK_ROWS_INT8);
    cr_assert_eq(format_of(&plan, "user_city"), RK_ROWS_INT4);
    cr_assert_eq(format_of(&plan, "item"), RK_ROWS_INT4);
    cr_assert(plan.parts[RK_PART_TOP].has_format && !plan.parts[RK_PART_BOTTOM].has_format);

    cr_assert_eq(rk_plan_from_options(&spec, "user*=fp16", NULL, &arena, &plan, &error), RK_OK);
    cr_assert_eq(plan.num_tables, 2);
    cr_assert_eq(format_of(&plan, "user_city"), RK_ROWS_F16);
    cr_assert_eq(format_of(&plan, "item"), RK_ROW_FORMAT_COUNT);
}

Test(plan, wrong_options_say_what_would_be_right)
{
    static const struct {
        const char *rows, *stages, *says;
    } cases[] = {
        {"int5", NULL, "mxint8"},
        {"", NULL, "must be FORMAT"},
        {"int8,int4", NULL, "must be FORMAT"},
        {"user=", NULL, "must be FORMAT"},
        {"=int8", NULL, "must be FORMAT"},
        {"usr=int8", NULL, "did you mean 'user'"},
        {NULL, "int4", "fp32, bf16 or int8"},
        {NULL, "roof=int8", "bottom, interaction or top"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rk_plan plan;
        struct rk_error error = {0};
        cr_assert_eq(rk_plan_from_options(&spec, cases[i].rows, cases[i].stages, &arena, &plan, &error), RK_INVALID,
                     "case %zu", i);
        cr_assert(strstr(error.text, cases[i].says) != NULL, "case %zu: '%s' does not say '%s'", i, error.text,
                  cases[i].says);
    }
}

Test(plan, concatenated_vectors_have_no_format)
{
    const struct rk_model_spec cat = {.name = "feed",
                                      .tables = tables,
                                      .num_tables = 3,
                                      .interaction.op = RK_INTERACTION_CAT};
    struct rk_plan plan;
    struct rk_error error = {0};
    cr_assert_eq(rk_plan_from_options(&cat, NULL, "int8", &arena, &plan, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_plan_from_options(&cat, NULL, "top=int8,interaction=int8", &arena, &plan, &error), RK_INVALID);
    cr_assert(strstr(error.text, "leave 'interaction' out") != NULL, "%s", error.text);
}

Test(plan, annotations_are_ignored)
{
    struct rk_plan plan;
    struct rk_error error;
    cr_assert_eq(
        parse(HEAD "\"x-by\": [1], \"towers\": {\"x-why\": 2}, \"tables\": [{\"name\": \"item\", \"x-loss\": 0.1}]}",
              &plan, &error),
        RK_OK, "%s", error.text);
    cr_assert_eq(plan.num_tables, 1);
    cr_assert(!plan.tables[0].has_format && !plan.tables[0].pruned);
}
