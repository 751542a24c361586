/* Importing from end to end: a good checkpoint becomes a package that opens; a bad one, or a stop at any moment, leaves
 * nothing. */
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/engine.h"
#include "model/model.h"
#include "model/model_open.h"
#include "tests/unit/model/tiny_model.h"

static struct tiny tiny;

static void setup(void)
{
    tiny_create(&tiny);
}

static void teardown(void)
{
    tiny_destroy(&tiny);
}

TestSuite(import, .init = setup, .fini = teardown, .timeout = 120);

static void expect_refused(const struct rk_error *error, enum rk_status status, const char *text, const char *what)
{
    cr_expect_neq(status, RK_OK, "%s was accepted", what);
    cr_expect_not_null(strstr(error->text, text), "%s: '%s', expected '%s' in it", what, error->text, text);
    cr_expect_eq(tiny_count_entries(&tiny), 2, "%s: something was left behind", what);
}

static struct rk_model *open_package(void)
{
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    cr_assert_eq(rk_model_open(tiny.package, NULL, &model, &error), RK_OK, "%s", error.text);
    return model;
}

Test(import, a_package_opens_with_its_rows_in_shards)
{
    tiny_import_fine(&tiny);
    struct rk_model *model = open_package();
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    cr_assert_eq(spec->tables[0].num_shards, 3, "5 rows in shards of 2: %u", spec->tables[0].num_shards);
    cr_assert_eq(rk_model_golden(model)->num_requests, 2);
    cr_assert_eq(rk_model_bytes(model), spec->weights_bytes + (5 + 3) * 16);
    cr_assert_eq((uintptr_t)rk_model_weights(model) % 64, 0);
    rk_model_close(model);
}

static void shards_by_bytes(struct rk_import_options *options)
{
    options->shards = (struct rk_shard_limits){.max_rows = UINT64_MAX, .max_bytes = 1}; /* less than a row: one each */
}

Test(import, a_shard_holds_at_least_one_row)
{
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(&tiny, shards_by_bytes, &error), RK_OK, "%s", error.text);
    struct rk_model *model = open_package();
    cr_assert_eq(rk_model_spec_of(model)->tables[0].num_shards, 5);
    rk_model_close(model);
}

Test(import, an_existing_package_is_never_touched)
{
    tiny_import_fine(&tiny);
    size_t before, after;
    unsigned char *old = tiny_read(&tiny, "package/manifest.json", &before);
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(&tiny, NULL, &error), RK_EXISTS);
    cr_assert_not_null(strstr(error.text, "exists already"), "'%s'", error.text);
    cr_assert_eq(tiny_count_entries(&tiny), 3);
    unsigned char *now = tiny_read(&tiny, "package/manifest.json", &after);
    cr_assert_eq(before, after);
    cr_assert_eq(memcmp(old, now, before), 0);
    free(old);
    free(now);
}

/* A checkpoint whose tensor `which` is replaced. */
static void write_changed(size_t which, const struct tiny_tensor *tensor)
{
    struct tiny_tensor tensors[16];
    memcpy(tensors, tiny_tensors, tiny_num_tensors * sizeof tensors[0]);
    tensors[which] = *tensor;
    size_t bytes;
    unsigned char *file = tiny_safetensors(tensors, tiny_num_tensors, &bytes);
    tiny_write(&tiny, "model.safetensors", file, bytes);
    free(file);
}

Test(import, a_weight_that_is_not_finite_is_refused_with_its_place)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        float rows[20] = {0}, bias[4] = {0};
        rows[4 * 3 + 2] = bad[i];
        write_changed(0, &(struct tiny_tensor){"emb.a", "F32", 2, {5, 4}, rows});
        struct rk_error error = {0};
        expect_refused(&error, tiny_import(&tiny, NULL, &error), "tensor 'emb.a' holds", "a bad row");
        cr_expect_not_null(strstr(error.text, "at [3, 2]"), "'%s'", error.text);
        bias[1] = bad[i];
        write_changed(3, &(struct tiny_tensor){"bot.bias", "F32", 1, {4}, bias});
        error = (struct rk_error){0};
        expect_refused(&error, tiny_import(&tiny, NULL, &error), "tensor 'bot.bias' holds", "a bad bias");
    }
}

