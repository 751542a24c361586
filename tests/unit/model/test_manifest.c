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

Test(manifest, what_is_wrong_is_named)
{
    static const struct {
        const char *from, *to;
        enum rk_status status;
        const char *text;
    } cases[] = {
        {"\"version\": 1", "\"version\": 2", RK_UNSUPPORTED, "format.version is 2, newer than this program"},
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
    };
    char *text = malloc(good_bytes + 256);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *at = strstr(good, cases[i].from);
        cr_assert_not_null(at, "'%s' is not in the manifest:\n%s", cases[i].from, good);
        int length = snprintf(text, good_bytes + 256, "%.*s%s%s", (int)(at - good), good, cases[i].to,
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
