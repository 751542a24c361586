/* Going through all rows of a table: however it is cut and in whatever order, the rows are those of the files; numbers
 * that are none are found; pages do not stay; a file that shrinks meanwhile is noticed. */
#include <criterion/criterion.h>
#include <math.h>

#include "embeddings/row_stream.h"
#include "tests/unit/embeddings/folder.h"
#include "tests/unit/random.h"

enum { DIM = 256, SHARDS = 3, ROWS = 30000 }; /* some 30 MB: several windows */

static struct folder folder;
static const uint64_t shard_rows[SHARDS] = {1, 17001, ROWS - 17002};
static struct rk_shard_spec shards[SHARDS] = {{.file = "0.rows"}, {.file = "1.rows"}, {.file = "2.rows"}};
static const struct rk_table_spec spec = {
    .name = "big", .num_embeddings = ROWS, .embedding_dim = DIM, .shards = shards, .num_shards = SHARDS};
static struct rk_table *table;

static float element(uint64_t row, uint32_t d)
{
    return (float)row + (float)d / 1024.0f;
}

static void write_table(uint64_t strange_row, uint32_t strange_element, float strange)
{
    uint64_t row = 0;
    for (int s = 0; s < SHARDS; s++) {
        float *values = malloc(shard_rows[s] * DIM * sizeof *values);
        cr_assert_not_null(values);
        shards[s].first_row = row;
        shards[s].num_rows = shard_rows[s];
        for (uint64_t r = 0; r < shard_rows[s]; r++, row++)
            for (uint32_t d = 0; d < DIM; d++)
                values[r * DIM + d] = row == strange_row && d == strange_element ? strange : element(row, d);
        folder_write(&folder, shards[s].file, values, shard_rows[s] * DIM * sizeof *values);
        free(values);
    }
    struct rk_error error = {0};
    cr_assert_eq(rk_table_open(&spec, folder.fd, NULL, &table, &error), RK_OK, "%s", error.text);
}

static void setup(void)
{
    folder = folder_create();
}

static void teardown(void)
{
    rk_table_close(table);
    folder_destroy(&folder);
}

TestSuite(row_stream, .init = setup, .fini = teardown, .timeout = 60);

static void expect_row(struct rk_row_stream *stream, uint64_t row)
{
    struct rk_error error = {0};
    float values[DIM];
    cr_assert_eq(rk_row_stream_decode(stream, row, values, &error), RK_OK, "%s", error.text);
    for (uint32_t d = 0; d < DIM; d++)
        cr_assert_eq(values[d], element(row, d), "row %llu element %u is %g, expected %g", (unsigned long long)row, d,
                     (double)values[d], (double)element(row, d));
    cr_assert_eq(memcmp(rk_row_stream_row(stream, row), values, sizeof values), 0);
}

Test(row_stream, rows_are_those_of_the_files_in_any_order)
{
    struct random random = random_from_seed();
    struct rk_error error = {0};
    write_table(ROWS, 0, 0.0f);
    struct rk_row_stream stream = rk_row_stream_begin(table);
    for (uint64_t row = 0; row < ROWS; row++)
        expect_row(&stream, row);
    cr_assert_eq(rk_row_stream_end(&stream, &error), RK_OK, "%s", error.text);
    for (int i = 0; i < 200; i++)
        expect_row(&stream, random_below(&random, ROWS));
    cr_assert_eq(rk_row_stream_end(&stream, &error), RK_OK, "%s", error.text);
}

/* kB of this process that are pages of files, on a disk or on tmpfs. */
static long file_pages(void)
{
    char line[128];
    long kilobytes, sum = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "RssFile: %ld", &kilobytes) == 1 || sscanf(line, "RssShmem: %ld", &kilobytes) == 1)
            sum = (sum < 0 ? 0 : sum) + kilobytes;
    if (status != NULL)
        fclose(status);
    return sum;
}

Test(row_stream, pages_are_given_back_behind_it)
{
    write_table(ROWS, 0, 0.0f);
    float values[DIM];
    const long before = file_pages();
    if (before < 0)
        cr_skip_test("this system does not tell");
    for (uint64_t row = 0; row < ROWS; row++) /* the measure itself: without a stream they stay */
        memcpy(values, rk_table_stored_row(table, row), sizeof values);
    const long all = file_pages() - before;
    cr_assert_geq(all, (long)ROWS * DIM * 4 / 1024 * 9 / 10, "%ld kB", all);
    rk_table_forget(table, 0, ROWS);
    struct rk_row_stream stream = rk_row_stream_begin(table);
    struct rk_error error = {0};
    long most = 0;
    for (uint64_t row = 0; row < ROWS; row++) {
        rk_row_stream_row(&stream, row);
        cr_assert_eq(rk_row_stream_decode(&stream, row, values, &error), RK_OK, "%s", error.text);
        if (row % 1000 == 0 && file_pages() - before > most)
            most = file_pages() - before;
    }
    cr_assert_lt(most, all / 2, "%ld of %ld kB stayed", most, all);
    cr_assert_eq(rk_row_stream_end(&stream, &error), RK_OK, "%s", error.text);
    const long left = file_pages() - before;
    cr_assert_lt(left, all / 10, "%ld of %ld kB are left", left, all);
}

Test(row_stream, numbers_that_are_none_are_found_and_named)
{
    static const float strange[] = {INFINITY, -INFINITY, NAN};
    static const uint64_t rows[] = {0, 17001, ROWS - 1};
    for (int i = 0; i < 3; i++) {
        char where[64];
        float values[DIM];
        struct rk_error error = {0};
        enum rk_status status = RK_OK;
        const uint32_t at = i == 0 ? 0 : i == 1 ? 77 : DIM - 1;
        write_table(rows[i], at, strange[i]);
        struct rk_row_stream stream = rk_row_stream_begin(table);
        uint64_t row = 0;
        for (; status == RK_OK && row < ROWS; row++)
            status = rk_row_stream_decode(&stream, row, values, &error);
        cr_assert_eq(status, RK_CORRUPT, "row %llu", (unsigned long long)rows[i]);
        cr_assert_eq(row, rows[i] + 1);
        snprintf(where, sizeof where, "table 'big': element %u of row %llu is ", at, (unsigned long long)rows[i]);
        cr_assert_not_null(strstr(error.text, where), "'%s' does not say '%s'", error.text, where);
        rk_table_close(table);
        table = NULL;
    }
}

Test(row_stream, a_file_that_shrinks_is_noticed)
{
    struct rk_error error = {0};
    float values[DIM];
    cr_assert_eq(rk_mapped_file_contain_sigbus(&error), RK_OK, "%s", error.text);
    write_table(ROWS, 0, 0.0f);
    struct rk_row_stream stream = rk_row_stream_begin(table);
    cr_assert_eq(rk_row_stream_decode(&stream, 0, values, &error), RK_OK, "%s", error.text);
    folder_truncate(&folder, shards[2].file, 4096);
    for (uint64_t row = 0; row < ROWS; row++)
        cr_assert_eq(rk_row_stream_decode(&stream, row, values, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_row_stream_end(&stream, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, "table 'big'"), "%s", error.text);
}
