/* Quantising the tiny package: its rows are those that the formats' own encoders make, dropped rows read what stands
 * for them, what cannot be done is refused by name, and whatever goes wrong leaves nothing behind. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/quantize.h"
#include "tests/unit/model/tiny_model.h"

enum { DIM = 4, ROWS_A = 5, ROWS_B = 3 };

static struct tiny tiny;
static struct rk_arena arena;
static struct rk_model *source, *made;
static float rows_a[ROWS_A][DIM], rows_b[ROWS_B][DIM]; /* of the source */
static char output[96];

static struct rk_model *open_model(const char *path)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_model_open(path, NULL, &model, &error), RK_OK, "%s", error.text);
    return model;
}

/* The source with more fields of table "a". */
static void import(const char *table_a)
{
    char config[2048];
    const int length = snprintf(config, sizeof config, TINY_CONFIG_FORMAT, table_a, "", "");
    tiny_write(&tiny, "config.json", config, (size_t)length);
    tiny_import_fine(&tiny);
    source = open_model(tiny.package);
    for (uint64_t r = 0; r < ROWS_A; r++)
        memcpy(rows_a[r], rk_table_stored_row(rk_model_table(source, 0), r), sizeof *rows_a);
    for (uint64_t r = 0; r < ROWS_B; r++)
        memcpy(rows_b[r], rk_table_stored_row(rk_model_table(source, 1), r), sizeof *rows_b);
}

static void setup(void)
{
    tiny_create(&tiny);
    rk_arena_init(&arena, 1u << 16);
    snprintf(output, sizeof output, "%s/made", tiny.path);
}

static void teardown(void)
{
    rk_model_close(made);
    rk_model_close(source);
    rk_arena_deinit(&arena);
    tiny_destroy(&tiny);
}

TestSuite(quantize, .init = setup, .fini = teardown, .timeout = 120);

static enum rk_status quantize(const struct rk_plan *plan, struct rk_quantize_result *result, struct rk_error *error)
{
    const struct rk_quantize_options options = {.model_dir = tiny.package, .output = output, .plan = plan};
    *error = (struct rk_error){0};
    return rk_quantize(source, &options, &arena, result, error);
}

static struct rk_quantize_result quantize_fine(const struct rk_plan *plan)
{
    struct rk_quantize_result result;
    struct rk_error error;
    cr_assert_eq(quantize(plan, &result, &error), RK_OK, "%s", error.text);
    made = open_model(output);
    return result;
}

static void expect_refused(const struct rk_plan *plan, enum rk_status wanted, const char *says)
{
    struct rk_quantize_result result;
    struct rk_error error;
    const size_t entries = tiny_count_entries(&tiny);
    const enum rk_status status = quantize(plan, &result, &error);
    cr_assert_eq(status, wanted, "%s '%s'", rk_status_name(status), error.text);
    cr_assert_not_null(strstr(error.text, says), "'%s' does not say '%s'", error.text, says);
    cr_assert_eq(tiny_count_entries(&tiny), entries, "something was left");
}

static struct rk_table_plan in_format(const char *table, enum rk_row_format format)
{
    return (struct rk_table_plan){.name = table, .has_format = true, .format = format};
}

/* The bytes that id reads are those of `values` encoded. */
static void expect_row(uint32_t t, int64_t id, const float *values)
{
    const struct rk_table_spec *spec = &rk_model_spec_of(made)->tables[t];
    unsigned char wanted[64] = {0};
    rk_row_traits(spec->format)->encode(values, DIM, wanted);
    cr_assert_eq(memcmp(rk_table_row(rk_model_table(made, t), rk_kernels_get(), id), wanted,
                        rk_row_bytes(spec->format, DIM)),
                 0, "row %lld of table '%s' in %s", (long long)id, spec->name, rk_row_format_name(spec->format));
}

