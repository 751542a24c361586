/* Shards: memory that is given out, sealed, locked; and tables whose rows lie on several of them, which must answer
 * with the bits of a table in one place. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "embeddings/kept.h"
#include "embeddings/memory.h"
#include "embeddings/table_layout.h"
#include "tests/unit/embeddings/folder.h"
#include "tests/unit/random.h"

enum { ROWS = 3000, DIM = 20, IDS = 900, BAGS = 60, FILES = 3, SHARDS = 4 };

static struct folder folder;

static void setup(void)
{
    folder = folder_create();
}

static void teardown(void)
{
    folder_destroy(&folder);
}

TestSuite(shard, .init = setup, .fini = teardown, .timeout = 60);

static struct rk_shard *create(uint64_t bytes)
{
    struct rk_shard *shard = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_shard_create(bytes, -1, &shard, &error), RK_OK, "%s", error.text);
    return shard;
}

/* Asks the kernel, which says so where a page cannot be written to, rather than find out by a signal. */
static bool is_writable(void *data)
{
    const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const bool writable = read(zeros, data, 1) == 1;
    cr_assert(writable || errno == EFAULT);
    close(zeros);
    return writable;
}

Test(shard, gives_out_aligned_memory_that_is_read_only_once_sealed)
{
    struct rk_shard *shard = create(64 * 3 + 100);
    unsigned char *first = rk_shard_take(shard, 65), *second = rk_shard_take(shard, 64),
                  *third = rk_shard_take(shard, 100);
    cr_assert((uintptr_t)first % (2 << 20) == 0 && second == first + 128 && third == second + 64);
    memset(first, 7, 292);
    cr_assert(is_writable(first));
    rk_shard_seal(shard);
    cr_assert_not(is_writable(first));
    cr_assert_eq(third[99], 7);
    cr_assert_eq(rk_shard_node(shard), -1);
    rk_shard_destroy(shard);
    shard = create(0); /* more shards than tables */
    rk_shard_seal(shard);
    cr_assert_eq(rk_shard_lock(shard, NULL), RK_OK);
    rk_shard_destroy(shard);
    rk_shard_destroy(NULL);
}

Test(shard, prefers_a_node_that_exists_and_does_without_one_that_does_not)
{
    uint32_t nodes[RK_MAX_MEMORY_NODES];
    const uint32_t count = rk_memory_nodes(nodes);
    cr_assert(count >= 1 && count <= RK_MAX_MEMORY_NODES);
    const int wanted[] = {(int)nodes[count - 1], 63, 1000};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct rk_shard *shard = NULL;
        cr_assert_eq(rk_shard_create(4096, wanted[i], &shard, NULL), RK_OK);
        const int node = rk_shard_node(shard);
        cr_assert(node == -1 || (node == wanted[i] && node < 64), "asked for node %d, got %d", wanted[i], node);
        memset(rk_shard_take(shard, 4096), 1, 4096);
        rk_shard_destroy(shard);
    }
}

Test(shard, node_lists_are_read_as_the_kernel_writes_them)
{
    static const struct {
        const char *list;
        uint32_t count, last;
    } cases[] = {{"0\n", 1, 0}, {"0-1\n", 2, 1}, {"0,2-3,7", 4, 7}, {"0-200", 64, 63}, {"", 0, 0},
                 {"\n", 0, 0},  {"x", 0, 0},     {"0-x", 0, 0},     {"0;1", 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t nodes[RK_MAX_MEMORY_NODES] = {0};
        cr_assert_eq(rk_memory_parse_nodes(cases[i].list, nodes), cases[i].count, "'%s'", cases[i].list);
        cr_assert(cases[i].count == 0 || nodes[cases[i].count - 1] == cases[i].last, "'%s'", cases[i].list);
    }
}

Test(shard, locking_past_the_limit_is_refused_with_the_way_out)
{
    struct rk_shard *shard = create(1 << 20);
    memset(rk_shard_take(shard, 1 << 20), 1, 1 << 20);
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) { /* where neither the limit nor the right to ignore it comes back */
        const struct rlimit none = {0, 0};
        struct rk_error error = {0};
        bool refused = setrlimit(RLIMIT_MEMLOCK, &none) == 0 && (getuid() != 0 || setuid(65534) == 0);
        refused = refused && rk_shard_lock(shard, &error) == RK_EXHAUSTED;
        const ssize_t written = write(ends[1], error.text, sizeof error.text);
        _exit(refused && written == (ssize_t)sizeof error.text ? 0 : 1);
    }
    int status;
    char text[512] = "";
    cr_assert(waitpid(child, &status, 0) == child && read(ends[0], text, sizeof text) == (ssize_t)sizeof text);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d: %s", status, text);
    cr_assert(strstr(text, "may lock 0 KiB (RLIMIT_MEMLOCK)") && strstr(text, "LimitMEMLOCK=infinity"), "%s", text);
    close(ends[0]);
    close(ends[1]);
    rk_shard_destroy(shard);
}

