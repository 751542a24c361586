/* Tables: pooling against sums by hand however the rows are cut into files, ids outside, and specs that do not add up.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "embeddings/table.h"
#include "tests/unit/embeddings/folder.h"
#include "tests/unit/random.h"

enum { ROWS = 1000, MAX_DIM = 300 };

static struct folder folder;

static void setup(void)
{
    folder = folder_create();
}

static void teardown(void)
{
    folder_destroy(&folder);
}

TestSuite(table, .init = setup, .fini = teardown, .timeout = 30);

/* Element d of row r. Small whole numbers, so that sums of them are exact. */
static float element(uint64_t row, uint32_t d)
{
    return (float)((row * 31 + d * 7) % 64) - 32.0f;
}

/* A table in files of the given numbers of rows. */
struct cut {
    struct rk_table_spec spec;
    struct rk_shard_spec shards[8];
    char files[8][16];
};

static void write_table(struct cut *cut, uint32_t dim, const uint64_t *shard_rows, uint32_t num_shards)
{
    uint64_t row = 0;
    for (uint32_t s = 0; s < num_shards; s++) {
        snprintf(cut->files[s], sizeof cut->files[s], "%u.rows", s);
        cut->shards[s] = (struct rk_shard_spec){.file = cut->files[s], .first_row = row, .num_rows = shard_rows[s]};
        float *data = malloc(shard_rows[s] * dim * sizeof *data);
        for (uint64_t r = 0; r < shard_rows[s]; r++)
            for (uint32_t d = 0; d < dim; d++)
                data[r * dim + d] = element(row + r, d);
        folder_write(&folder, cut->files[s], data, shard_rows[s] * dim * sizeof *data);
        free(data);
        row += shard_rows[s];
    }
    cut->spec = (struct rk_table_spec){
        .name = "game", .num_embeddings = row, .embedding_dim = dim, .shards = cut->shards, .num_shards = num_shards};
}

static struct rk_table *open_table(const struct cut *cut)
{
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_table_open(&cut->spec, folder.fd, NULL, &table, &error), RK_OK, "%s", error.text);
    return table;
}

Test(table, bags_pool_to_the_sums_of_their_rows_however_the_table_is_cut)
{
    struct random random = random_from_seed();
    static const uint64_t cuts[][8] = {{ROWS}, {1, ROWS - 1}, {ROWS - 1, 1}, {100, 1, 399, 250, 250}, {1, 1, 1, 997}};
    static const uint32_t num_shards[] = {1, 2, 2, 5, 4}, dims[] = {1, 3, 16, 20, 64, 128, 257, 290};
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
        for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
            struct cut cut;
            write_table(&cut, dims[k], cuts[c], num_shards[c]);
            struct rk_table *table = open_table(&cut);
            /* Bags of every kind: empty, one, a chunk more or less, many chunks; not starting at id 0. */
            static const uint32_t lengths[] = {3, 0, 1, 2, 63, 64, 65, 129, 0, 500, 1};
            enum { BAGS = sizeof lengths / sizeof *lengths };
            uint32_t offsets[BAGS + 1] = {0};
            for (int b = 0; b < BAGS; b++)
                offsets[b + 1] = offsets[b] + lengths[b];
            int64_t ids[1000];
            float weights[1000];
            for (uint32_t i = 0; i < offsets[BAGS]; i++) {
                ids[i] = (int64_t)random_below(&random, ROWS);
                weights[i] = (float)random_between(&random, 0, 8) - 4.0f;
            }
            for (int kind = 0; kind < 3; kind++) {
                const struct rk_bag_list bags = {.ids = ids,
                                                 .weights = kind == 1 ? weights : NULL,
                                                 .offsets = offsets + 1,
                                                 .num_bags = BAGS - 1,
                                                 .mean = kind == 2};
                const size_t stride = dims[k] + 5;
                float *out = malloc(BAGS * stride * sizeof *out);
                for (size_t i = 0; i < BAGS * stride; i++)
                    out[i] = NAN;
                rk_table_pool(table, rk_kernels_get(), &bags, out, stride);
                for (uint32_t b = 1; b < BAGS; b++)
                    for (uint32_t d = 0; d < stride; d++) {
                        const float got = out[(b - 1) * stride + d];
                        if (d >= dims[k]) {
                            cr_assert(isnan(got), "bag %u wrote past its end", b);
                            continue;
                        }
                        float sum = 0.0f;
                        for (uint32_t i = offsets[b]; i < offsets[b + 1]; i++)
                            sum += (kind == 1 ? weights[i] : 1.0f) * element((uint64_t)ids[i], d);
                        if (kind == 2 && lengths[b] > 0)
                            sum /= (float)lengths[b];
                        cr_assert_eq(got, sum, "cut %zu dim %u kind %d bag %u: [%u] is %g, expected %g", c, dims[k],
                                     kind, b, d, (double)got, (double)sum);
                    }
                free(out);
            }
            rk_table_close(table);
        }
}