Test(import, a_double_too_large_for_float32_is_refused)
{
    const double bias[4] = {0, 0, 1e39, 0};
    write_changed(3, &(struct tiny_tensor){"bot.bias", "F64", 1, {4}, bias});
    struct rk_error error = {0};
    expect_refused(&error, tiny_import(&tiny, NULL, &error), "'bot.bias' holds inf at [0, 2]", "1e39");
}

Test(import, doubles_and_halves_are_converted)
{
    double rows[20];
    uint16_t bias[4] = {0x3c00, 0, 0xbc00, 0x0001}; /* 1, 0, -1, 2^-24 */
    for (int i = 0; i < 20; i++)
        rows[i] = 0.125 * i;
    struct tiny_tensor tensors[16];
    memcpy(tensors, tiny_tensors, tiny_num_tensors * sizeof tensors[0]);
    tensors[0] = (struct tiny_tensor){"emb.a", "F64", 2, {5, 4}, rows};
    tensors[3] = (struct tiny_tensor){"bot.bias", "F16", 1, {4}, bias};
    size_t bytes;
    unsigned char *file = tiny_safetensors(tensors, tiny_num_tensors, &bytes);
    tiny_write(&tiny, "model.safetensors", file, bytes);
    free(file);
    tiny_import_fine(&tiny);
    struct rk_model *model = open_package();
    const struct rk_linear_spec *bottom = rk_model_spec_of(model)->bottom.layers;
    const float *values = (const float *)((const char *)rk_model_weights(model) + bottom->bias.offset);
    cr_assert_eq(values[0], 1.0f);
    cr_assert_eq(values[2], -1.0f);
    cr_assert_eq(values[3], 0x1p-24f);
    rk_model_close(model);
    float *read = (float *)tiny_read(&tiny, "package/table-000.shard-0001.rows", &bytes);
    cr_assert_eq(bytes, 2 * 16);
    cr_assert_eq(read[0], 0.125f * 8, "the second shard begins with row 2");
    free(read);
}

Test(import, a_checkpoint_that_does_not_fit_is_refused_by_name)
{
    static const struct {
        size_t which;
        struct tiny_tensor tensor;
        const char *text;
    } cases[] = {
        {0, {"emb.aa", "F32", 2, {5, 4}, NULL}, "needs tensor 'emb.a', which"},
        {0, {"emb.aa", "F32", 2, {5, 4}, NULL}, "similar names: 'emb.aa'"},
        {0, {"emb.a", "F32", 2, {6, 4}, NULL}, "has shape [6, 4], must be [5, 4]"},
        {1, {"emb.b", "F32", 2, {3, 5}, NULL}, "(tables[1]) has shape [3, 5]"},
        {1, {"emb.b", "F32", 1, {12}, NULL}, "must have 2 dimensions"},
        {3, {"bot.bias", "F32", 1, {5}, NULL}, "has shape [5], must be [4] like the rows"},
        {2, {"bot.weight", "F32", 2, {4, 2}, NULL}, "bottom_mlp[0]"},
        {4, {"top.0.weight", "F32", 2, {3, 9}, NULL}, "top_mlp[0]"},
        {6, {"top.1.weight", "F32", 2, {2, 4}, NULL}, "top_mlp[1]"},
        {5, {"top.0.scale", "F32", 1, {3}, NULL}, "needs tensor 'top.0.bias'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_changed(cases[i].which, &cases[i].tensor);
        struct rk_error error = {0};
        expect_refused(&error, tiny_import(&tiny, NULL, &error), cases[i].text, cases[i].tensor.name);
    }
    const int64_t integers[20] = {0};
    write_changed(0, &(struct tiny_tensor){"emb.a", "I64", 2, {5, 4}, integers});
    struct rk_error error = {0};
    expect_refused(&error, tiny_import(&tiny, NULL, &error), "has dtype I64", "integers");
}

static char warning[512];

static void keep_warning(void *context, const char *text)
{
    (void)context;
    snprintf(warning, sizeof warning, "%s", text);
}

static void with_warnings(struct rk_import_options *options)
{
    options->warn = keep_warning;
}

Test(import, an_unused_tensor_is_a_warning)
{
    struct tiny_tensor tensors[16];
    memcpy(tensors, tiny_tensors, tiny_num_tensors * sizeof tensors[0]);
    tensors[tiny_num_tensors] = (struct tiny_tensor){"optimizer.step", "F32", 1, {1}, NULL};
    size_t bytes;
    unsigned char *file = tiny_safetensors(tensors, tiny_num_tensors + 1, &bytes);
    tiny_write(&tiny, "model.safetensors", file, bytes);
    free(file);
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(&tiny, with_warnings, &error), RK_OK, "%s", error.text);
    cr_assert_not_null(strstr(warning, "'optimizer.step'"), "'%s'", warning);
}