Test(shard, memory_that_can_be_had_is_some_and_not_without_end)
{
    const uint64_t available = rk_memory_available();
    cr_assert(available > (1 << 20) && available < (uint64_t)1 << 60, "%llu", (unsigned long long)available);
}

/* ---- tables on shards ---- */

/* A table in FILES files, its rows random in some format; every third one is pruned. */
struct cut {
    struct rk_table_spec spec;
    struct rk_shard_spec shards[FILES];
    char names[FILES][16];
    uint64_t bytes[FILES + 1], xxh3[FILES + 1];
};

static enum rk_status append_block(void *context, const struct rk_kept_block *block)
{
    memcpy(*(unsigned char **)context, block, sizeof *block);
    *(unsigned char **)context += sizeof *block;
    return RK_OK;
}

static void write_kept(struct random *random, struct cut *cut)
{
    struct rk_kept_block blocks[ROWS / RK_KEPT_BLOCK + 1];
    unsigned char *end = (unsigned char *)blocks;
    struct rk_kept_writer writer = {.write = append_block, .context = &end};
    for (uint64_t row = 0; row < ROWS; row++)
        if (random_below(random, 3) > 0)
            rk_kept_add(&writer, row, 1);
    cr_assert_eq(rk_kept_finish(&writer, ROWS), RK_OK);
    cut->bytes[FILES] = (uint64_t)(end - (unsigned char *)blocks);
    cut->xxh3[FILES] = XXH3_64bits(blocks, cut->bytes[FILES]);
    folder_write(&folder, "kept", blocks, cut->bytes[FILES]);
    cut->spec.kept = (struct rk_kept_spec){.file = "kept", .num_rows = writer.num_kept};
}

static void write_table(struct random *random, struct cut *cut, enum rk_row_format format, bool pruned)
{
    memset(cut, 0, sizeof *cut);
    cut->spec = (struct rk_table_spec){.name = "t",
                                       .num_embeddings = ROWS,
                                       .embedding_dim = DIM,
                                       .format = format,
                                       .shards = cut->shards,
                                       .num_shards = FILES};
    if (pruned)
        write_kept(random, cut);
    const uint64_t stored = rk_table_spec_stored_rows(&cut->spec), row_bytes = rk_row_bytes(format, DIM);
    const uint64_t ends[FILES] = {random_between(random, 1, stored / 2),
                                  random_between(random, stored / 2 + 1, stored - 1), stored};
    for (uint32_t f = 0; f < FILES; f++) {
        const uint64_t first = f == 0 ? 0 : ends[f - 1], count = ends[f] - first;
        unsigned char *rows = malloc(count * row_bytes);
        for (uint64_t r = 0; r < count; r++) {
            float values[DIM];
            for (uint32_t d = 0; d < DIM; d++)
                values[d] = random_float(random);
            rk_row_traits(format)->encode(values, DIM, rows + r * row_bytes);
        }
        snprintf(cut->names[f], sizeof cut->names[f], "%u.rows", f);
        folder_write(&folder, cut->names[f], rows, count * row_bytes);
        cut->shards[f] = (struct rk_shard_spec){.file = cut->names[f], .first_row = first, .num_rows = count};
        cut->bytes[f] = count * row_bytes;
        cut->xxh3[f] = XXH3_64bits(rows, cut->bytes[f]);
        free(rows);
    }
}

static struct rk_table *open_with(const struct cut *cut, const struct rk_table_options *options)
{
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_table_open(&cut->spec, folder.fd, options, &table, &error), RK_OK, "%s", error.text);
    return table;
}