/* Bags whose sums are checked against decoding row by row: more ids than two bursts, so that bags cross them. */
enum { FORMAT_BAGS = 90, FORMAT_IDS = 700, FORMAT_ROWS = 4000 };

static void check_format(struct random *random, enum rk_row_format format, uint32_t dim, enum rk_row_memory memory)
{
    const struct rk_row_traits *traits = rk_row_traits(format);
    const size_t bytes = rk_row_bytes(format, dim);
    unsigned char *rows = malloc(FORMAT_ROWS * bytes);
    float values[MAX_DIM], expected[MAX_DIM], out[FORMAT_BAGS][MAX_DIM];
    for (size_t r = 0; r < FORMAT_ROWS; r++) {
        for (uint32_t d = 0; d < dim; d++)
            values[d] = random_float(random);
        traits->encode(values, dim, rows + r * bytes);
    }
    folder_write(&folder, "rows", rows, FORMAT_ROWS * bytes);
    const struct rk_shard_spec shard = {.file = "rows", .num_rows = FORMAT_ROWS};
    const struct rk_table_spec spec = {.name = "t",
                                       .num_embeddings = FORMAT_ROWS,
                                       .embedding_dim = dim,
                                       .format = format,
                                       .shards = &shard,
                                       .num_shards = 1};
    const struct rk_table_options options = {.memory = memory};
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_table_open(&spec, folder.fd, &options, &table, &error), RK_OK, "%s", error.text);
    int64_t ids[FORMAT_IDS];
    float weights[FORMAT_IDS];
    uint32_t offsets[FORMAT_BAGS + 1] = {0};
    for (int i = 0; i < FORMAT_IDS; i++) {
        ids[i] = (int64_t)random_below(random, FORMAT_ROWS);
        weights[i] = random_float(random);
    }
    for (int b = 1; b <= FORMAT_BAGS; b++) { /* the last one takes what is left */
        offsets[b] = offsets[b - 1] + (uint32_t)random_below(random, random_below(random, 20) ? 4 : 300);
        offsets[b] = b == FORMAT_BAGS || offsets[b] > FORMAT_IDS ? FORMAT_IDS : offsets[b];
    }
    const struct rk_bag_list bags = {.ids = ids, .weights = weights, .offsets = offsets, .num_bags = FORMAT_BAGS};
    rk_table_prefetch(table, rk_kernels_get(), &bags);
    rk_table_pool(table, rk_kernels_get(), &bags, &out[0][0], MAX_DIM);
    for (int b = 0; b < FORMAT_BAGS; b++) {
        memset(expected, 0, sizeof expected);
        for (uint32_t i = offsets[b]; i < offsets[b + 1]; i++) {
            cr_assert_arr_eq(rk_table_row(table, rk_kernels_get(), ids[i]), rows + (size_t)ids[i] * bytes, bytes);
            traits->decode(rows + (size_t)ids[i] * bytes, dim, values);
            for (uint32_t d = 0; d < dim; d++)
                expected[d] = fmaf(weights[i], values[d], expected[d]);
        }
        cr_assert_arr_eq(out[b], expected, dim * sizeof(float), "%s dim %u bag %d of %u ids", traits->name, dim, b,
                         offsets[b + 1] - offsets[b]);
    }
    rk_table_close(table);
    free(rows);
}

Test(table, every_format_pools_to_the_bits_of_decoding_and_adding_wherever_rows_are_read_from)
{
    struct random random = random_from_seed();
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (int memory = RK_ROWS_MAPPED; memory <= RK_ROWS_HUGE_PAGES; memory++) {
            check_format(&random, (enum rk_row_format)f, 128, (enum rk_row_memory)memory);
            check_format(&random, (enum rk_row_format)f, (uint32_t)random_between(&random, 1, MAX_DIM),
                         (enum rk_row_memory)memory);
        }
}