/* ---- tables that arrive packed ---- */

static void configure(const char *fields_of_a)
{
    char text[4096];
    snprintf(text, sizeof text, TINY_CONFIG_FORMAT, fields_of_a, "", "");
    tiny_write(&tiny, "config.json", text, strlen(text));
}

/* One row of PyTorch's int8: elements, scale, bias. */
static void pack_byte_row(unsigned char row[12], const unsigned char elements[4], float scale, float bias)
{
    memcpy(row, elements, 4);
    memcpy(row + 4, &scale, 4);
    memcpy(row + 8, &bias, 4);
}

Test(import, packed_rows_are_kept)
{
    unsigned char rows[5][12];
    for (unsigned r = 0; r < 5; r++)
        pack_byte_row(rows[r], (unsigned char[]){(unsigned char)r, 0, 255, 7}, 0.01f * (float)(r + 1), -0.5f);
    write_changed(0, &(struct tiny_tensor){"emb.a", "U8", 2, {5, 12}, rows});
    configure(", \"format\": \"int8\"");
    tiny_import_fine(&tiny);
    size_t bytes;
    unsigned char *shard = tiny_read(&tiny, "package/table-000.shard-0001.rows", &bytes);
    cr_assert_eq(bytes, 2 * 12);
    cr_assert_arr_eq(shard, rows[2], 24, "the second shard has rows 2 and 3");
    free(shard);
    struct rk_model *model = open_package();
    cr_assert_eq(rk_model_spec_of(model)->tables[0].format, RK_ROWS_INT8);
    cr_assert_eq(rk_model_spec_of(model)->tables[1].format, RK_ROWS_F32);
    rk_model_close(model);
}

Test(import, the_scale_in_front_goes_behind_and_padding_is_told)
{
    unsigned char rows[5][11];
    for (unsigned r = 0; r < 5; r++)
        memcpy(rows[r], (unsigned char[]){0x00, 0x3c, 0x00, 0xc0, 1, 2, 3, (unsigned char)r, 9, 9, 9}, 11);
    write_changed(0, &(struct tiny_tensor){"emb.a", "U8", 2, {5, 11}, rows});
    configure(", \"format\": \"int8\", \"layout\": \"fbgemm\"");
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(&tiny, with_warnings, &error), RK_OK, "%s", error.text);
    cr_assert_not_null(strstr(warning, "3 bytes of padding behind each row of table 'a'"), "'%s'", warning);
    size_t bytes;
    unsigned char *shard = tiny_read(&tiny, "package/table-000.shard-0002.rows", &bytes), expected[12];
    pack_byte_row(expected, (unsigned char[]){1, 2, 3, 4}, 1.0f, -2.0f);
    cr_assert_eq(bytes, 12);
    cr_assert_arr_eq(shard, expected, 12);
    free(shard);
}

