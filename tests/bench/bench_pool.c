/* How fast pooled lookups are, and how far that is from what the memory can do.
 *
 *   bench_pool [--mib 2048] [--rounds 31] [--dim 128] [--format NAME] [--folder /tmp] [--json]
 *
 * One core sums bags of 32 random rows of a table in huge pages, by turns, round after round, each time with ids that
 * were never asked for before:
 *
 *   ours   rk_table_pool
 *   floor  the same rows, but one word of each cache line is read and nothing computed: the best of several ways to
 *          prefetch (a burst of one or two bags' rows, rolling ahead; into the first or second level)
 *   peer   what FBGEMM does: the row 16 ahead is prefetched with the non-temporal hint before each row is added; the
 *          best of a loop of its own (rolling_peer.h) and of our kernels called for 4 or 8 rows at a time
 *   hot    rk_table_pool on a table of 256 KiB
 *   mapped rk_table_pool on the same table, its rows read from the file's pages instead of huge ones
 *
 * Medians over the rounds, nanoseconds per row. */
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "embeddings/table.h"
#include "tests/bench/program.h"
#include "tests/bench/rolling_peer.h"

enum { BAG = 32, BAGS = 512, IDS = BAG * BAGS, MAX_ROUNDS = 1001, HOT_BYTES = 256 << 10, LINE = 64 };

struct table {
    struct rk_table_spec spec;
    struct rk_shard_spec shard;
    struct rk_table *table, *mapped;
    const unsigned char *rows;
    uint64_t row_bytes;
};