Test(quantize, rows_are_what_each_formats_encoder_makes_of_them)
{
    import("");
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        const struct rk_table_plan tables[] = {in_format("a", (enum rk_row_format)f)};
        const struct rk_plan plan = {.tables = tables, .num_tables = 1};
        snprintf(output, sizeof output, "%s/made-%d", tiny.path, f);
        const struct rk_quantize_result result = quantize_fine(&plan);
        const struct rk_table_spec *spec = &rk_model_spec_of(made)->tables[0];
        double largest = 0, sum = 0;
        cr_assert_eq(spec->format, (enum rk_row_format)f);
        cr_assert_eq(spec->num_shards, 3, "5 rows in files of 2 stay so");
        for (int r = 0; r < ROWS_A; r++) {
            unsigned char row[64];
            float decoded[DIM];
            expect_row(0, r, rows_a[r]);
            rk_row_traits(spec->format)->encode(rows_a[r], DIM, row);
            rk_row_traits(spec->format)->decode(row, DIM, decoded);
            for (int d = 0; d < DIM; d++) {
                const double error = fabs((double)decoded[d] - (double)rows_a[r][d]);
                largest = fmax(largest, error);
                sum += error;
            }
        }
        for (int r = 0; r < ROWS_B; r++)
            expect_row(1, r, rows_b[r]);
        cr_assert_eq(result.tables[0].largest_error, largest);
        cr_assert_float_eq(result.tables[0].mean_error, sum / (ROWS_A * DIM), 1e-12);
        cr_assert_eq(result.tables[1].largest_error, 0.0);
        cr_assert_eq(result.bytes_before, rk_model_bytes(source));
        cr_assert_eq(result.bytes_after, rk_model_bytes(made));
        rk_model_close(made);
        made = NULL;
    }
}

Test(quantize, an_empty_plan_makes_the_same_model)
{
    static const char *const files[] = {"towers.weights", "table-000.shard-0002.rows", "table-001.shard-0001.rows",
                                        "golden.requests.jsonl", "golden.scores.jsonl"};
    import("");
    const struct rk_quantize_result result = quantize_fine(&(struct rk_plan){0});
    cr_assert_eq(result.largest_golden_error, 0.0);
    cr_assert_eq(result.num_golden, 2);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char name[64];
        size_t lengths[2];
        snprintf(name, sizeof name, "package/%s", files[i]);
        unsigned char *before = tiny_read(&tiny, name, &lengths[0]);
        snprintf(name, sizeof name, "made/%s", files[i]);
        unsigned char *after = tiny_read(&tiny, name, &lengths[1]);
        cr_assert(lengths[0] == lengths[1] && memcmp(before, after, lengths[0]) == 0, "%s", files[i]);
        free(before);
        free(after);
    }
}

static const struct rk_row_range some[] = {{0, 1}, {2, 2}}; /* of table a; rows 1 and 4 go */

Test(quantize, dropped_rows_read_their_mean)
{
    import("");
    struct rk_table_plan table = in_format("a", RK_ROWS_INT4);
    table.pruned = true;
    table.kept = some;
    table.num_kept = 2;
    const struct rk_quantize_result result = quantize_fine(&(struct rk_plan){.tables = &table, .num_tables = 1});
    cr_assert_eq(result.tables[0].kept, 3);
    cr_assert_eq(rk_model_spec_of(made)->tables[0].num_embeddings, ROWS_A);
    float mean[DIM];
    for (int d = 0; d < DIM; d++)
        mean[d] = (float)(((double)rows_a[1][d] + (double)rows_a[4][d]) / 2);
    for (int r = 0; r < ROWS_A; r++)
        expect_row(0, r, r == 1 || r == 4 ? mean : rows_a[r]);
}

Test(quantize, dropped_rows_read_the_default_row_where_the_table_has_one)
{
    import(", \"out_of_range\": \"default_row\", \"default_row\": 4");
    const struct rk_table_plan table = {.name = "a", .pruned = true, .kept = some, .num_kept = 2};
    quantize_fine(&(struct rk_plan){.tables = &table, .num_tables = 1});
    for (int r = 0; r < ROWS_A; r++)
        expect_row(0, r, r == 1 ? rows_a[4] : rows_a[r]);
}

