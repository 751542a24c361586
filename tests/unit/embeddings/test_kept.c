/* Pruned tables: the blocks that say which rows are kept, written, checked, and read through rk_table_pool. */
#include <criterion/criterion.h>

#include "embeddings/kept.h"
#include "embeddings/table.h"
#include "tests/unit/embeddings/folder.h"
#include "tests/unit/random.h"

/* Rows so wide that the larger tables are too large to be left to the caches. */
enum { MAX_IDS = 3000, MAX_BLOCKS = MAX_IDS / RK_KEPT_BLOCK + 1, DIM = 400 };

static struct folder folder;

static void setup(void)
{
    folder = folder_create();
}

static void teardown(void)
{
    folder_destroy(&folder);
}

TestSuite(kept, .init = setup, .fini = teardown, .timeout = 30);

struct collected {
    struct rk_kept_block blocks[MAX_BLOCKS];
    uint64_t count;
    enum rk_status answer;
};

static enum rk_status collect(void *context, const struct rk_kept_block *block)
{
    struct collected *collected = context;
    if (collected->answer == RK_OK)
        collected->blocks[collected->count++] = *block;
    return collected->answer;
}

/* Keeps some of num_ids ids in stretches of random lengths; at least one is dropped. Returns how many are kept. */
static uint64_t choose(struct random *random, uint64_t num_ids, bool *kept)
{
    uint64_t count = 0;
    for (uint64_t id = 0; id < num_ids;) {
        const bool keep = random_below(random, 2);
        const uint64_t length = random_below(random, 4) ? random_between(random, 1, 5) : random_between(random, 1, 700);
        for (uint64_t end = id + length; id < end && id < num_ids; id++) {
            kept[id] = keep && id != num_ids / 2;
            count += kept[id];
        }
    }
    return count;
}

static struct collected write_blocks(const bool *kept, uint64_t num_ids)
{
    struct collected collected = {0};
    struct rk_kept_writer writer = {.write = collect, .context = &collected};
    for (uint64_t id = 0; id < num_ids;) {
        uint64_t end = id;
        while (end < num_ids && kept[end])
            end++;
        if (end > id)
            cr_assert_eq(rk_kept_add(&writer, id, end - id), RK_OK);
        id = end + 1;
    }
    cr_assert_eq(rk_kept_finish(&writer, num_ids), RK_OK);
    cr_assert_eq(collected.count, rk_kept_num_blocks(num_ids));
    return collected;
}

Test(kept, blocks_say_which_ids_are_kept_and_how_many_before)
{
    struct random random = random_from_seed();
    for (int repeat = 0; repeat < 200; repeat++) {
        const uint64_t num_ids = repeat < 4 ? (uint64_t)repeat + 447 : random_between(&random, 1, MAX_IDS);
        bool kept[MAX_IDS];
        uint64_t before = 0;
        const uint64_t count = choose(&random, num_ids, kept);
        const struct collected collected = write_blocks(kept, num_ids);
        for (uint64_t id = 0; id < rk_kept_num_blocks(num_ids) * RK_KEPT_BLOCK; id++) {
            const struct rk_kept_block *block = &collected.blocks[id / RK_KEPT_BLOCK];
            const unsigned char *bytes = (const unsigned char *)block;
            if (id % RK_KEPT_BLOCK == 0)
                cr_assert_eq(block->before, before);
            const bool bit = bytes[8 + id % RK_KEPT_BLOCK / 8] >> id % 8 & 1;
            cr_assert_eq(bit, id < num_ids && kept[id], "id %llu of %llu", (unsigned long long)id,
                         (unsigned long long)num_ids);
            before += bit;
        }
        struct rk_error error = {0};
        cr_assert_eq(before, count);
        cr_assert_eq(rk_kept_check(collected.blocks, num_ids, count, &error), RK_OK, "%s", error.text);
    }
}