Test(import, packed_rows_that_do_not_fit_are_refused_by_name)
{
    static const struct {
        const char *fields;
        struct tiny_tensor tensor;
        const char *text;
    } cases[] = {
        {"",
         {"emb.a", "U8", 2, {5, 12}, NULL},
         "has dtype U8; only F32, F64, F16 and BF16 can be imported; a table of packed rows needs its format"},
        {"int8",
         {"emb.a", "F32", 2, {5, 4}, NULL},
         "has dtype F32; format 'int8' is for rows that are packed as U8 already"},
        {"int8", {"emb.a", "U8", 2, {5, 11}, NULL}, "has shape [5, 11], must be [5, 12] by rows of"},
        {"int8", {"emb.a", "U8", 2, {5, 13}, NULL}, "must be [5, 12]"},
        {"int8", {"emb.a", "U8", 2, {4, 12}, NULL}, "must be [5, 12]"},
        {"int8", {"emb.a", "U8", 1, {60}, NULL}, "must have 2 dimensions"},
        {"int4", {"emb.a", "U8", 2, {5, 12}, NULL}, "must be [5, 6] by rows of"},
        {"int8\", \"layout\": \"fbgemm", {"emb.a", "U8", 2, {5, 7}, NULL}, "must be [5, 8 and some padding]"},
        {"int8\", \"layout\": \"fbgemm", {"emb.a", "U8", 2, {5, 136}, NULL}, "must be [5, 8 and some padding]"},
        {"fp16",
         {"emb.a", "BF16", 2, {5, 4}, NULL},
         "has dtype BF16; format 'fp16' is for rows that are of this type already"},
        {"bf16", {"emb.a", "BF16", 2, {5, 3}, NULL}, "has shape [5, 3], must be [5, 4]"},
        {"int8", {"emb.aa", "U8", 2, {5, 12}, NULL}, "needs tensor 'emb.a', which"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char fields[100];
        snprintf(fields, sizeof fields, ", \"format\": \"%s\"", cases[i].fields);
        configure(cases[i].fields[0] != '\0' ? fields : "");
        const unsigned char zeros[5 * 136] = {0};
        struct tiny_tensor tensor = cases[i].tensor;
        tensor.data = zeros;
        write_changed(0, &tensor);
        struct rk_error error = {0};
        expect_refused(&error, tiny_import(&tiny, NULL, &error), cases[i].text, cases[i].fields);
    }
}

Test(import, a_packed_row_that_is_not_finite_is_refused_by_table_and_row)
{
    unsigned char rows[5][12];
    for (unsigned r = 0; r < 5; r++)
        pack_byte_row(rows[r], (unsigned char[]){1, 2, 3, 4}, r == 3 ? NAN : 0.5f, 0.0f);
    write_changed(0, &(struct tiny_tensor){"emb.a", "U8", 2, {5, 12}, rows});
    configure(", \"format\": \"int8\"");
    struct rk_error error = {0};
    expect_refused(&error, tiny_import(&tiny, NULL, &error), "row 3 of table 'a' (tensor 'emb.a', int8) decodes to",
                   "a bad scale");
}

/* ---- stops ---- */

static unsigned step, stop_at;
static bool kill_there;

static bool count_steps(void *context, const char *what, uint64_t done, uint64_t total)
{
    (void)context;
    (void)what;
    (void)done;
    (void)total;
    if (++step != stop_at)
        return true;
    if (kill_there)
        kill(getpid(), SIGKILL);
    return false;
}

static void with_steps(struct rk_import_options *options)
{
    options->progress = count_steps;
    step = 0;
}

Test(import, cancelled_at_any_step_it_leaves_nothing)
{
    for (stop_at = 1;; stop_at++) {
        struct rk_error error = {0};
        enum rk_status status = tiny_import(&tiny, with_steps, &error);
        if (status == RK_OK)
            break;
        cr_assert_eq(status, RK_CANCELLED, "step %u: %s", stop_at, error.text);
        cr_assert_eq(tiny_count_entries(&tiny), 2, "step %u left something behind", stop_at);
    }
    cr_assert_gt(stop_at, 10, "only %u steps", stop_at);
}

Test(import, killed_at_any_step_it_leaves_no_version)
{
    kill_there = true;
    for (stop_at = 1;; stop_at++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            struct rk_error error = {0};
            _exit(tiny_import(&tiny, with_steps, &error) == RK_OK ? 0 : 1);
        }
        int how;
        cr_assert_eq(waitpid(child, &how, 0), child);
        if (WIFEXITED(how)) {
            cr_assert_eq(WEXITSTATUS(how), 0);
            break;
        }
        cr_assert_eq(WTERMSIG(how), SIGKILL);
        cr_assert_neq(access(tiny.package, F_OK), 0, "killed at step %u, but there is a version", stop_at);
    }
    cr_assert_gt(stop_at, 10);
    rk_model_close(open_package());
}