Test(quantize, all_rows_may_go_and_all_may_stay)
{
    static const struct rk_row_range all = {0, ROWS_A};
    import("");
    const struct rk_table_plan tables[] = {{.name = "a", .pruned = true, .kept = &all, .num_kept = 1},
                                           {.name = "b", .pruned = true}};
    const struct rk_quantize_result result = quantize_fine(&(struct rk_plan){.tables = tables, .num_tables = 2});
    const struct rk_table_spec *specs = rk_model_spec_of(made)->tables;
    cr_assert_null(specs[0].kept.file, "a table that keeps all of its rows is not pruned");
    cr_assert_not_null(specs[1].kept.file);
    cr_assert_eq(rk_table_spec_stored_rows(&specs[1]), 1);
    cr_assert_eq(result.tables[1].kept, 0);
    float mean[DIM];
    for (int d = 0; d < DIM; d++)
        mean[d] = (float)(((double)rows_b[0][d] + (double)rows_b[1][d] + (double)rows_b[2][d]) / 3);
    for (int r = 0; r < ROWS_B; r++)
        expect_row(1, r, mean);
}

Test(quantize, a_pruned_table_changes_its_format_but_is_not_pruned_again)
{
    import("");
    struct rk_table_plan table = {.name = "a", .pruned = true, .kept = some, .num_kept = 2};
    const struct rk_plan plan = {.tables = &table, .num_tables = 1};
    quantize_fine(&plan);
    float mean[DIM];
    memcpy(mean, rk_table_row(rk_model_table(made, 0), rk_kernels_get(), 1), sizeof mean);
    rk_model_close(source);
    source = made;
    made = NULL;
    snprintf(tiny.package, sizeof tiny.package, "%s/made", tiny.path);
    snprintf(output, sizeof output, "%s/again", tiny.path);
    expect_refused(&plan, RK_INVALID, "table 'a' is pruned already");
    table = in_format("a", RK_ROWS_INT8);
    quantize_fine(&plan);
    for (int r = 0; r < ROWS_A; r++)
        expect_row(0, r, r == 1 || r == 4 ? mean : rows_a[r]);
}

Test(quantize, files_are_cut_as_asked)
{
    import("");
    const struct rk_shard_limits cut = {.max_rows = 3, .max_bytes = UINT64_MAX};
    const struct rk_table_plan table = in_format("b", RK_ROWS_BF16);
    const struct rk_plan plan = {.tables = &table, .num_tables = 1};
    const struct rk_quantize_options options = {.model_dir = tiny.package,
                                                .output = output,
                                                .plan = &plan,
                                                .cut = &cut};
    struct rk_quantize_result result;
    struct rk_error error = {0};
    cr_assert_eq(rk_quantize(source, &options, &arena, &result, &error), RK_OK, "%s", error.text);
    made = open_model(output);
    cr_assert_eq(rk_model_spec_of(made)->tables[0].num_shards, 2);
    cr_assert_eq(rk_model_spec_of(made)->tables[1].num_shards, 1);
    for (int r = 0; r < ROWS_A; r++)
        expect_row(0, r, rows_a[r]);
}

/* Puts a number into row 2 of table a, which is the first of its second file, behind the checksums' back. */
static void spoil_row(float value)
{
    struct rk_error error = {0};
    const struct rk_model_open_options unchecked = {.skip_checksums = true, .skip_golden = true};
    char path[160];
    rk_model_close(source);
    snprintf(path, sizeof path, "%s/table-000.shard-0001.rows", tiny.package);
    const int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, &value, sizeof value, 3 * sizeof value), (ssize_t)sizeof value);
    close(fd);
    cr_assert_eq(rk_model_open(tiny.package, &unchecked, &source, &error), RK_OK, "%s", error.text);
}

Test(quantize, rows_that_are_not_finite_are_refused)
{
    static const char *const where = "table 'a': element 3 of row 2 is";
    static const struct rk_row_range others[] = {{0, 2}, {3, 1}};
    struct rk_error error = {0};
    import("");
    spoil_row(NAN);
    const struct rk_table_plan table = in_format("a", RK_ROWS_INT4);
    expect_refused(&(struct rk_plan){.tables = &table, .num_tables = 1}, RK_CORRUPT, where);
    expect_refused(&(struct rk_plan){0}, RK_CORRUPT, where);
    const struct rk_table_plan dropped = {.name = "a", .pruned = true, .kept = others, .num_kept = 2};
    expect_refused(&(struct rk_plan){.tables = &dropped, .num_tables = 1}, RK_CORRUPT, where);
    cr_assert_eq(rk_model_check_rows(source, NULL, NULL, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, where), "%s", error.text);
}

