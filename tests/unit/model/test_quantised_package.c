/* Opening a package in number formats: an int8 layer that is calibrated, layers in bf16 and int8, int8 vectors, a
 * pruned table of int4 rows. It is made of the tiny package in place; every fault is sealed with right checksums, so
 * that only a look at the numbers can find it. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "embeddings/kept.h"
#include "model/engine.h"
#include "model/golden.h"
#include "model/manifest.h"
#include "model/model_open.h"
#include "model/package.h"
#include "tests/unit/model/tiny_model.h"

#define DIM       4
#define KEPT_FILE "table-000.kept"
#define ROWS_FILE "table-000.int4.rows"

static struct tiny tiny;
static struct rk_arena arena;
static struct rk_manifest manifest;
static struct rk_linear_spec bottom, top[2];
static struct rk_table_spec tables[2];
static struct rk_shard_spec shard = {.file = ROWS_FILE, .num_rows = 4};
static unsigned char *weights;
static struct rk_kept_block block;

static void write_file(const char *name, const void *data, size_t bytes)
{
    char path[96];
    snprintf(path, sizeof path, "package/%s", name);
    tiny_write(&tiny, path, data, bytes);
}

static struct rk_file_ref file_ref(const char *name, const void *data, size_t bytes)
{
    write_file(name, data, bytes);
    return (struct rk_file_ref){name, bytes, XXH3_64bits(data, bytes)};
}

/* Writes weights, kept rows and the manifest, with the checksums that they have now. */
static void seal(void)
{
    char sidecar[RK_SIDECAR_BYTES + 1];
    manifest.spec.weights_xxh3 = file_ref(RK_PACKAGE_WEIGHTS, weights, manifest.spec.weights_bytes).xxh3;
    tables[0].kept.xxh3 = file_ref(KEPT_FILE, &block, sizeof block).xxh3;
    char *text = rk_manifest_print(&manifest);
    cr_assert_not_null(text);
    rk_manifest_sidecar(text, strlen(text), sidecar);
    write_file(RK_PACKAGE_MANIFEST, text, strlen(text));
    write_file(RK_PACKAGE_SIDECAR, sidecar, RK_SIDECAR_BYTES);
    free(text);
}

static void quantise_layers(const unsigned char *old)
{
    struct rk_model_spec *spec = &manifest.spec;
    const struct rk_linear_spec was[3] = {spec->bottom.layers[0], spec->top.layers[0], spec->top.layers[1]};
    bottom = was[0];
    bottom.format = RK_DENSE_INT8;
    bottom.calibrated = true;
    bottom.low = -2.0f;
    bottom.high = 3.0f;
    top[0] = was[1];
    top[0].format = RK_DENSE_BF16;
    top[1] = was[2];
    top[1].format = RK_DENSE_INT8;
    bottom.scale = (struct rk_tensor_spec){1, bottom.weight.rows, 0};
    top[1].scale = (struct rk_tensor_spec){1, top[1].weight.rows, 0};
    spec->bottom.layers = &bottom;
    spec->top.layers = top;
    spec->interaction.format = RK_DENSE_INT8;
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t count = rk_model_spec_tensors(spec, uses);
    spec->weights_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        struct rk_tensor_spec *tensor = (struct rk_tensor_spec *)uses[i].tensor;
        tensor->offset = (spec->weights_bytes + 63) / 64 * 64;
        spec->weights_bytes = tensor->offset + uses[i].bytes;
    }
    weights = calloc(1, spec->weights_bytes);
    const struct rk_linear_spec *now[3] = {&bottom, &top[0], &top[1]};
    for (int l = 0; l < 3; l++) {
        rk_dense_encode(now[l]->format, (const float *)(old + was[l].weight.offset), was[l].weight.rows,
                        was[l].weight.columns, weights + now[l]->weight.offset,
                        (float *)(weights + now[l]->scale.offset));
        memcpy(weights + now[l]->bias.offset, old + was[l].bias.offset, was[l].bias.columns * sizeof(float));
    }
}

static enum rk_status keep_block(void *context, const struct rk_kept_block *written)
{
    (void)context;
    block = *written;
    return RK_OK;
}

