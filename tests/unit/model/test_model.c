/* Opening a package: the slightest damage anywhere is found, and named. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "model/manifest.h"
#include "model/model.h"
#include "model/package.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/random.h"

static struct tiny tiny;
static char names[32][80]; /* of the package's files */
static size_t num_names;

static void setup(void)
{
    tiny_create(&tiny);
    tiny_import_fine(&tiny);
    DIR *dir = opendir(tiny.package);
    cr_assert_not_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            snprintf(names[num_names++], sizeof names[0], "package/%.64s", entry->d_name);
    closedir(dir);
    cr_assert_eq(num_names, 10, "5 shards, weights, two golden files, manifest and sidecar: %zu", num_names);
}

static void teardown(void)
{
    tiny_destroy(&tiny);
}

TestSuite(model, .init = setup, .fini = teardown, .timeout = 300);

static enum rk_status open_package(struct rk_error *error)
{
    struct rk_model *model = NULL;
    *error = (struct rk_error){0};
    enum rk_status status = rk_model_open(tiny.package, NULL, &model, error);
    rk_model_close(model);
    return status;
}

/* A file's name without "package/". */
static const char *base(const char *name)
{
    return strrchr(name, '/') + 1;
}

static void expect_fine(void)
{
    struct rk_error error;
    cr_assert_eq(open_package(&error), RK_OK, "%s", error.text);
}

static void expect_corrupt(const char *file, const char *what)
{
    struct rk_error error;
    enum rk_status status = open_package(&error);
    cr_assert_eq(status, RK_CORRUPT, "%s of %s: %s '%s'", what, file, rk_status_name(status), error.text);
    const char *named = strcmp(base(file), RK_PACKAGE_SIDECAR) == 0 ? RK_PACKAGE_MANIFEST : base(file);
    cr_assert(strstr(error.text, named) != NULL || strstr(error.text, base(file)) != NULL,
              "%s of %s: '%s' does not name it", what, file, error.text);
}

Test(model, one_bit_flipped_anywhere_is_found)
{
    struct random random = random_from_seed();
    for (size_t i = 0; i < num_names; i++) {
        size_t bytes;
        unsigned char *data = tiny_read(&tiny, names[i], &bytes);
        /* All bits of small files, a sample of larger ones. */
        bool all = bytes <= 256;
        size_t flips = all ? 8 * bytes : 400;
        for (size_t f = 0; f < flips; f++) {
            size_t bit = all ? f : random_below(&random, 8 * bytes);
            data[bit / 8] ^= (unsigned char)(1u << bit % 8);
            tiny_write(&tiny, names[i], data, bytes);
            char what[48];
            snprintf(what, sizeof what, "bit %zu", bit);
            expect_corrupt(names[i], what);
            data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        tiny_write(&tiny, names[i], data, bytes);
        free(data);
    }
    expect_fine();
}

Test(model, a_file_cut_or_grown_is_found)
{
    for (size_t i = 0; i < num_names; i++) {
        size_t bytes;
        unsigned char *data = tiny_read(&tiny, names[i], &bytes);
        size_t every = bytes > 300 ? bytes / 150 : 1;
        for (size_t length = 0; length < bytes; length += every) {
            tiny_write(&tiny, names[i], data, length);
            expect_corrupt(names[i], "a prefix");
        }
        data[bytes] = 0;
        tiny_write(&tiny, names[i], data, bytes + 1);
        expect_corrupt(names[i], "a byte more");
        tiny_write(&tiny, names[i], data, bytes);
        free(data);
    }
    expect_fine();
}

Test(model, a_missing_or_special_file_is_refused_without_waiting)
{
    for (size_t i = 0; i < num_names; i++) {
        char path[256], aside[256];
        snprintf(path, sizeof path, "%.64s/%.79s", tiny.path, names[i]);
        snprintf(aside, sizeof aside, "%s/aside", tiny.path);
        struct rk_error error;
        cr_assert_eq(rename(path, aside), 0);
        cr_expect_eq(open_package(&error), RK_NOT_FOUND, "without %s: %s '%s'", names[i], rk_status_name(error.status),
                     error.text);
        cr_expect_not_null(strstr(error.text, base(names[i])), "'%s'", error.text);
        cr_assert_eq(symlink(aside, path), 0);
        cr_expect_eq(open_package(&error), RK_CORRUPT, "a link for %s: '%s'", names[i], error.text);
        cr_assert_eq(unlink(path), 0);
        cr_assert_eq(mkfifo(path, 0600), 0);
        cr_expect_eq(open_package(&error), RK_CORRUPT, "a FIFO for %s: '%s'", names[i], error.text);
        cr_assert_eq(unlink(path), 0);
        cr_assert_eq(mkdir(path, 0700), 0);
        cr_expect_eq(open_package(&error), RK_CORRUPT, "a directory for %s: '%s'", names[i], error.text);
        cr_expect_not_null(strstr(error.text, base(names[i])), "'%s'", error.text);
        cr_assert_eq(rmdir(path), 0);
        cr_assert_eq(rename(aside, path), 0);
    }
    expect_fine();
}

Test(model, a_path_that_is_no_package_is_refused)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_model_open(tiny.config, NULL, &model, &error), RK_INVALID);
    cr_assert_not_null(strstr(error.text, "a model package is a directory"), "'%s'", error.text);
    error = (struct rk_error){0};
    cr_assert_eq(rk_model_open("/nonexistent/model", NULL, &model, &error), RK_NOT_FOUND);
    error = (struct rk_error){0};
    cr_assert_eq(rk_model_open(tiny.path, NULL, &model, &error), RK_NOT_FOUND);
    cr_assert_not_null(strstr(error.text, "manifest.json"), "'%s'", error.text);
}

