/* The package writer: a name appears with everything behind it, or not at all. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "model/package.h"
#include "tests/unit/model/tiny_model.h"

static struct tiny tiny;

static void setup(void)
{
    tiny_create(&tiny);
}

static void teardown(void)
{
    tiny_destroy(&tiny);
}

TestSuite(package, .init = setup, .fini = teardown, .timeout = 60);

static void write_file(struct rk_package_writer *writer, const char *name, const char *text)
{
    struct rk_error error = {0};
    uint64_t bytes, xxh3;
    cr_assert_eq(rk_package_open_file(writer, name, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_package_write(writer, text, 2, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_package_write(writer, text + 2, strlen(text) - 2, &error), RK_OK, "%s", error.text);
    cr_assert_eq(rk_package_close_file(writer, &bytes, &xxh3, &error), RK_OK, "%s", error.text);
    cr_assert_eq(bytes, strlen(text));
    cr_assert_eq(xxh3, XXH3_64bits(text, strlen(text)), "the checksum is that of the whole file");
}

Test(package, nothing_has_the_name_before_commit)
{
    struct rk_error error = {0};
    struct rk_package_writer *writer;
    cr_assert_eq(rk_package_begin(tiny.package, &writer, &error), RK_OK, "%s", error.text);
    write_file(writer, "f", "hello");
    cr_assert_neq(access(tiny.package, F_OK), 0);
    cr_assert_eq(rk_package_commit(writer, &error), RK_OK, "%s", error.text);
    size_t bytes;
    unsigned char *data = tiny_read(&tiny, "package/f", &bytes);
    cr_assert_eq(bytes, 5);
    cr_assert_eq(memcmp(data, "hello", 5), 0);
    free(data);
    cr_assert_eq(tiny_count_entries(&tiny), 3, "the temporary name is gone");
}

Test(package, a_name_taken_meanwhile_is_left_alone)
{
    struct rk_error error = {0};
    struct rk_package_writer *writer;
    cr_assert_eq(rk_package_begin(tiny.package, &writer, &error), RK_OK, "%s", error.text);
    write_file(writer, "f", "hello");
    cr_assert_eq(mkdir(tiny.package, 0700), 0); /* empty: a plain rename would replace it */
    cr_assert_eq(rk_package_commit(writer, &error), RK_EXISTS, "%s", error.text);
    cr_assert_eq(tiny_count_entries(&tiny), 3);
    char path[128];
    snprintf(path, sizeof path, "%s/f", tiny.package);
    cr_assert_neq(access(path, F_OK), 0);
}

Test(package, abort_leaves_nothing_of_directories_and_files)
{
    struct rk_error error = {0};
    struct rk_package_writer *writer;
    char path[128];
    snprintf(path, sizeof path, "%s/new/deep/1///", tiny.path);
    cr_assert_eq(rk_package_begin(path, &writer, &error), RK_OK, "%s", error.text);
    write_file(writer, "f", "hello");
    cr_assert_eq(rk_package_open_file(writer, "g", &error), RK_OK);
    rk_package_abort(writer);
    cr_assert_eq(tiny_count_entries(&tiny), 2);
}

Test(package, names_that_cannot_be_versions_are_refused)
{
    const char *const names[] = {"", "/", ".", "..", "a/..", ".hidden", "a/.hidden/"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct rk_error error = {0};
        struct rk_package_writer *writer;
        cr_expect_eq(rk_package_begin(names[i], &writer, &error), RK_INVALID, "'%s'", names[i]);
    }
}

Test(package, a_parent_that_is_no_directory_is_named)
{
    struct rk_error error = {0};
    struct rk_package_writer *writer;
    char path[128];
    snprintf(path, sizeof path, "%s/1", tiny.config);
    cr_assert_eq(rk_package_begin(path, &writer, &error), RK_IO);
    cr_assert_not_null(strstr(error.text, "config.json"), "'%s'", error.text);
}

Test(package, a_full_disk_is_an_error_that_names_the_file)
{
    /* A file size limit fails writes as a full disk does. */
    struct rk_error error = {0};
    struct rk_package_writer *writer;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(rk_package_begin(tiny.package, &writer, &error), RK_OK, "%s", error.text);
    struct rlimit limit = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY}, old;
    getrlimit(RLIMIT_FSIZE, &old);
    limit.rlim_max = old.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    static const char data[4000];
    cr_assert_eq(rk_package_open_file(writer, "towers.weights", &error), RK_OK);
    enum rk_status status = rk_package_write(writer, data, sizeof data, &error);
    setrlimit(RLIMIT_FSIZE, &old);
    cr_assert_eq(status, RK_IO);
    cr_assert_not_null(strstr(error.text, "towers.weights"), "'%s'", error.text);
    rk_package_abort(writer);
    cr_assert_eq(tiny_count_entries(&tiny), 2);
}
