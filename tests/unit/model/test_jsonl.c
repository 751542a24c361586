/* JSON lines: what is read, what is printed, and where a line is wrong. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/jsonl.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/random.h"

static struct rk_arena arena;

static void setup(void)
{
    rk_arena_init(&arena, 4096);
}

static void teardown(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(jsonl, .init = setup, .fini = teardown, .timeout = 60);

Test(jsonl, a_request_is_gathered_by_feature)
{
    const char *line = "{\"id\": \"r\", \"context\": {\"dense\": [1, 2.5], \"ids\": {\"u\": [7, -1]}, \"weights\": "
                       "{\"u\": [0.5, 2]}}, "
                       "\"candidates\": [{\"dense\": [3], \"ids\": {\"g\": [1, 2], \"h\": []}}, {\"dense\": [4], "
                       "\"ids\": {\"h\": [9], "
                       "\"g\": [9223372036854775807]}}]}";
    struct rk_named_request request;
    struct rk_error error = {0};
    cr_assert_eq(rk_jsonl_parse(line, strlen(line), &arena, &request, &error), RK_OK, "%s", error.text);
    cr_assert_str_eq(request.id, "r");
    cr_assert_eq(request.num_candidates, 2);
    cr_assert_eq(request.context.num_dense, 2);
    cr_assert_eq(request.context.dense[1], 2.5f);
    cr_assert_eq(request.context.features[0].num_weights, 2);
    cr_assert_eq(request.context.features[0].weights[1], 2.0f);
    cr_assert_eq(request.context.features[0].ids[1], -1);
    cr_assert_eq(request.candidates.num_features, 2);
    const struct rk_named_bags *g = &request.candidates.features[0], *h = &request.candidates.features[1];
    cr_assert_eq(g->num_ids, 3);
    cr_assert_eq(g->lengths[0], 2);
    cr_assert_eq(g->lengths[1], 1);
    cr_assert_eq(g->ids[2], INT64_MAX);
    cr_assert_eq(h->lengths[0], 0);
    cr_assert_eq(h->ids[0], 9);
    cr_assert_eq(h->num_weights, 0);
    cr_assert_eq(request.candidates.dense[1], 4.0f);
}

Test(jsonl, what_is_wrong_is_named)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"nonsense", "not valid JSON"},
        {"[]", "must hold a JSON object"},
        {"{\"candidates\": [{}]} x", "not valid JSON"},
        {"{\"candidates\": [{}], \"candidates\": [{}]}", "duplicate"},
        {"{}", "candidates is missing"},
        {"{\"candidates\": {}}", "candidates is an object, must be an array"},
        {"{\"id\": 7, \"candidates\": []}", "id is a whole number"},
        {"{\"candidates\": [], \"canddates\": []}", "canddates is not a known field; did you mean 'candidates'?"},
        {"{\"candidates\": [1]}", "candidates[0] is a whole number, must be an object"},
        {"{\"candidates\": [{\"idz\": {}}]}", "candidates[0].idz is not a known field"},
        {"{\"candidates\": [{\"ids\": []}]}", "candidates[0].ids must be an object"},
        {"{\"candidates\": [{\"ids\": {\"game\": 3}}]}", "candidates[0].ids.game is a whole number, must be an array"},
        {"{\"candidates\": [{\"ids\": {\"game\": [1.5]}}]}", "candidates[0].ids.game[0] is 1.5, not a whole number"},
        {"{\"candidates\": [{\"ids\": {\"game\": [true]}}]}", "candidates[0].ids.game[0] is not a whole number"},
        {"{\"candidates\": [{\"ids\": {\"game\": [9223372036854775808]}}]}", "too big integer"},
        {"{\"candidates\": [{\"ids\": {\"g\": []}}, {\"ids\": {}}]}",
         "candidates[1].ids.g is missing; candidates[0] has it"},
        {"{\"candidates\": [{\"ids\": {\"g\": []}}, {}]}", "candidates[1].ids is missing"},
        {"{\"candidates\": [{\"ids\": {}}, {\"ids\": {\"g\": []}}]}",
         "candidates[1].ids.g is there, but candidates[0] has no such"},
        {"{\"candidates\": [{\"dense\": [1]}, {\"dense\": [1, 2]}]}",
         "candidates[1].dense has 2 values where candidates[0] has 1"},
        {"{\"candidates\": [{\"dense\": [1]}, {}]}", "candidates[1].dense has 0 values"},
        {"{\"candidates\": [{\"dense\": [\"1\"]}]}", "candidates[0].dense[0] is not a number"},
        {"{\"candidates\": [{\"dense\": [1e39]}]}", "candidates[0].dense[0] is 1e+39, too large"},
        {"{\"candidates\": [{\"dense\": [1e999]}]}", "not valid JSON"},
        {"{\"candidates\": [{\"dense\": [NaN]}]}", "not valid JSON"},
        {"{\"candidates\": [], \"context\": {\"ids\": {\"u\": [1]}, \"weights\": {\"u\": []}}}",
         "context.weights.u has 0 values for 1 ids"},
        {"{\"candidates\": [], \"context\": {\"ids\": {}, \"weights\": {\"u\": []}}}",
         "context.weights.u is there, but ids has no"},
        {"{\"candidates\": [{\"ids\": {\"g\": [1]}, \"weights\": {\"g\": [1]}}, {\"ids\": {\"g\": [1]}}]}",
         "candidates[1] and candidates[0] differ"},
        {"{\"candidates\": [{\"ids\": {\"g\\u0000\": [1]}}]}", "not valid JSON"},
        {"{\"candidates\": [{\"ids\": {\"\xff\": [1]}}]}", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_named_request request;
        struct rk_error error = {0};
        enum rk_status status = rk_jsonl_parse(cases[i].line, strlen(cases[i].line), &arena, &request, &error);
        cr_expect_eq(status, RK_INVALID, "%s: %s", cases[i].line, rk_status_name(status));
        cr_expect_not_null(strstr(error.text, cases[i].text), "%s: '%s', expected '%s' in it", cases[i].line,
                           error.text, cases[i].text);
    }
}

Test(jsonl, every_float_survives_printing)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 2000; round++) {
        float dense[2], weight;
        uint32_t bits[3];
        for (int i = 0; i < 3; i++)
            do
                bits[i] = (uint32_t)random_next(&random);
            while ((bits[i] & 0x7f800000) == 0x7f800000); /* not finite */
        memcpy(dense, bits, sizeof dense);
        memcpy(&weight, &bits[2], sizeof weight);
        int64_t id = (int64_t)random_next(&random);
        uint32_t length = 1;
        const struct rk_named_bags bags = {.name = "a \"b\"\\\n\xc3\xa9",
                                           .name_bytes = 9,
                                           .ids = &id,
                                           .num_ids = 1,
                                           .lengths = &length,
                                           .num_lengths = 1,
                                           .weights = &weight,
                                           .num_weights = 1};
        const struct rk_named_request request = {
            .id = "x\"y",
            .context = {.dense = dense, .num_dense = 2, .features = &bags, .num_features = 1},
            .num_candidates = 0};
        char *line = NULL;
        size_t size;
        FILE *stream = open_memstream(&line, &size);
        cr_assert(rk_jsonl_print_request(stream, &request));
        fclose(stream);
        struct rk_named_request read;
        struct rk_error error = {0};
        cr_assert_eq(rk_jsonl_parse(line, size, &arena, &read, &error), RK_OK, "%s: %s", line, error.text);
        cr_assert_str_eq(read.id, request.id);
        cr_assert_eq(memcmp(read.context.dense, dense, sizeof dense), 0, "%s", line);
        cr_assert_eq(memcmp(read.context.features[0].weights, &weight, sizeof weight), 0, "%s", line);
        cr_assert_eq(read.context.features[0].ids[0], id);
        cr_assert_str_eq(read.context.features[0].name, bags.name);
        free(line);
        rk_arena_reset(&arena, SIZE_MAX);
    }
}