/* Rewrites a file and all the checksums above it, so that only what follows can find the fault. */
static void replace_consistently(const char *file, const void *data, size_t bytes)
{
    char name[64], old[17], new[17];
    size_t length, old_bytes;
    snprintf(name, sizeof name, "package/%s", file);
    unsigned char *before = tiny_read(&tiny, name, &old_bytes);
    char *manifest = (char *)tiny_read(&tiny, "package/manifest.json", &length);
    manifest[length] = '\0';
    snprintf(old, sizeof old, "%016llx", (unsigned long long)XXH3_64bits(before, old_bytes));
    snprintf(new, sizeof new, "%016llx", (unsigned long long)XXH3_64bits(data, bytes));
    char *at = strstr(manifest, old);
    cr_assert_not_null(at, "the checksum of %s is not in the manifest", file);
    memcpy(at, new, 16);
    cr_assert_eq(bytes, old_bytes, "the size must stay");
    char sidecar[RK_SIDECAR_BYTES + 1];
    rk_manifest_sidecar(manifest, length, sidecar);
    tiny_write(&tiny, name, data, bytes);
    tiny_write(&tiny, "package/manifest.json", manifest, length);
    tiny_write(&tiny, "package/manifest.xxh3", sidecar, RK_SIDECAR_BYTES);
    free(before);
    free(manifest);
}

Test(model, weights_that_are_not_numbers_are_refused_even_with_right_checksums)
{
    size_t bytes;
    unsigned char *weights = tiny_read(&tiny, "package/towers.weights", &bytes);
    const uint32_t nan = 0x7fc00000;
    memcpy(weights, &nan, sizeof nan);
    replace_consistently(RK_PACKAGE_WEIGHTS, weights, bytes);
    struct rk_error error;
    cr_assert_eq(open_package(&error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, "the weight at byte 0 is nan"), "'%s'", error.text);
    free(weights);
}

Test(model, rows_that_change_the_golden_scores_are_refused_even_with_right_checksums)
{
    size_t bytes, refused = 0;
    const char *shards[] = {"table-000.shard-0000.rows", "table-000.shard-0001.rows", "table-000.shard-0002.rows"};
    for (size_t i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "package/%s", shards[i]);
        float *rows = (float *)tiny_read(&tiny, name, &bytes);
        for (size_t k = 0; k < bytes / sizeof *rows; k++)
            rows[k] = rows[k] * 5 + 7;
        replace_consistently(shards[i], rows, bytes);
        free(rows);
    }
    struct rk_error error;
    refused += open_package(&error) == RK_CORRUPT;
    cr_assert_eq(refused, 1, "the golden requests read none of the rows?");
    cr_assert_not_null(strstr(error.text, "golden request"), "'%s'", error.text);
}

Test(model, a_scrub_finds_what_was_overwritten_in_place)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_model_open(tiny.package, NULL, &model, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_OK, "%s", error.text);
    cr_assert_not(rk_model_damaged(model));
    char path[160];
    snprintf(path, sizeof path, "%s/table-001.shard-0001.rows", tiny.package);
    FILE *file = fopen(path, "r+");
    cr_assert_not_null(file);
    fputc(0x55, file);
    fclose(file);
    cr_assert_eq(rk_model_scrub(model, NULL, NULL, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, "table-001.shard-0001.rows"), "'%s'", error.text);
    cr_assert(rk_model_damaged(model));
    rk_model_close(model);
}

static bool stop_scrub(void *context, uint64_t bytes)
{
    (void)context;
    (void)bytes;
    return false;
}

Test(model, a_scrub_stops_when_told)
{
    struct rk_model *model = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_model_open(tiny.package, NULL, &model, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_model_scrub(model, stop_scrub, NULL, &error), RK_CANCELLED);
    cr_assert_not(rk_model_damaged(model));
    rk_model_close(model);
}