/* Cuts the stored rows at random into pieces on shards; returns their number. */
static size_t cut_pieces(struct random *random, const struct cut *cut, struct rk_piece pieces[SHARDS])
{
    const uint64_t stored = rk_table_spec_stored_rows(&cut->spec);
    const size_t count = random_between(random, 1, SHARDS);
    uint64_t next = 0;
    for (size_t p = 0; p < count; p++) {
        const uint64_t left = stored - next, spare = count - 1 - p;
        const uint64_t rows = spare == 0 ? left : random_between(random, 1, left - spare);
        pieces[p] = (struct rk_piece){.shard = (uint32_t)p, .first_row = next, .num_rows = rows};
        next += rows;
    }
    return count;
}

static void check_same_bits(struct random *random, const struct rk_table *one, const struct rk_table *other)
{
    int64_t ids[IDS];
    float weights[IDS], expected[BAGS][DIM], got[BAGS][DIM];
    uint32_t offsets[BAGS + 1] = {0};
    for (int i = 0; i < IDS; i++) {
        ids[i] = (int64_t)random_below(random, ROWS);
        weights[i] = random_float(random);
    }
    for (int b = 1; b <= BAGS; b++)
        offsets[b] = b == BAGS ? IDS : offsets[b - 1] + (uint32_t)random_below(random, (IDS - offsets[b - 1]) / 8 + 1);
    for (int kind = 0; kind < 3; kind++) {
        const struct rk_bag_list bags = {
            .ids = ids, .weights = kind == 1 ? weights : NULL, .offsets = offsets, .num_bags = BAGS, .mean = kind == 2};
        rk_table_prefetch(other, rk_kernels_get(), &bags);
        rk_table_pool(one, rk_kernels_get(), &bags, &expected[0][0], DIM);
        rk_table_pool(other, rk_kernels_get(), &bags, &got[0][0], DIM);
        cr_assert_arr_eq(got, expected, sizeof got, "kind %d", kind);
    }
}

Test(shard, a_table_cut_over_shards_gives_the_bits_of_the_whole_one_and_the_checksums_of_its_files)
{
    struct random random = random_from_seed();
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        struct cut cut;
        write_table(&random, &cut, (enum rk_row_format)f, f % 3 == 0);
        struct rk_table *mapped = open_with(&cut, NULL);
        for (int round = 0; round < 4; round++) {
            struct rk_piece pieces[SHARDS];
            const struct rk_piece kept = {.shard = (uint32_t)random_below(&random, SHARDS)};
            const size_t count = cut_pieces(&random, &cut, pieces);
            struct rk_shard *shards[SHARDS];
            for (int s = 0; s < SHARDS; s++)
                shards[s] = create(rk_table_spec_bytes(&cut.spec) + 2 * RK_PIECE_ALIGNMENT);
            const struct rk_table_places places = {.pieces = pieces,
                                                   .num_pieces = count,
                                                   .kept = &kept,
                                                   .shards = shards};
            const struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES, .places = &places};
            struct rk_table *copied = open_with(&cut, &options);
            for (int s = 0; s < SHARDS; s++)
                rk_shard_seal(shards[s]);
            check_same_bits(&random, mapped, copied);
            for (size_t p = 0; p < count; p++) { /* rows that follow one another end where their piece does */
                uint64_t following;
                const uint64_t row = pieces[p].first_row + random_below(&random, pieces[p].num_rows);
                const void *found = rk_table_stored_rows(copied, row, &following);
                cr_assert_eq(following, pieces[p].first_row + pieces[p].num_rows - row);
                cr_assert_arr_eq(found, rk_table_stored_row(mapped, row), rk_row_bytes((enum rk_row_format)f, DIM));
            }
            cr_assert(cut.spec.kept.file == NULL ||
                      memcmp(rk_table_kept(copied), rk_table_kept(mapped), cut.bytes[FILES]) == 0);
            for (uint32_t file = 0; file < FILES + (cut.spec.kept.file != NULL); file++) {
                uint64_t hash = 0, of_mapped = 0;
                cr_assert_eq(rk_table_hash(copied, file, NULL, NULL, &hash), RK_OK);
                cr_assert_eq(rk_table_hash(mapped, file, NULL, NULL, &of_mapped), RK_OK);
                cr_assert(hash == cut.xxh3[file] && of_mapped == hash, "%s: file %u of %llu bytes in %zu pieces",
                          rk_row_format_name((enum rk_row_format)f), file, (unsigned long long)cut.bytes[file], count);
            }
            rk_table_close(copied);
            for (int s = 0; s < SHARDS; s++)
                rk_shard_destroy(shards[s]);
        }
        rk_table_close(mapped);
    }
}