Test(jsonl, scores_survive_printing)
{
    const float logits[4] = {0.1f, -1e-30f, 3e38f, -0.0f}, probabilities[4] = {0.5f, 0.25f, 1, 0};
    char *line = NULL;
    size_t size;
    FILE *stream = open_memstream(&line, &size);
    const double values[2] = {0.1, -3e300};
    rk_jsonl_print_scores(stream, "r1", logits, probabilities, values, 2, 2);
    fclose(stream);
    cr_assert_not_null(strstr(line, "\"values\": [0.10000000000000001, -3.0000000000000002e+300]}"), "%s", line);
    struct rk_named_scores scores;
    struct rk_error error = {0};
    cr_assert_eq(rk_jsonl_parse_scores(line, size, &arena, &scores, &error), RK_OK, "%s: %s", line, error.text);
    cr_assert_str_eq(scores.id, "r1");
    cr_assert_eq(scores.num_candidates, 2);
    cr_assert_eq(scores.num_heads, 2);
    cr_assert_null(scores.labels);
    for (int i = 0; i < 4; i++)
        cr_assert_eq((float)scores.logits[i], logits[i], "%d: %g, expected %g", i, scores.logits[i], (double)logits[i]);
    free(line);
}

Test(jsonl, scores_that_are_no_matrix_are_refused)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"{\"id\": \"r\"}", "logits is missing"},
        {"{\"logits\": [1]}", "logits[0] is a whole number, must be an array"},
        {"{\"logits\": [[1], [1, 2]]}", "logits[1] has 2 values, must have 1"},
        {"{\"logits\": [[]]}", "logits[0] has 0 items"},
        {"{\"logits\": [[\"1\"]]}", "logits[0][0] is not a number"},
        {"{\"logits\": [[1]], \"labels\": [[1], [0]]}", "labels has 2 rows where logits has 1"},
        {"{\"logits\": [[1]], \"labels\": [[1, 0]]}", "labels[0] has 2 values, must have 1"},
        {"{\"logits\": [[1]], \"label\": [[1]]}", "label is not a known field; did you mean 'labels'?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_named_scores scores;
        struct rk_error error = {0};
        cr_expect_eq(rk_jsonl_parse_scores(cases[i].line, strlen(cases[i].line), &arena, &scores, &error), RK_INVALID,
                     "%s", cases[i].line);
        cr_expect_not_null(strstr(error.text, cases[i].text), "%s: '%s', expected '%s' in it", cases[i].line,
                           error.text, cases[i].text);
    }
}