Test(kept, ids_out_of_order_or_outside_and_failing_writes_are_refused)
{
    struct collected collected = {0};
    struct rk_kept_writer writer = {.write = collect, .context = &collected};
    cr_assert_eq(rk_kept_add(&writer, 10, 5), RK_OK);
    cr_assert_eq(rk_kept_add(&writer, 14, 1), RK_INVALID);
    cr_assert_eq(rk_kept_finish(&writer, 100), RK_INVALID);
    cr_assert_eq(collected.count, 0);
    writer = (struct rk_kept_writer){.write = collect, .context = &collected};
    cr_assert_eq(rk_kept_add(&writer, 10, 5), RK_OK);
    cr_assert_eq(rk_kept_finish(&writer, 14), RK_INVALID);
    writer = (struct rk_kept_writer){.write = collect, .context = &collected};
    cr_assert_eq(rk_kept_add(&writer, 3, UINT64_MAX), RK_INVALID);
    collected.answer = RK_IO;
    writer = (struct rk_kept_writer){.write = collect, .context = &collected};
    cr_assert_eq(rk_kept_add(&writer, 0, 447), RK_OK);
    cr_assert_eq(rk_kept_add(&writer, 447, 1), RK_IO);
    cr_assert_eq(rk_kept_finish(&writer, 1000), RK_IO);
}

Test(kept, any_flipped_bit_of_the_blocks_is_found)
{
    struct random random = random_from_seed();
    for (int repeat = 0; repeat < 300; repeat++) {
        const uint64_t num_ids = random_between(&random, 2, MAX_IDS);
        bool kept[MAX_IDS];
        const uint64_t count = choose(&random, num_ids, kept);
        struct collected collected = write_blocks(kept, num_ids);
        const uint64_t bit = random_below(&random, collected.count * sizeof(struct rk_kept_block) * 8);
        ((unsigned char *)collected.blocks)[bit / 8] ^= (unsigned char)(1u << bit % 8);
        struct rk_error error = {0};
        cr_assert_eq(rk_kept_check(collected.blocks, num_ids, count, &error), RK_CORRUPT, "bit %llu of %llu ids",
                     (unsigned long long)bit, (unsigned long long)num_ids);
    }
}

/* ---- tables ---- */

struct pruned {
    struct rk_table_spec spec;
    struct rk_shard_spec shards[2];
    float rows[MAX_IDS + 1][DIM]; /* as stored */
    uint64_t row_of[MAX_IDS];
};

/* Writes the files of a table that keeps some of its rows, stored in two shards. */
static void write_pruned(struct pruned *pruned, struct random *random, uint64_t num_ids)
{
    bool kept[MAX_IDS];
    const uint64_t count = choose(random, num_ids, kept), stored = count + 1, cut = stored / 2;
    const struct collected collected = write_blocks(kept, num_ids);
    for (uint64_t r = 0; r < stored; r++)
        for (int d = 0; d < DIM; d++)
            pruned->rows[r][d] = random_float(random);
    for (uint64_t id = 0, next = 0; id < num_ids; id++)
        pruned->row_of[id] = kept[id] ? next++ : count;
    folder_write(&folder, "kept", collected.blocks, collected.count * sizeof *collected.blocks);
    folder_write(&folder, "0.rows", pruned->rows, cut * sizeof *pruned->rows);
    folder_write(&folder, "1.rows", pruned->rows[cut], (stored - cut) * sizeof *pruned->rows);
    pruned->shards[0] = (struct rk_shard_spec){.file = "0.rows", .num_rows = cut};
    pruned->shards[1] = (struct rk_shard_spec){.file = "1.rows", .first_row = cut, .num_rows = stored - cut};
    pruned->spec = (struct rk_table_spec){
        .name = "pruned",
        .num_embeddings = num_ids,
        .embedding_dim = DIM,
        .kept = {.file = "kept", .num_rows = count},
        .shards = cut > 0 ? pruned->shards : pruned->shards + 1,
        .num_shards = cut > 0 ? 2 : 1,
    };
}