static bool count_bytes(void *context, uint64_t bytes)
{
    *(uint64_t *)context += bytes;
    return true;
}

static bool stop(void *context, uint64_t bytes)
{
    (void)context;
    (void)bytes;
    return false;
}

Test(table, copying_into_huge_pages_reports_can_be_stopped_and_outlives_the_file)
{
    struct cut cut;
    write_table(&cut, 16, (const uint64_t[]){100, 900}, 2);
    uint64_t copied = 0;
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES, .progress = stop};
    cr_assert_eq(rk_table_open(&cut.spec, folder.fd, &options, &table, &error), RK_CANCELLED);
    cr_assert(strstr(error.text, "table 'game', shards[0]") && table == NULL, "%s", error.text);
    options = (struct rk_table_options){
        .memory = RK_ROWS_HUGE_PAGES, .progress = count_bytes, .progress_context = &copied};
    cr_assert_eq(rk_table_open(&cut.spec, folder.fd, &options, &table, NULL), RK_OK);
    cr_assert_eq(copied, 1000 * 64);
    folder_truncate(&folder, "1.rows", 0);
    cr_assert_not(rk_table_damaged(table), "nothing that is served has changed");
    for (int64_t id = 0; id < 1000; id++) {
        const float *row = rk_table_row(table, rk_kernels_get(), id);
        for (uint32_t d = 0; d < 16; d++)
            cr_assert_eq(row[d], element((uint64_t)id, d), "row %lld", (long long)id);
    }
    rk_table_close(table);
}