/* Of the first table's five rows, 0, 2 and 3 stay. */
static void prune_table(void)
{
    const struct rk_row_traits *traits = rk_row_traits(RK_ROWS_INT4);
    const size_t row_bytes = rk_row_bytes(RK_ROWS_INT4, DIM);
    unsigned char rows[4][16];
    struct rk_kept_writer writer = {.write = keep_block};
    for (int r = 0; r < 4; r++) {
        const float values[DIM] = {(float)r, 0.5f, -1.0f, (float)-r};
        traits->encode(values, DIM, (unsigned char *)rows + (size_t)r * row_bytes);
    }
    shard.xxh3 = file_ref(ROWS_FILE, rows, 4 * row_bytes).xxh3;
    cr_assert(rk_kept_add(&writer, 0, 1) == RK_OK && rk_kept_add(&writer, 2, 2) == RK_OK &&
              rk_kept_finish(&writer, 5) == RK_OK);
    memcpy(tables, manifest.spec.tables, sizeof tables);
    tables[0].format = RK_ROWS_INT4;
    tables[0].shards = &shard;
    tables[0].num_shards = 1;
    tables[0].kept = (struct rk_kept_spec){.file = KEPT_FILE, .num_rows = 3};
    manifest.spec.tables = tables;
}

/* The golden requests stay, their scores become those of the new model. */
static void score_golden(void)
{
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    size_t length, count = 0;
    char *lines = (char *)tiny_read(&tiny, "package/" RK_PACKAGE_REQUESTS, &length), *end = lines + length;
    struct rk_named_request requests[8];
    for (char *line = lines, *newline; line < end && (newline = memchr(line, '\n', (size_t)(end - line))) != NULL;
         line = newline + 1)
        cr_assert_eq(rk_jsonl_parse(line, (size_t)(newline - line), &arena, &requests[count++], &error), RK_OK, "%s",
                     error.text);
    const int dir_fd = open(tiny.package, O_RDONLY | O_DIRECTORY);
    cr_assert_eq(rk_model_open_draft(dir_fd, &manifest.spec, &model, &error), RK_OK, "%s", error.text);
    char *texts[2] = {NULL, NULL};
    size_t lengths[2];
    FILE *streams[2] = {open_memstream(&texts[0], &lengths[0]), open_memstream(&texts[1], &lengths[1])};
    cr_assert_eq(rk_golden_create(model, requests, count, NULL, streams[0], streams[1], &error), RK_OK, "%s",
                 error.text);
    fclose(streams[0]);
    fclose(streams[1]);
    manifest.golden_requests = file_ref(RK_PACKAGE_REQUESTS, texts[0], lengths[0]);
    manifest.golden_scores = file_ref(RK_PACKAGE_SCORES, texts[1], lengths[1]);
    rk_model_close(model);
    close(dir_fd);
    free(texts[0]);
    free(texts[1]);
    free(lines);
}

static void setup(void)
{
    size_t length;
    struct rk_error error = {0};
    tiny_create(&tiny);
    tiny_import_fine(&tiny);
    rk_arena_init(&arena, 1 << 16);
    char *text = (char *)tiny_read(&tiny, "package/manifest.json", &length);
    cr_assert_eq(rk_manifest_parse(text, length, &arena, &manifest, &error), RK_OK, "%s", error.text);
    free(text);
    unsigned char *old = tiny_read(&tiny, "package/" RK_PACKAGE_WEIGHTS, &length);
    quantise_layers(old);
    free(old);
    prune_table();
    seal();
    score_golden();
    seal();
}

static void teardown(void)
{
    free(weights);
    rk_arena_deinit(&arena);
    tiny_destroy(&tiny);
}

TestSuite(quantised_package, .init = setup, .fini = teardown, .timeout = 120);

static enum rk_status open_package(struct rk_error *error)
{
    struct rk_model *model = NULL;
    *error = (struct rk_error){0};
    const enum rk_status status = rk_model_open(tiny.package, NULL, &model, error);
    rk_model_close(model);
    return status;
}