struct run {
    const struct table *table;
    const struct rk_kernels *kernels;
    int64_t ids[IDS];
    uint32_t offsets[BAGS + 1];
    float *out; /* [2][dim] */
};

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static uint64_t next_random(void) /* splitmix64 */
{
    static uint64_t state = 1;
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* ---- contenders: each goes once over all ids of a run ---- */

static volatile uint64_t sink;

static inline const unsigned char *row_of(const struct run *run, size_t i)
{
    return run->table->rows + (uint64_t)run->ids[i] * run->table->row_bytes;
}

static inline uintptr_t first_line(const unsigned char *row)
{
    return (uintptr_t)row / LINE * LINE;
}

#define PREFETCH_ROW(run, i, hint)                                                                                     \
    do {                                                                                                               \
        const unsigned char *row_ = row_of(run, i);                                                                    \
        for (uintptr_t line_ = first_line(row_); line_ < (uintptr_t)row_ + (run)->table->row_bytes; line_ += LINE)     \
            __builtin_prefetch((const void *)line_, 0, hint);                                                          \
    } while (0)

static inline uint64_t touch_row(const struct run *run, size_t i)
{
    const unsigned char *row = row_of(run, i);
    uint64_t sum = 0;
    for (uintptr_t line = first_line(row); line < (uintptr_t)row + run->table->row_bytes; line += LINE)
        sum += *(const uint64_t *)line;
    return sum;
}

#define FLOOR_BURST(name, hint)                                                                                        \
    static void name(struct run *run, int burst)                                                                       \
    {                                                                                                                  \
        uint64_t sum = 0;                                                                                              \
        for (int i = 0; i < burst; i++)                                                                                \
            PREFETCH_ROW(run, (size_t)i, hint);                                                                        \
        for (size_t done = 0; done < IDS; done += (size_t)burst) {                                                     \
            for (size_t i = done + (size_t)burst; i < done + 2 * (size_t)burst && i < IDS; i++)                        \
                PREFETCH_ROW(run, i, hint);                                                                            \
            for (size_t i = done; i < done + (size_t)burst; i++)                                                       \
                sum += touch_row(run, i);                                                                              \
        }                                                                                                              \
        sink = sum;                                                                                                    \
    }
FLOOR_BURST(floor_burst_l1, 3)
FLOOR_BURST(floor_burst_l2, 2)

#define FLOOR_ROLLING(name, hint)                                                                                      \
    static void name(struct run *run, int ahead)                                                                       \
    {                                                                                                                  \
        uint64_t sum = 0;                                                                                              \
        for (size_t i = 0; i < IDS; i++) {                                                                             \
            if (i + (size_t)ahead < IDS)                                                                               \
                PREFETCH_ROW(run, i + (size_t)ahead, hint);                                                            \
            sum += touch_row(run, i);                                                                                  \
        }                                                                                                              \
        sink = sum;                                                                                                    \
    }
FLOOR_ROLLING(floor_rolling_l1, 3)
FLOOR_ROLLING(floor_rolling_l2, 2)

/* step 0: the peer of its own, where there is one. */
static void peer(struct run *run, int step)
{
    if (step == 0)
        return rolling_peer(run->table->spec.format, run->table->spec.embedding_dim)(run->table->rows, run->ids, IDS,
                                                                                     BAG, run->out);
    const size_t dim = run->table->spec.embedding_dim;
    rk_pool_fn *const pool = run->kernels->pool[run->table->spec.format];
    for (size_t b = 0; b < BAGS; b++)
        for (size_t done = 0; done < BAG; done += (size_t)step) {
            const void *rows[BAG];
            for (int k = 0; k < step; k++) {
                const size_t i = b * BAG + done + (size_t)k;
                if (i + 16 < IDS)
                    PREFETCH_ROW(run, i + 16, 0);
                rows[k] = row_of(run, i);
            }
            pool(rows, NULL, (size_t)step, dim, done > 0, run->out + b % 2 * dim);
        }
}

static void ours(struct run *run, int mapped)
{
    const struct rk_bag_list bags = {.ids = run->ids, .offsets = run->offsets, .num_bags = BAGS};
    rk_table_pool(mapped ? run->table->mapped : run->table->table, run->kernels, &bags, run->out, 0);
}

enum kind { OURS, FLOOR, PEER, HOT, MAPPED, NUM_KINDS };

static const struct contender {
    enum kind kind;
    void (*go)(struct run *run, int parameter);
    int parameter;
    const char *name;
} contenders[] = {
    {OURS, ours, 0, "rk_table_pool"},
    {FLOOR, floor_burst_l1, 32, "burst of 32 to L1"},
    {FLOOR, floor_burst_l2, 32, "burst of 32 to L2"},
    {FLOOR, floor_burst_l2, 64, "burst of 64 to L2"},
    {FLOOR, floor_burst_l2, 128, "burst of 128 to L2"},
    {FLOOR, floor_rolling_l1, 8, "rolling 8 ahead to L1"},
    {FLOOR, floor_rolling_l1, 24, "rolling 24 ahead to L1"},
    {FLOOR, floor_rolling_l2, 32, "rolling 32 ahead to L2"},
    {PEER, peer, 0, "its own loop"},
    {PEER, peer, 4, "our kernel, 4 rows at a time"},
    {PEER, peer, 8, "our kernel, 8 rows at a time"},
    {HOT, ours, 0, "rk_table_pool"},
    {MAPPED, ours, 1, "rk_table_pool"},
};
enum { NUM_CONTENDERS = sizeof contenders / sizeof *contenders };

/* ---- tables ---- */

/* Bytes that are small positive numbers in every format, so that no sum meets what is slow by accident. */
static void write_rows(int fd, uint64_t bytes)
{
    static unsigned char block[1 << 20];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (unsigned char)(0x30 | (next_random() & 15));
    for (uint64_t done = 0; done < bytes;) {
        const ssize_t written = write(fd, block, bytes - done < sizeof block ? bytes - done : sizeof block);
        if (written <= 0)
            bench_fail("the folder for the table's file is full; name another with --folder", NULL);
        done += (uint64_t)written;
    }
}

static void open_table(struct table *table, int dir_fd, const char *file, enum rk_row_format format, uint32_t dim,
                       uint64_t bytes)
{
    *table = (struct table){.row_bytes = rk_row_bytes(format, dim)};
    table->shard = (struct rk_shard_spec){.file = file, .num_rows = bytes / table->row_bytes};
    table->spec = (struct rk_table_spec){.name = "bench",
                                         .num_embeddings = table->shard.num_rows,
                                         .embedding_dim = dim,
                                         .format = format,
                                         .shards = &table->shard,
                                         .num_shards = 1};
    const struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES};
    struct rk_error error = {0};
    const int fd = openat(dir_fd, file, O_WRONLY);
    if (fd < 0 || ftruncate(fd, (off_t)(table->shard.num_rows * table->row_bytes)) != 0)
        bench_fail("failed to resize the table's file", NULL);
    close(fd);
    uint64_t hash; /* as loading a model does: afterwards every page is mapped */
    if (rk_table_open(&table->spec, dir_fd, &options, &table->table, &error) != RK_OK ||
        rk_table_open(&table->spec, dir_fd, NULL, &table->mapped, &error) != RK_OK ||
        rk_table_hash(table->mapped, 0, NULL, NULL, &hash) != RK_OK)
        bench_fail("table", &error);
    table->rows = rk_table_row(table->table, rk_kernels_get(), 0);
}