Test(table, ids_outside_follow_the_policy_and_are_counted)
{
    struct rk_table_spec spec = {.num_embeddings = 10, .default_row = 4};
    static const struct {
        int64_t id, modulo;
    } cases[] = {{10, 0},        {25, 5},           {-1, 9}, {-10, 0}, {-11, 9}, {INT64_MAX, INT64_MAX % 10},
                 {INT64_MIN, 2}, {INT64_MIN + 1, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t outside = 0;
        int64_t id = cases[i].id;
        spec.out_of_range = RK_OUT_OF_RANGE_REJECT;
        cr_assert_not(rk_table_resolve(&spec, &id, &outside));
        cr_assert_eq(id, cases[i].id, "a rejected id is left for the error text");
        spec.out_of_range = RK_OUT_OF_RANGE_MODULO;
        cr_assert(rk_table_resolve(&spec, &id, &outside));
        cr_assert_eq(id, cases[i].modulo, "%lld becomes %lld, expected %lld", (long long)cases[i].id, (long long)id,
                     (long long)cases[i].modulo);
        id = cases[i].id;
        spec.out_of_range = RK_OUT_OF_RANGE_DEFAULT;
        cr_assert(rk_table_resolve(&spec, &id, &outside));
        cr_assert_eq(id, 4);
        cr_assert_eq(outside, 3);
    }
    for (int64_t id = 0; id < 10; id++) {
        uint64_t outside = 0;
        int64_t resolved = id;
        spec.out_of_range = RK_OUT_OF_RANGE_REJECT;
        cr_assert(rk_table_resolve(&spec, &resolved, &outside));
        cr_assert(resolved == id && outside == 0);
    }
}

/* Huge tables: numbers only. */
static struct rk_shard_spec shard;
static struct rk_table_spec huge(uint64_t rows, uint32_t dim)
{
    shard = (struct rk_shard_spec){.file = "a", .num_rows = rows};
    return (struct rk_table_spec){
        .name = "huge", .num_embeddings = rows, .embedding_dim = dim, .shards = &shard, .num_shards = 1};
}

static void expect_invalid(const struct rk_table_spec *spec, const char *text)
{
    struct rk_error error = {0};
    cr_assert_eq(rk_table_spec_check(spec, &error), RK_INVALID, "expected '%s'", text);
    cr_assert(strstr(error.text, text) && strstr(error.text, "table 'huge'"), "text is '%s', expected '%s' in it",
              error.text, text);
}

Test(table, four_billion_rows_can_be_described_and_overflow_cannot)
{
    struct rk_error error = {0};
    struct rk_table_spec spec = huge(UINT64_C(4000000000), 128);
    cr_assert_eq(rk_table_spec_check(&spec, &error), RK_OK, "%s", error.text);
    spec = huge(UINT64_C(1) << 62, 4);
    expect_invalid(&spec, "64 bits");
    spec = huge(UINT64_MAX, 1);
    expect_invalid(&spec, "64 bits");
    spec = huge(UINT64_C(1) << 32, UINT32_MAX);
    expect_invalid(&spec, "64 bits");
}

Test(table, a_spec_that_does_not_add_up_is_refused_by_name)
{
    struct rk_table_spec spec = huge(0, 4);
    expect_invalid(&spec, "num_embeddings is 0");
    spec = huge(10, 0);
    expect_invalid(&spec, "embedding_dim is 0");
    spec = huge(10, 4);
    spec.num_shards = 0;
    expect_invalid(&spec, "cover 0 of 10 rows");
    spec = huge(10, 4);
    spec.out_of_range = RK_OUT_OF_RANGE_DEFAULT;
    spec.default_row = 10;
    expect_invalid(&spec, "default_row 10");
    spec = huge(10, 4);
    spec.format = RK_ROW_FORMAT_COUNT;
    expect_invalid(&spec, "row format");
    spec = huge(10, 4);
    spec.out_of_range = RK_OUT_OF_RANGE_COUNT;
    expect_invalid(&spec, "policy");

    struct rk_shard_spec shards[2] = {{.file = "a", .num_rows = 5}, {.file = "b", .first_row = 5, .num_rows = 5}};
    static const struct {
        uint64_t first_row, num_rows;
        const char *text;
    } cases[] = {
        {6, 4, "gap"},
        {4, 6, "overlap"},
        {5, 0, "num_rows is 0"},
        {5, 6, "past the table's 10 stored rows"},
        {5, UINT64_MAX, "past the table's 10 stored rows"},
        {5, 4, "cover 9 of 10"},
    };
    spec = huge(10, 4);
    spec.shards = shards;
    spec.num_shards = 2;
    cr_assert_eq(rk_table_spec_check(&spec, NULL), RK_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        shards[1].first_row = cases[i].first_row;
        shards[1].num_rows = cases[i].num_rows;
        expect_invalid(&spec, cases[i].text);
    }
    static const char *const names[] = {NULL, "", ".", "..", "../x", "/x", "x/y"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        spec = huge(10, 4);
        shard.file = names[i];
        expect_invalid(&spec, "plain file name");
    }
}

Test(table, a_missing_or_short_shard_is_named)
{
    struct cut cut;
    write_table(&cut, 8, (const uint64_t[]){10, 20}, 2);
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    folder_truncate(&folder, "1.rows", 639);
    cr_assert_eq(rk_table_open(&cut.spec, folder.fd, NULL, &table, &error), RK_CORRUPT);
    cr_assert(strstr(error.text, "table 'game', shards[1]") && strstr(error.text, "'1.rows' has 639 bytes where 640"),
              "%s", error.text);
    rk_error_clear(&error);
    cr_assert_eq(unlinkat(folder.fd, "0.rows", 0), 0);
    cr_assert_eq(rk_table_open(&cut.spec, folder.fd, NULL, &table, &error), RK_NOT_FOUND);
    cr_assert(strstr(error.text, "table 'game', shards[0]") != NULL, "%s", error.text);
    cr_assert_null(table);
}

Test(table, damage_to_any_shard_is_damage_to_the_table)
{
    struct cut cut;
    write_table(&cut, 8, (const uint64_t[]){10, 20}, 2);
    struct rk_table *table = open_table(&cut);
    cr_assert_not(rk_table_damaged(table));
    rk_mapped_file_mark_damaged(rk_table_file(table, 1));
    cr_assert(rk_table_damaged(table));
    rk_table_close(table);
    rk_table_close(NULL);
}

Test(table, names_of_formats_and_policies_can_be_read_back)
{
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        enum rk_row_format format;
        cr_assert(rk_row_format_parse(rk_row_format_name((enum rk_row_format)f), &format) && (int)format == f);
    }
    for (int p = 0; p < RK_OUT_OF_RANGE_COUNT; p++) {
        enum rk_out_of_range policy;
        cr_assert(rk_out_of_range_parse(rk_out_of_range_name((enum rk_out_of_range)p), &policy) && (int)policy == p);
    }
    enum rk_row_format format;
    enum rk_out_of_range policy;
    cr_assert_not(rk_row_format_parse("fp31", &format));
    cr_assert_not(rk_out_of_range_parse("", &policy));
}
