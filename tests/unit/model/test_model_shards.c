/* A model's rows on shards: what is planned from its spec, and packages opened onto shards. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "embeddings/kept.h"
#include "model/model.h"
#include "model/model_shards.h"
#include "tests/unit/model/tiny_model.h"

static struct tiny tiny;

static void setup(void)
{
    tiny_create(&tiny);
    tiny_import_fine(&tiny);
}

static void teardown(void)
{
    tiny_destroy(&tiny);
}

TestSuite(model_shards, .init = setup, .fini = teardown, .timeout = 300);

static enum rk_status open_on(uint32_t num_shards, uint64_t capacity, struct rk_model **model, struct rk_error *error)
{
    const struct rk_row_options rows = {.memory = RK_ROWS_HUGE_PAGES,
                                        .lock = true, /* a few kilobytes: every machine allows them */
                                        .limits = {.num_shards = num_shards, .capacity_bytes = capacity}};
    const struct rk_model_open_options options = {.rows = &rows};
    return rk_model_open(tiny.package, &options, model, error);
}

Test(model_shards, a_model_on_any_number_of_shards_gives_its_golden_scores)
{
    for (uint32_t num_shards = 1; num_shards <= 9; num_shards++) {
        struct rk_model *model = NULL;
        struct rk_error error = {0};
        cr_assert_eq(open_on(num_shards, 0, &model, &error), RK_OK, "%s", error.text);
        cr_assert_eq(rk_model_shards_of(model)->placement.num_shards, num_shards);
        cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_OK, "%s", error.text);
        rk_model_close(model);
    }
}

Test(model_shards, mapped_rows_lie_on_no_shard)
{
    struct rk_model *model = NULL;
    const struct rk_row_options rows = {.memory = RK_ROWS_MAPPED, .lock = true};
    const struct rk_model_open_options options = {.rows = &rows};
    cr_assert_eq(rk_model_open(tiny.package, &options, &model, NULL), RK_OK);
    cr_assert_null(rk_model_shards_of(model));
    rk_model_close(model);
}

Test(model_shards, rows_that_do_not_fit_are_refused_before_any_is_read)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(open_on(2, 64, &model, &error), RK_EXHAUSTED);
    cr_assert(strstr(error.text, tiny.package) && strstr(error.text, "2 shards of 64 bytes"), "%s", error.text);
}

static void overwrite_file(void)
{
    char path[160];
    snprintf(path, sizeof path, "%s/table-001.shard-0001.rows", tiny.package);
    FILE *file = fopen(path, "r+");
    cr_assert_not_null(file);
    fputc(0x55, file);
    fclose(file);
}

Test(model_shards, a_damaged_file_is_found_when_it_is_copied_and_does_no_harm_afterwards)
{
    struct rk_model *model = NULL, *again = NULL;
    struct rk_error error = {0};
    cr_assert_eq(open_on(2, 0, &model, &error), RK_OK, "%s", error.text);
    overwrite_file();
    cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_OK, "%s", error.text);
    cr_assert_not(rk_model_damaged(model));
    cr_assert_eq(open_on(2, 0, &again, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, "table-001.shard-0001.rows: xxh3 is"), "%s", error.text);
    rk_model_close(model);
}

Test(model_shards, a_scrub_finds_a_bit_that_changed_in_memory)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(open_on(2, 0, &model, &error), RK_OK, "%s", error.text);
    unsigned char *row = (unsigned char *)(uintptr_t)rk_table_stored_row(rk_model_table(model, 1), 2);
    const uintptr_t page = (uintptr_t)row & ~(uintptr_t)(getpagesize() - 1);
    cr_assert_eq(mprotect((void *)page, (size_t)getpagesize(), PROT_READ | PROT_WRITE), 0);
    row[3] ^= 4;
    cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_CORRUPT);
    cr_assert(strstr(error.text, "table-001") && strstr(error.text, "changed in memory"), "%s", error.text);
    cr_assert(rk_model_damaged(model));
    rk_model_close(model);
}

/* Two tables, the second one pruned, a context feature and two candidate features. */
Test(model_shards, the_plan_counts_what_a_request_reads)
{
    const struct rk_table_spec tables[] = {
        {.name = "user", .num_embeddings = 1000, .embedding_dim = 16},
        {.name = "item", .num_embeddings = 448 * 100, .embedding_dim = 32, .kept = {.file = "k", .num_rows = 99}},
    };
    const struct rk_feature_spec features[] = {{.table = 0, .side = RK_SIDE_CONTEXT},
                                               {.table = 1, .side = RK_SIDE_CANDIDATE},
                                               {.table = 1, .side = RK_SIDE_CANDIDATE}};
    const struct rk_model_spec spec = {.tables = tables, .num_tables = 2, .features = features, .num_features = 3};
    const double ids[] = {50, 1.5, 0.5};
    const struct rk_row_traffic traffic = {.candidates = 10, .ids_per_bag = ids};
    const struct rk_placement_limits limits = {.num_shards = 1};
    struct rk_placement placement;
    cr_assert_eq(rk_model_plan_rows(&spec, &traffic, &limits, &placement, NULL), RK_OK);
    cr_assert_eq(placement.num_pieces, 3);
    const struct rk_piece *user = &placement.pieces[0], *item = &placement.pieces[1], *kept = &placement.pieces[2];
    cr_assert(user->num_rows == 1000 && user->bytes == 64000 && user->load == 50);
    cr_assert(item->num_rows == 100 && item->bytes == 12800 && item->load == 10 * 2 * 2, "%g", item->load);
    cr_assert(kept->num_rows == 1 && kept->bytes == 100 * sizeof(struct rk_kept_block) && kept->load == 20);
    cr_assert_eq(rk_model_kept_item(&spec, 1), kept->item);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(rk_model_item_table(&spec, i), i == 0 ? 0 : 1);
    rk_placement_deinit(&placement);
}