/* ---- golden requests ---- */

static char requests_path[96], scores_path[96];

static void with_golden(struct rk_import_options *options)
{
    options->golden_requests = requests_path;
    options->golden_scores = scores_path;
}

/* A scores file of the two requests, with `offset` added to the second one's first logit; the true ones come from a
 * package. */
static void write_golden(double offset)
{
    tiny_import_fine(&tiny);
    size_t bytes;
    unsigned char *requests = tiny_read(&tiny, "package/golden.requests.jsonl", &bytes);
    tiny_write(&tiny, "requests.jsonl", requests, bytes);
    char *scores = (char *)tiny_read(&tiny, "package/golden.scores.jsonl", &bytes);
    scores[bytes] = '\0';
    char *second = strstr(strchr(scores, '\n'), "\"logits\": [[") + strlen("\"logits\": [["), *rest;
    double logit = strtod(second, &rest);
    char text[1 << 16];
    int length = snprintf(text, sizeof text, "%.*s%.17g%s", (int)(second - scores), scores, logit + offset, rest);
    tiny_write(&tiny, "scores.jsonl", text, (size_t)length);
    free(requests);
    free(scores);
    snprintf(requests_path, sizeof requests_path, "%s/requests.jsonl", tiny.path);
    snprintf(scores_path, sizeof scores_path, "%s/scores.jsonl", tiny.path);
    char moved[128];
    snprintf(moved, sizeof moved, "%s/moved", tiny.path);
    cr_assert_eq(rename(tiny.package, moved), 0);
}

Test(import, the_trainers_scores_are_met)
{
    write_golden(1e-7);
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(&tiny, with_golden, &error), RK_OK, "%s", error.text);
}

Test(import, scores_that_the_engine_does_not_meet_fail_the_import)
{
    write_golden(1e-3);
    size_t before = tiny_count_entries(&tiny);
    struct rk_error error = {0};
    cr_assert_eq(tiny_import(&tiny, with_golden, &error), RK_CORRUPT, "%s", error.text);
    cr_assert_not_null(strstr(error.text, "golden request 2"), "'%s'", error.text);
    cr_assert_not_null(strstr(error.text, "candidate 0, head 'click'"), "'%s'", error.text);
    cr_assert_eq(tiny_count_entries(&tiny), before);
}

