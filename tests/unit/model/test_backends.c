/* Finding backends, what is refused and how that is said; what is the same for all of them. */
#include <criterion/criterion.h>
#include <sys/stat.h>

#include "model/backends.h"
#include "tests/unit/model/small_model.h"

#define PLAIN RANKD_PLUG_INS "/rankd-plain.so"

/* Expects a refusal with all these words (NULL: no more of them). */
static void expect_refused(const char *name, enum rk_status expected, const char *first, const char *second)
{
    const struct rk_backend *backend = NULL;
    struct rk_error error = {0};
    const enum rk_status status = rk_backend_find(name, NULL, 0, &backend, &error);
    cr_expect_eq(status, expected, "'%s': %s (%s)", name, rk_status_name(status), error.text);
    cr_expect(strstr(error.text, first) != NULL && (second == NULL || strstr(error.text, second) != NULL),
              "'%s': the text is: %s", name, error.text);
    cr_expect_null(backend);
}

static void copy_plain(const struct folder *folder, const char *name, mode_t mode)
{
    FILE *file = fopen(PLAIN, "r");
    cr_assert_not_null(file);
    static unsigned char bytes[8 << 20];
    const size_t length = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    cr_assert(length > 0 && length < sizeof bytes, "%zu", length);
    folder_write(folder, name, bytes, length);
    cr_assert_eq(fchmodat(folder->fd, name, mode, 0), 0);
}

static const char *path_in(const struct folder *folder, const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    return path;
}

Test(backends, cpu_is_built_in_and_plug_ins_are_found_by_name_and_path)
{
    const struct folder empty = folder_create();
    const char *folders[] = {"/nowhere", empty.path, RANKD_PLUG_INS};
    const struct rk_backend *backend = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_backend_find("cpu", NULL, 0, &backend, &error), RK_OK);
    cr_expect_eq(backend, &rk_backend_cpu);
    cr_assert_eq(rk_backend_find("plain", folders, 3, &backend, &error), RK_OK, "%s", error.text);
    cr_expect_str_eq(backend->name, "plain");
    const struct rk_backend *by_path = NULL;
    cr_assert_eq(rk_backend_find(PLAIN, NULL, 0, &by_path, &error), RK_OK, "%s", error.text);
    cr_expect_eq(by_path, backend, "the same file is opened twice");
    folder_destroy((struct folder *)&empty);
}

Test(backends, the_first_folder_that_has_the_name_is_taken)
{
    struct folder first = folder_create();
    const char *folders[] = {first.path, RANKD_PLUG_INS};
    const struct rk_backend *backend = NULL;
    struct rk_error error = {0};
    folder_write(&first, "rankd-plain.so", "no library", 10);
    cr_expect_eq(rk_backend_find("plain", folders, 2, &backend, &error), RK_UNSUPPORTED);
    cr_expect_not_null(strstr(error.text, first.path), "%s", error.text);
    folder_destroy(&first);
}

Test(backends, a_name_that_is_nowhere_is_refused_with_the_folders)
{
    const char *folders[] = {"/nowhere/first", "/nowhere/second"};
    const struct rk_backend *backend = NULL;
    struct rk_error error = {0};
    cr_expect_eq(rk_backend_find("cuda", folders, 2, &backend, &error), RK_NOT_FOUND);
    cr_expect_str_eq(error.text,
                     "there is no backend 'cuda': looked for rankd-cuda.so in /nowhere/first, /nowhere/second");
}

Test(backends, what_is_no_name_is_refused)
{
    expect_refused("", RK_INVALID, "names no backend", "rankd-NAME.so");
    expect_refused("nvidia gpu", RK_INVALID, "'nvidia gpu'", "rankd-NAME.so");
    expect_refused("..", RK_INVALID, "'..'", NULL);
    expect_refused("cuda.so", RK_INVALID, "'cuda.so'", "a path with a slash");
}

Test(backends, files_that_are_no_plug_ins_are_refused)
{
    struct folder folder = folder_create();
    expect_refused("/nowhere/rankd-cuda.so", RK_NOT_FOUND, "/nowhere/rankd-cuda.so", "No such file");
    expect_refused(path_in(&folder, "."), RK_INVALID, folder.path, "is not a file");
    folder_write(&folder, "text.so", "no library", 10);
    expect_refused(path_in(&folder, "text.so"), RK_UNSUPPORTED, "/text.so", NULL);
    folder_destroy(&folder);
}