static bool stop_at(void *context, uint64_t bytes)
{
    (void)bytes;
    return --*(int *)context > 0;
}

Test(shard, filling_can_be_stopped_at_every_file_and_tells_which)
{
    struct random random = random_from_seed();
    struct cut cut;
    write_table(&random, &cut, RK_ROWS_INT8, true);
    for (int calls = 1; calls <= FILES + 1; calls++) {
        int left = calls;
        const struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES,
                                                 .progress = stop_at,
                                                 .progress_context = &left};
        struct rk_table *table = NULL;
        struct rk_error error = {0};
        char expected[64];
        snprintf(expected, sizeof expected, calls <= FILES ? "table 't', shards[%d]" : "table 't', kept file",
                 calls - 1);
        cr_assert_eq(rk_table_open(&cut.spec, folder.fd, &options, &table, &error), RK_CANCELLED);
        cr_assert(strstr(error.text, expected) && table == NULL, "%s", error.text);
    }
}

Test(shard, a_file_of_the_wrong_size_is_not_copied)
{
    struct random random = random_from_seed();
    struct cut cut;
    write_table(&random, &cut, RK_ROWS_F32, false);
    folder_truncate(&folder, cut.names[1], (off_t)cut.bytes[1] - 1);
    const struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES};
    struct rk_table *table = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_table_open(&cut.spec, folder.fd, &options, &table, &error), RK_CORRUPT);
    cr_assert(strstr(error.text, "shards[1]") && strstr(error.text, "bytes where"), "%s", error.text);
}

Test(shard, a_copy_that_was_marked_is_damage_and_the_file_beneath_is_not)
{
    struct random random = random_from_seed();
    struct cut cut;
    write_table(&random, &cut, RK_ROWS_F32, false);
    const struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES};
    struct rk_table *table = open_with(&cut, &options);
    folder_truncate(&folder, cut.names[0], 0);
    cr_assert(rk_table_file(table, 0) == NULL && rk_table_kept_file(table) == NULL && !rk_table_damaged(table));
    cr_assert_eq(rk_table_lock(table, NULL), RK_OK);
    rk_table_mark_damaged(table, 0);
    cr_assert(rk_table_damaged(table));
    rk_table_close(table);
}

/* ---- another row source than memory ---- */

static int prefetched;

static void count_prefetch(const struct rk_table *table, const struct rk_kernels *kernels,
                           const struct rk_bag_list *bags)
{
    (void)table;
    (void)kernels;
    prefetched += (int)bags->num_bags;
}

/* Rows of a place that computes them: row r is r in every element. */
static void pool_numbers(const struct rk_table *table, const struct rk_kernels *kernels, const struct rk_bag_list *bags,
                         float *out, size_t out_stride)
{
    (void)kernels;
    for (size_t b = 0; b < bags->num_bags; b++)
        for (uint32_t d = 0; d < table->spec->embedding_dim; d++) {
            float sum = 0;
            for (uint32_t i = bags->offsets[b]; i < bags->offsets[b + 1]; i++)
                sum += (float)bags->ids[i];
            out[b * out_stride + d] = sum;
        }
}

Test(shard, rows_may_live_behind_any_source)
{
    static const struct rk_row_source source = {.name = "numbers", .pool = pool_numbers, .prefetch = count_prefetch};
    const struct rk_table_spec spec = {.name = "t", .num_embeddings = 100, .embedding_dim = 2};
    const struct rk_table table = {.spec = &spec, .source = &source};
    const int64_t ids[] = {4, 5, 6};
    const uint32_t offsets[] = {0, 2, 2, 3};
    const struct rk_bag_list bags = {.ids = ids, .offsets = offsets, .num_bags = 3};
    float out[6];
    rk_table_prefetch(&table, rk_kernels_get(), &bags);
    rk_table_pool(&table, rk_kernels_get(), &bags, out, 2);
    cr_assert_eq(prefetched, 3);
    cr_assert_arr_eq(out, ((float[]){9, 9, 0, 0, 6, 6}), sizeof out);
}