Test(kept, dropped_ids_read_the_last_stored_row_wherever_the_rows_are_read_from)
{
    struct random random = random_from_seed();
    static struct pruned pruned;
    for (int repeat = 0; repeat < 20; repeat++) {
        write_pruned(&pruned, &random, repeat < 10 ? MAX_IDS : random_between(&random, 1, 600));
        const struct rk_table_options options = {.memory = repeat % 2 ? RK_ROWS_HUGE_PAGES : RK_ROWS_MAPPED};
        struct rk_table *table = NULL;
        struct rk_error error = {0};
        cr_assert_eq(rk_table_open(&pruned.spec, folder.fd, &options, &table, &error), RK_OK, "%s", error.text);
        int64_t ids[700];
        uint32_t offsets[700 + 1];
        static float out[700][DIM];
        const uint64_t num_ids = pruned.spec.num_embeddings;
        for (uint32_t b = 0; b < 700; b++) {
            ids[b] = (int64_t)(b % 3 ? random_below(&random, num_ids) : b * UINT64_C(7) % num_ids);
            offsets[b] = b;
        }
        offsets[700] = 700;
        const struct rk_bag_list bags = {.ids = ids, .offsets = offsets, .num_bags = 700};
        rk_table_prefetch(table, rk_kernels_get(), &bags);
        rk_table_pool(table, rk_kernels_get(), &bags, &out[0][0], DIM);
        for (uint32_t b = 0; b < 700; b++)
            cr_assert_arr_eq(out[b], pruned.rows[pruned.row_of[ids[b]]], sizeof out[b], "id %lld", (long long)ids[b]);
        rk_table_close(table);
    }
}

Test(kept, a_file_that_lies_is_refused_and_one_that_begins_to_lie_leads_nowhere_else)
{
    struct random random = random_from_seed();
    static struct pruned pruned;
    write_pruned(&pruned, &random, MAX_IDS);
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    pruned.spec.kept.num_rows--;
    pruned.shards[1].num_rows--;
    folder_truncate(&folder, "1.rows", (off_t)(pruned.shards[1].num_rows * sizeof *pruned.rows));
    cr_assert_eq(rk_table_open(&pruned.spec, folder.fd, NULL, &table, &error), RK_CORRUPT);
    cr_assert(strstr(error.text, "table 'pruned', kept file 'kept'") && strstr(error.text, "ids are kept where"), "%s",
              error.text);

    write_pruned(&pruned, &random, MAX_IDS);
    cr_assert_eq(rk_table_open(&pruned.spec, folder.fd, NULL, &table, NULL), RK_OK);
    unsigned char hostile[MAX_BLOCKS * sizeof(struct rk_kept_block)];
    memset(hostile, 0xff, sizeof hostile);
    const int fd = openat(folder.fd, "kept", O_WRONLY);
    cr_assert_gt(write(fd, hostile, rk_kept_num_blocks(MAX_IDS) * sizeof(struct rk_kept_block)), 0);
    close(fd);
    const uint32_t offsets[] = {0, 1};
    const float *last = pruned.rows[pruned.spec.kept.num_rows];
    for (int64_t id = 0; id < MAX_IDS; id++) {
        const struct rk_bag_list bags = {.ids = &id, .offsets = offsets, .num_bags = 1};
        float out[DIM];
        rk_table_pool(table, rk_kernels_get(), &bags, out, DIM);
        if (id % RK_KEPT_BLOCK == 0) /* a count past the table leads to its last row */
            cr_assert_arr_eq(out, last, sizeof out);
    }
    rk_table_close(table);
}

Test(kept, a_spec_that_does_not_add_up_is_refused_by_name)
{
    static const struct {
        const char *file, *text;
        uint64_t num_rows, stored;
    } cases[] = {
        {"kept", NULL, 5, 6},
        {"kept", NULL, 0, 1},
        {"kept", NULL, 10, 11},
        {"kept", "kept.rows is 11, more than num_embeddings 10", 11, 12},
        {"kept", "kept.rows is 18446744073709551615", UINT64_MAX, 1},
        {"kept", "cover 5 of 6", 5, 5},
        {"kept", "goes past the table's 6 stored rows", 5, 7},
        {"", "kept.file is ''", 5, 6},
        {"../kept", "kept.file is '../kept'", 5, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct rk_shard_spec shard = {.file = "rows", .num_rows = cases[i].stored};
        const struct rk_table_spec spec = {
            .name = "t",
            .num_embeddings = 10,
            .embedding_dim = 4,
            .out_of_range = RK_OUT_OF_RANGE_DEFAULT,
            .default_row = 9, /* of the original ids */
            .kept = {.file = cases[i].file, .num_rows = cases[i].num_rows},
            .shards = &shard,
            .num_shards = 1,
        };
        struct rk_error error = {0};
        const enum rk_status status = rk_table_spec_check(&spec, &error);
        if (cases[i].text == NULL)
            cr_assert_eq(status, RK_OK, "%s", error.text);
        else
            cr_assert(status == RK_INVALID && strstr(error.text, cases[i].text), "'%s', expected '%s'", error.text,
                      cases[i].text);
    }
}