Test(backends, plug_ins_for_another_rankd_are_refused_with_what_to_do)
{
    expect_refused(RANKD_ODD "/rankd-abi.so", RK_UNSUPPORTED, "for version 2 of the backend interface",
                   "version 1; build it anew");
    expect_refused(RANKD_ODD "/rankd-layout.so", RK_UNSUPPORTED, "other headers", "build it anew");
    expect_refused(RANKD_ODD "/rankd-bytes.so", RK_UNSUPPORTED, "other headers", "build it anew");
    expect_refused(RANKD_ODD "/rankd-incomplete.so", RK_UNSUPPORTED, "rankd-incomplete.so", "'open' is NULL");
    expect_refused(RANKD_ODD "/rankd-nameless.so", RK_UNSUPPORTED, "rankd-nameless.so", "'rankd_backend'");
    expect_refused(RANKD_ODD "/rankd-undefined.so", RK_UNSUPPORTED, "rankd-undefined.so", "rk_engine_describe");
}

Test(backends, plug_ins_that_others_could_have_written_are_refused)
{
    struct folder folder = folder_create();
    const struct rk_backend *backend = NULL;
    struct rk_error error = {0};
    copy_plain(&folder, "open.so", 0777);
    copy_plain(&folder, "fine.so", 0755);
    cr_assert_eq(symlinkat("open.so", folder.fd, "link.so"), 0);
    expect_refused(path_in(&folder, "open.so"), RK_INVALID, "everybody may write the file", "chmod o-w");
    expect_refused(path_in(&folder, "link.so"), RK_INVALID, "/open.so: everybody", NULL);
    cr_expect_eq(rk_backend_find(path_in(&folder, "fine.so"), NULL, 0, &backend, &error), RK_OK, "%s", error.text);
    if (geteuid() == 0) {
        cr_assert_eq(fchownat(folder.fd, "fine.so", 12345, (gid_t)-1, 0), 0);
        expect_refused(path_in(&folder, "fine.so"), RK_INVALID, "belongs to user 12345", "chown");
        cr_assert_eq(fchownat(folder.fd, "fine.so", 0, (gid_t)-1, 0), 0);
    }
    cr_assert_eq(fchmod(folder.fd, 0777), 0);
    expect_refused(path_in(&folder, "fine.so"), RK_INVALID, "everybody may write the folder", "chmod o-w");
    folder_destroy(&folder);
}

/* What a model needs and a backend does not have. */
Test(backends, models_beyond_the_capabilities_are_refused_with_the_first_reason)
{
    struct rk_device *device = NULL;
    cr_assert_eq(rk_backend_cpu.open(&rk_backend_host, "", &device, NULL), RK_OK);
    const struct rk_capabilities all = *rk_backend_cpu.capabilities(device);
    static const struct {
        uint32_t row_formats, dense_formats, interactions; /* that are missing */
        const char *text;
    } cases[] = {
        {0, 0, 0, NULL},
        {1u << RK_ROWS_INT4, 0, 0, "backend cpu cannot read table 't1': its rows are in int4"},
        {1u << RK_ROWS_F16, 0, 0, NULL},
        {0, 0, 1u << RK_INTERACTION_DOT, "backend cpu has no interaction dot"},
        {0, 1u << RK_DENSE_BF16, 0, "backend cpu cannot multiply vectors in bf16"},
        {0, 1u << RK_DENSE_INT8, 0, "backend cpu cannot multiply top_mlp[1].weight: it is in int8"},
    };
    struct small_shape shape = small_shape_typical(RK_INTERACTION_DOT);
    shape.tables[1].format = RK_ROWS_INT4;
    shape.vector_format = RK_DENSE_BF16;
    shape.top_format[1] = RK_DENSE_INT8;
    struct rk_model model;
    small_model_describe(&model, &shape);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_error error = {0};
        struct rk_capabilities some = all;
        some.row_formats &= ~cases[i].row_formats;
        some.dense_formats &= ~cases[i].dense_formats;
        some.interactions &= ~cases[i].interactions;
        const enum rk_status status = rk_backend_check_model(&rk_backend_cpu, &some, &model.spec, &error);
        cr_expect_eq(status, cases[i].text != NULL ? RK_UNSUPPORTED : RK_OK, "case %zu", i);
        cr_expect_str_eq(error.text, cases[i].text != NULL ? cases[i].text : "", "case %zu", i);
    }
    small_model_close(&model);
}

Test(backends, the_bound_of_a_model_is_that_of_its_coarsest_format)
{
    struct rk_capabilities can = {.error = {{1e-6, 1e-5}, {1e-4, 1e-3}, {1e-5, 1e-1}}};
    struct small_shape shape = small_shape_typical(RK_INTERACTION_DCN_V2);
    struct rk_model model;
    small_model_describe(&model, &shape);
    struct rk_error_bound bound = rk_backend_error_bound(&can, &model.spec);
    cr_expect(bound.usual == 1e-6 && bound.most == 1e-5, "%g %g", bound.usual, bound.most);
    small_model_close(&model);
    shape.cross_format[1] = RK_DENSE_BF16;
    shape.bottom_format[0] = RK_DENSE_INT8;
    small_model_describe(&model, &shape);
    bound = rk_backend_error_bound(&can, &model.spec);
    cr_expect(bound.usual == 1e-4 && bound.most == 1e-1, "%g %g", bound.usual, bound.most);
    can.exact = true;
    bound = rk_backend_error_bound(&can, &model.spec);
    cr_expect(bound.usual == 0.0 && bound.most == 0.0, "%g %g", bound.usual, bound.most);
    small_model_close(&model);
}