/* A number in KiB from a file of "Name: number kB" lines. */
static uint64_t proc_kib(const char *path, const char *name)
{
    FILE *file = fopen(path, "r");
    char line[256];
    unsigned long long found = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), ": %llu", &found);
    if (file != NULL)
        fclose(file);
    return found;
}

/* ---- measuring ---- */

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double measure(struct run *run, const struct contender *contender)
{
    const uint64_t rows = run->table->spec.num_embeddings;
    for (size_t i = 0; i < IDS; i++)
        run->ids[i] = (int64_t)(next_random() % rows);
    const double start = now_ns();
    contender->go(run, contender->parameter);
    return (now_ns() - start) / IDS;
}

static void measure_format(struct run *run, const struct table *large, const struct table *small, uint32_t rounds,
                           double best[NUM_KINDS], const char *how[NUM_KINDS])
{
    static double ns[NUM_CONTENDERS][MAX_ROUNDS];
    const bool has_peer = rolling_peer(large->spec.format, large->spec.embedding_dim) != NULL;
    for (int round = -1; round < (int)rounds; round++) /* one to warm up */
        for (int c = 0; c < NUM_CONTENDERS; c++) {
            if (contenders[c].go == peer && contenders[c].parameter == 0 && !has_peer) {
                ns[c][round < 0 ? 0 : round] = INFINITY;
                continue;
            }
            run->table = contenders[c].kind == HOT ? small : large;
            if (contenders[c].kind == HOT)
                for (int i = 0; i < 4; i++) /* brings its rows into the cache */
                    measure(run, &contenders[c]);
            ns[c][round < 0 ? 0 : round] = measure(run, &contenders[c]);
        }
    for (int c = 0; c < NUM_CONTENDERS; c++) {
        qsort(ns[c], (size_t)rounds, sizeof **ns, compare_doubles);
        const double median = ns[c][rounds / 2];
        const enum kind kind = contenders[c].kind;
        if (how[kind] == NULL || median < best[kind]) {
            best[kind] = median;
            how[kind] = contenders[c].name;
        }
    }
}