static void expect_corrupt(const char *text)
{
    struct rk_error error;
    seal();
    cr_assert_eq(open_package(&error), RK_CORRUPT, "expected '%s'", text);
    cr_assert_not_null(strstr(error.text, text), "'%s', expected '%s' in it", error.text, text);
}

Test(quantised_package, it_opens_and_scores)
{
    struct rk_error error;
    struct rk_model *model = NULL;
    cr_assert_eq(open_package(&error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_model_open(tiny.package, NULL, &model, &error), RK_OK);
    cr_assert_eq(rk_model_golden(model)->num_requests, 2);
    /* Scores are printed with nine digits. */
    cr_assert_lt(rk_model_golden(model)->largest_error, 1e-8, "the same machine gives other bits: %g",
                 rk_model_golden(model)->largest_error);
    cr_assert_gt(rk_model_towers(model)->bytes, 0);
    cr_assert_eq(rk_model_bytes(model), manifest.spec.weights_bytes + 4 * rk_row_bytes(RK_ROWS_INT4, DIM) +
                                            3 * DIM * sizeof(float) + sizeof block);
    struct rk_engine *engine = NULL;
    cr_assert_eq(rk_engine_create(model, 4, &engine, NULL), RK_OK);
    cr_assert_eq(rk_engine_observe(engine, NULL, NULL), RK_UNSUPPORTED, "its layers do not read floats");
    rk_engine_destroy(engine);
    rk_model_close(model);
}

Test(quantised_package, numbers_that_no_score_can_come_from_are_refused_and_named)
{
    const struct {
        uint64_t at;
        size_t bytes;
        uint32_t value;
        const char *text;
    } faults[] = {
        {bottom.scale.offset + 4, 4, 0x7fc00000, "bottom_mlp[0].scale: the scale at byte 68 is nan"},
        {bottom.scale.offset, 4, 0xbf800000, "is -1; every scale must be finite and not negative"},
        {top[1].scale.offset, 4, 0x7f800000, "top_mlp[1].scale: the scale at byte"},
        {top[0].weight.offset + 2, 2, 0x7f80, "top_mlp[0].weight: the weight at byte"},
        {top[0].weight.offset, 2, 0xffc0, "is -nan; every weight must be finite"},
        {bottom.weight.offset + 1, 1, 0x80, "the weight at byte 1 is -128; an int8 weight is within -127..127"},
        {top[0].bias.offset, 4, 0xff800000, "top_mlp[0].bias: the weight at byte"},
    };
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        unsigned char was[4];
        memcpy(was, weights + faults[f].at, faults[f].bytes);
        memcpy(weights + faults[f].at, &faults[f].value, faults[f].bytes);
        expect_corrupt(faults[f].text);
        memcpy(weights + faults[f].at, was, faults[f].bytes);
    }
}

Test(quantised_package, a_scale_that_changes_the_scores_is_refused_by_the_golden_requests)
{
    float *scale = (float *)(weights + top[1].scale.offset);
    *scale *= 1.01f;
    expect_corrupt("golden request");
}

Test(quantised_package, kept_rows_that_do_not_add_up_are_refused)
{
    block.bits[0] ^= 1;
    expect_corrupt(KEPT_FILE);
    block.bits[0] ^= 1;
    block.before = 1;
    expect_corrupt(KEPT_FILE);
}

Test(quantised_package, damage_to_the_list_of_kept_rows_is_found_at_load_and_by_a_scrub)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_model_open(tiny.package, NULL, &model, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_OK, "%s", error.text);
    char path[160];
    snprintf(path, sizeof path, "%s/" KEPT_FILE, tiny.package);
    FILE *file = fopen(path, "r+");
    cr_assert_not_null(file);
    fseek(file, 8, SEEK_SET);
    fputc(0x0e, file); /* rows 1, 2 and 3 */
    fclose(file);
    cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, KEPT_FILE ": xxh3 is"), "'%s'", error.text);
    cr_assert(rk_model_damaged(model));
    rk_model_close(model);
    cr_assert_eq(open_package(&error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, KEPT_FILE ": xxh3 is"), "'%s'", error.text);
}