Test(backends, what_the_host_shows_of_a_table_is_every_row_in_order)
{
    const struct rk_backend_host *host = &rk_backend_host;
    struct random random = random_from_seed();
    struct rk_model model;
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_CAT);
    small_model_describe(&model, &shape);
    small_model_open(&model, &random);
    for (uint32_t t = 0; t < model.spec.num_tables; t++) {
        const struct rk_table_spec *table = &model.spec.tables[t];
        const uint64_t row_bytes = rk_row_bytes(table->format, table->embedding_dim);
        uint64_t row = 0, pieces = 0;
        for (uint64_t count; row < rk_table_spec_stored_rows(table); row += count, pieces++) {
            const unsigned char *rows = host->model_stored_rows(&model, t, row, &count);
            for (uint64_t r = 0; r < count; r++)
                cr_assert_eq(memcmp(rows + r * row_bytes, host->model_row(&model, t, row + r), row_bytes), 0,
                             "table %u row %llu", t, (unsigned long long)(row + r));
        }
        cr_expect_eq(row, table->num_embeddings);
        cr_expect_eq(pieces, table->num_shards);
        cr_expect_null(host->model_kept(&model, t));
    }
    small_model_close(&model);
}

struct block_list {
    struct rk_kept_block blocks[8];
    size_t count;
};

static enum rk_status collect(void *context, const struct rk_kept_block *block)
{
    struct block_list *list = context;
    list->blocks[list->count++] = *block;
    return RK_OK;
}

/* Which stored row an id reads, by the words of model/backend.h. */
static uint64_t stored_row_of(const struct rk_kept_block *blocks, uint64_t id, uint64_t num_stored)
{
    const struct rk_kept_block *block = &blocks[id / RK_KEPT_BLOCK];
    const uint64_t bit = id % RK_KEPT_BLOCK;
    uint64_t row = block->before;
    if ((block->bits[bit / 64] >> bit % 64 & 1) == 0)
        return num_stored - 1;
    for (uint64_t b = 0; b < bit; b++)
        row += block->bits[b / 64] >> b % 64 & 1;
    return row;
}

Test(backends, what_the_host_shows_of_a_pruned_table_says_which_row_an_id_reads)
{
    enum { IDS = 1000 };
    const struct rk_backend_host *host = &rk_backend_host;
    struct random random = random_from_seed();
    struct folder folder = folder_create();
    struct block_list list = {.count = 0};
    struct rk_kept_writer writer = {.write = collect, .context = &list};
    struct rk_error error = {0};
    float rows[IDS + 1];
    for (uint64_t id = 0; id < IDS; id++)
        if (random_below(&random, 3) == 0)
            cr_assert_eq(rk_kept_add(&writer, id, 1), RK_OK);
    cr_assert_eq(rk_kept_finish(&writer, IDS), RK_OK);
    for (int r = 0; r <= IDS; r++)
        rows[r] = (float)r;
    const uint64_t num_stored = writer.num_kept + 1;
    folder_write(&folder, "kept", list.blocks, list.count * sizeof list.blocks[0]);
    folder_write(&folder, "rows", rows, num_stored * sizeof rows[0]);

    struct rk_model model;
    const struct small_shape shape = small_shape_typical(RK_INTERACTION_CAT);
    small_model_describe(&model, &shape);
    const struct rk_shard_spec shard = {.file = "rows", .num_rows = num_stored};
    model.table_specs[0] = (struct rk_table_spec){.name = "pruned",
                                                  .num_embeddings = IDS,
                                                  .embedding_dim = 1,
                                                  .kept = {.file = "kept", .num_rows = writer.num_kept},
                                                  .shards = &shard,
                                                  .num_shards = 1};
    cr_assert_eq(rk_table_open(&model.table_specs[0], folder.fd, NULL, &model.tables[0], &error), RK_OK, "%s",
                 error.text);
    const struct rk_kept_block *blocks = host->model_kept(&model, 0);
    cr_assert_not_null(blocks);
    for (uint64_t id = 0; id < IDS; id++) {
        float row;
        memcpy(&row, host->model_row(&model, 0, id), sizeof row);
        cr_assert_eq((uint64_t)row, stored_row_of(blocks, id, num_stored), "id %llu reads row %g",
                     (unsigned long long)id, (double)row);
    }
    small_model_close(&model);
    folder_destroy(&folder);
}