/* ---- files ---- */

static uint64_t lines[8];
static size_t num_lines;

static enum rk_status keep_line(void *context, uint64_t line, struct rk_named_request *request, struct rk_arena *memory,
                                struct rk_error *error)
{
    (void)memory;
    lines[num_lines++] = line;
    return strcmp(request->id, "stop") == 0 ? rk_error_set(error, RK_EXHAUSTED, "stopped by %s", (const char *)context)
                                            : RK_OK;
}

static enum rk_status read_text(const char *text, size_t length, struct rk_error *error)
{
    struct tiny tiny;
    char path[96];
    tiny_create(&tiny);
    tiny_write(&tiny, "r.jsonl", text, length);
    snprintf(path, sizeof path, "%s/r.jsonl", tiny.path);
    num_lines = 0;
    enum rk_status status = rk_jsonl_read(path, keep_line, (void *)"the test", error);
    tiny_destroy(&tiny);
    return status;
}

Test(jsonl, empty_lines_are_skipped_and_counted_and_the_last_needs_no_end)
{
    const char *text = "\n{\"candidates\": []}\n \t\r\n{\"candidates\": []}\r\n\n{\"candidates\": []}";
    struct rk_error error = {0};
    cr_assert_eq(read_text(text, strlen(text), &error), RK_OK, "%s", error.text);
    cr_assert_eq(num_lines, 3, "%zu", num_lines);
    cr_assert_eq(lines[0], 2);
    cr_assert_eq(lines[1], 4);
    cr_assert_eq(lines[2], 6);
}

Test(jsonl, an_error_names_file_and_line_and_ends_the_reading)
{
    const char *text = "{\"candidates\": []}\n{\"candidates\": 7}\n{\"candidates\": []}\n";
    struct rk_error error = {0};
    cr_assert_eq(read_text(text, strlen(text), &error), RK_INVALID);
    cr_assert_not_null(strstr(error.text, "r.jsonl:2: candidates is a whole number"), "'%s'", error.text);
    cr_assert_eq(num_lines, 1);
    text = "{\"id\": \"stop\", \"candidates\": []}\n{\"candidates\": []}\n";
    error = (struct rk_error){0};
    cr_assert_eq(read_text(text, strlen(text), &error), RK_EXHAUSTED);
    cr_assert_not_null(strstr(error.text, "r.jsonl:1: stopped by the test"), "'%s'", error.text);
}

Test(jsonl, a_line_longer_than_the_buffer_is_read_whole)
{
    size_t length = 300000;
    char *text = malloc(length + 64);
    memset(text, ' ', length);
    strcpy(text + length, "{\"id\": \"far\", \"candidates\": []}\n{\"candidates\": []}\n");
    struct rk_error error = {0};
    cr_assert_eq(read_text(text, strlen(text), &error), RK_OK, "%s", error.text);
    cr_assert_eq(num_lines, 2);
    free(text);
}

Test(jsonl, a_missing_file_and_a_directory_are_named)
{
    struct rk_error error = {0};
    cr_assert_eq(rk_jsonl_read("/nonexistent.jsonl", keep_line, NULL, &error), RK_NOT_FOUND);
    cr_assert_not_null(strstr(error.text, "/nonexistent.jsonl"), "'%s'", error.text);
    error = (struct rk_error){0};
    cr_assert_eq(rk_jsonl_read("/tmp", keep_line, NULL, &error), RK_IO);
    cr_assert_not_null(strstr(error.text, "/tmp"), "'%s'", error.text);
}