Test(quantize, what_does_not_fit_is_refused)
{
    static const struct rk_row_range beyond = {4, 2};
    import("");
    const struct rk_table_plan unknown = in_format("aa", RK_ROWS_INT8),
                               far = {.name = "a", .pruned = true, .kept = &beyond, .num_kept = 1};
    expect_refused(&(struct rk_plan){.tables = &unknown, .num_tables = 1}, RK_INVALID, "'aa'");
    expect_refused(&(struct rk_plan){.tables = &far, .num_tables = 1}, RK_INVALID, "rows up to 5");
    expect_refused(&(struct rk_plan){.model = "large"}, RK_INVALID, "'large'");
    snprintf(output, sizeof output, "%s", tiny.package);
    expect_refused(&(struct rk_plan){0}, RK_EXISTS, "exists already");
}

struct countdown {
    unsigned left, calls;
};

static bool count_down(void *context, const char *what, uint64_t done, uint64_t total)
{
    struct countdown *countdown = context;
    cr_assert_not_null(what);
    cr_assert_leq(done, total, "%s", what);
    countdown->calls++;
    return countdown->left-- > 0;
}

Test(quantize, it_can_be_cancelled_at_every_step_and_leaves_nothing)
{
    import("");
    struct rk_table_plan table = in_format("a", RK_ROWS_MXFP4_E2M1);
    table.pruned = true;
    table.kept = some;
    table.num_kept = 2;
    const struct rk_plan plan = {.tables = &table, .num_tables = 1, .parts[RK_PART_TOP] = {true, RK_DENSE_INT8}};
    struct countdown countdown = {.left = UINT32_MAX};
    struct rk_quantize_options options = {.model_dir = tiny.package,
                                          .output = output,
                                          .plan = &plan,
                                          .progress = count_down,
                                          .progress_context = &countdown};
    struct rk_quantize_result result;
    struct rk_error error = {0};
    cr_assert_eq(rk_quantize(source, &options, &arena, &result, &error), RK_OK, "%s", error.text);
    const unsigned calls = countdown.calls;
    cr_assert_gt(calls, 5);
    const size_t entries = tiny_count_entries(&tiny);
    snprintf(output, sizeof output, "%s/cancelled", tiny.path);
    for (unsigned step = 0; step < calls; step++) {
        countdown = (struct countdown){.left = step};
        error = (struct rk_error){0};
        cr_assert_eq(rk_quantize(source, &options, &arena, &result, &error), RK_CANCELLED, "step %u", step);
        cr_assert_eq(countdown.calls, step + 1);
        cr_assert_eq(tiny_count_entries(&tiny), entries, "step %u left something", step);
    }
}

Test(quantize, quantised_layers_stay_or_are_refused)
{
    import("");
    quantize_fine(&(struct rk_plan){.parts[RK_PART_TOP] = {true, RK_DENSE_INT8}});
    cr_assert_eq(rk_model_spec_of(made)->top.layers[0].format, RK_DENSE_INT8);
    cr_assert_eq(rk_model_spec_of(made)->bottom.layers[0].format, RK_DENSE_F32);
    rk_model_close(source);
    source = made;
    made = NULL;
    snprintf(tiny.package, sizeof tiny.package, "%s/made", tiny.path);
    snprintf(output, sizeof output, "%s/again", tiny.path);
    expect_refused(&(struct rk_plan){.parts[RK_PART_TOP] = {true, RK_DENSE_BF16}}, RK_INVALID, "int8 already");
    const struct rk_quantize_result result = quantize_fine(
        &(struct rk_plan){.parts[RK_PART_TOP] = {true, RK_DENSE_INT8}, .parts[RK_PART_BOTTOM] = {true, RK_DENSE_BF16}});
    cr_assert_eq(rk_model_spec_of(made)->bottom.layers[0].format, RK_DENSE_BF16);
    const struct rk_linear_spec *before = &rk_model_spec_of(source)->top.layers[1],
                                *after = &rk_model_spec_of(made)->top.layers[1];
    cr_assert_eq(memcmp((const char *)rk_model_weights(source) + before->weight.offset,
                        (const char *)rk_model_weights(made) + after->weight.offset,
                        (size_t)after->weight.rows * after->weight.columns),
                 0);
    cr_assert_lt(result.largest_golden_error, 0.5);
}