int main(int argc, char **argv)
{
    uint32_t asked_mib = 2048, rounds = 31, dim = 128;
    const char *only = "all", *folder_name = "/tmp";
    bool json = false;
    bench_options(argc, argv,
                  (struct bench_option[]){BENCH_OPTION_UP_TO(1 << 20, "mib", BENCH_COUNT, &asked_mib, "of the table"),
                                          BENCH_OPTION_UP_TO(MAX_ROUNDS, "rounds", BENCH_COUNT, &rounds,
                                                             "of which medians are printed"),
                                          BENCH_OPTION_UP_TO(4096, "dim", BENCH_COUNT, &dim, "elements of a row"),
                                          BENCH_OPTION("format", BENCH_TEXT, &only, "of rows"),
                                          BENCH_OPTION("folder", BENCH_TEXT, &folder_name, "where the table's file is"),
                                          BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    enum rk_row_format chosen = RK_ROW_FORMAT_COUNT;
    if (strcmp(only, "all") != 0 && !rk_row_format_parse(only, &chosen))
        bench_fail("--format is none of the row formats: rankpack quantize --help lists them", NULL);
    bench_pin(BENCH_THIS_CORE);
    /* The file's pages and their copy both want memory. */
    uint64_t mib = asked_mib;
    const uint64_t free_mib = proc_kib("/proc/meminfo", "MemAvailable") / 1024;
    while (mib > 1 && mib * 2 + 512 > free_mib)
        mib /= 2;
    if (mib < asked_mib)
        fprintf(stderr, "bench_pool: %llu MiB of memory are free: the table has %llu MiB, not %llu\n",
                (unsigned long long)free_mib, (unsigned long long)mib, (unsigned long long)asked_mib);

    char folder[4096];
    snprintf(folder, sizeof folder, "%s/rankd-bench-XXXXXX", folder_name);
    const int dir_fd = mkdtemp(folder) != NULL ? open(folder, O_RDONLY | O_DIRECTORY) : -1;
    const int large_fd = openat(dir_fd, "large", O_CREAT | O_WRONLY, 0600),
              small_fd = openat(dir_fd, "small", O_CREAT | O_WRONLY, 0600);
    if (dir_fd < 0 || large_fd < 0 || small_fd < 0)
        bench_fail("failed to create files; name a folder with --folder", NULL);
    write_rows(large_fd, mib << 20);
    write_rows(small_fd, HOT_BYTES);

    static struct run run;
    run.kernels = rk_kernels_get();
    run.out = calloc(2 * (size_t)dim, sizeof *run.out);
    for (uint32_t b = 0; b <= BAGS; b++)
        run.offsets[b] = b * BAG;
    json_t *list = json_array();
    if (!json)
        printf("%u rows a bag, dim %u, %llu MiB\n%-12s %6s %7s %7s %7s %7s %7s %12s %11s %11s  %s\n", BAG, dim,
               (unsigned long long)mib, "format", "bytes", "ours", "floor", "peer", "hot", "mapped", "ours/floor",
               "peer/ours", "mapped/ours", "huge pages, best floor, best peer");
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        const char *name = rk_row_format_name((enum rk_row_format)f);
        if (chosen != RK_ROW_FORMAT_COUNT && chosen != (enum rk_row_format)f)
            continue;
        struct table large, small;
        open_table(&large, dir_fd, "large", (enum rk_row_format)f, dim, mib << 20);
        open_table(&small, dir_fd, "small", (enum rk_row_format)f, dim, HOT_BYTES);
        const uint64_t huge_mib = proc_kib("/proc/self/smaps_rollup", "AnonHugePages") / 1024;
        double ns[NUM_KINDS];
        const char *how[NUM_KINDS] = {NULL};
        measure_format(&run, &large, &small, rounds, ns, how);
        if (!json)
            printf("%-12s %6llu %7.2f %7.2f %7.2f %7.2f %7.2f %12.2f %11.2f %11.2f  %llu MiB, %s, %s\n", name,
                   (unsigned long long)large.row_bytes, ns[OURS], ns[FLOOR], ns[PEER], ns[HOT], ns[MAPPED],
                   ns[OURS] / ns[FLOOR], ns[PEER] / ns[OURS], ns[MAPPED] / ns[OURS], (unsigned long long)huge_mib,
                   how[FLOOR], how[PEER]);
        fflush(stdout);
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:s, s:s}", "format",
                                        name, "row_bytes", (json_int_t)large.row_bytes, "ns", ns[OURS], "floor_ns",
                                        ns[FLOOR], "peer_ns", ns[PEER], "hot_ns", ns[HOT], "times_floor",
                                        ns[OURS] / ns[FLOOR], "times_peer_rate", ns[PEER] / ns[OURS], "mapped_ns",
                                        ns[MAPPED], "times_mapped_rate", ns[MAPPED] / ns[OURS], "huge_mib",
                                        (json_int_t)huge_mib, "floor", how[FLOOR], "peer", how[PEER]));
        rk_table_close(large.table);
        rk_table_close(large.mapped);
        rk_table_close(small.table);
        rk_table_close(small.mapped);
    }
    unlinkat(dir_fd, "large", 0);
    unlinkat(dir_fd, "small", 0);
    rmdir(folder);
    json_t *all = json_pack("{s:s, s:i, s:i, s:i, s:I, s:o}", "bench", "pool", "rounds", (int)rounds, "dim", (int)dim,
                            "rows_per_bag", (int)BAG, "mib", (json_int_t)mib, "results", list);
    if (json && (all == NULL || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0))
        bench_fail("failed to print the results", NULL);
    json_decref(all);
    free(run.out);
    return 0;
}