Test(import, golden_files_that_do_not_belong_together_are_refused)
{
    write_golden(0);
    static const struct {
        const char *scores, *text;
    } cases[] = {
        {"", "has scores for 0 of the 2"},
        {"{\"id\": \"other\", \"logits\": [[0, 0]]}\n{\"id\": \"r1\", \"logits\": [[0, 0]]}\n", "has id 'other'"},
        {"{\"id\": \"r0\", \"logits\": [[0, 0]]}\n{\"id\": \"r1\", \"logits\": [[0, 0]]}\n", "1 candidates x 2 heads"},
        {"{\"id\": \"r0\", \"logits\": [[0]]}\nnot json\n", "scores.jsonl:2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tiny_write(&tiny, "scores.jsonl", cases[i].scores, strlen(cases[i].scores));
        struct rk_error error = {0};
        cr_expect_neq(tiny_import(&tiny, with_golden, &error), RK_OK, "%s", cases[i].scores);
        cr_expect_not_null(strstr(error.text, cases[i].text), "'%s', expected '%s' in it", error.text, cases[i].text);
    }
}

/* ---- ids out of range, from config.json to scores ---- */

/* Imports with the given fields for table "a" and scores one candidate whose fa2 has this id. */
static enum rk_status score_id(const char *table_fields, const char *id, float *logit, struct rk_error *error)
{
    char config[2048], line[512];
    int length = snprintf(config, sizeof config, TINY_CONFIG_FORMAT, table_fields, "", "");
    struct tiny other;
    tiny_create(&other);
    tiny_write(&other, "config.json", config, (size_t)length);
    tiny_import_fine(&other);
    struct rk_model *model = NULL;
    struct rk_engine *engine = NULL;
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    cr_assert_eq(rk_model_open(other.package, NULL, &model, error), RK_OK, "%s", error->text);
    cr_assert_eq(rk_engine_create(model, 1, &engine, error), RK_OK, "%s", error->text);
    length =
        snprintf(line, sizeof line,
                 "{\"context\": {\"dense\": [1, 2], \"ids\": {\"fa\": []}, \"weights\": {\"fa\": []}}, \"candidates\": "
                 "[{\"dense\": [0.5], \"ids\": {\"fa2\": [%s], \"fb\": [1]}}]}",
                 id);
    struct rk_named_request named;
    struct rk_request request;
    float logits[2] = {0};
    cr_assert_eq(rk_jsonl_parse(line, (size_t)length, &arena, &named, error), RK_OK, "%s", error->text);
    enum rk_status status =
        rk_request_bind(rk_model_spec_of(model), &RK_REQUEST_LIMITS_DEFAULT, &named, &arena, &request, error);
    if (status == RK_OK)
        cr_assert_eq(rk_engine_score(engine, &request, logits), RK_OK);
    *logit = logits[0];
    rk_engine_destroy(engine);
    rk_model_close(model);
    rk_arena_deinit(&arena);
    tiny_destroy(&other);
    return status;
}

Test(import, ids_out_of_range_follow_the_tables_policy)
{
    float rows[5], logit;
    struct rk_error error = {0};
    for (int i = 0; i < 5; i++) {
        char id[8];
        snprintf(id, sizeof id, "%d", i);
        cr_assert_eq(score_id("", id, &rows[i], &error), RK_OK, "%s", error.text);
    }
    cr_assert_neq(rows[1], rows[2], "the rows must differ for this test to say anything");
    static const char *const outside[] = {"-1", "5", "9223372036854775807", "-9223372036854775808"};
    static const int modulo[] = {4, 0, 2,
                                 2}; /* 2^63 - 1 = 5 * 1844674407370955161 + 2; -2^63 = -5 * 1844674407370955162 + 2 */
    for (int i = 0; i < 4; i++) {
        error = (struct rk_error){0};
        cr_assert_eq(score_id("", outside[i], &logit, &error), RK_INVALID, "id %s", outside[i]);
        cr_assert_not_null(strstr(error.text, outside[i]), "'%s' does not name id %s", error.text, outside[i]);
        error = (struct rk_error){0};
        cr_assert_eq(score_id(", \"out_of_range\": \"modulo\"", outside[i], &logit, &error), RK_OK, "%s", error.text);
        cr_assert_eq(logit, rows[modulo[i]], "id %s by modulo: %g, expected row %d: %g", outside[i], (double)logit,
                     modulo[i], (double)rows[modulo[i]]);
        cr_assert_eq(score_id(", \"out_of_range\": \"default_row\", \"default_row\": 3", outside[i], &logit, &error),
                     RK_OK, "%s", error.text);
        cr_assert_eq(logit, rows[3], "id %s by default row: %g, expected %g", outside[i], (double)logit,
                     (double)rows[3]);
    }
}
