/* What a repository may look like without a single good package; good ones are served in the integration tests. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/registry.h"

static struct rk_compute compute;
static const struct rk_row_options mapped_rows;
static char repository[] = "/tmp/rankd-registry-XXXXXX";

static void make(void)
{
    cr_assert_not_null(mkdtemp(repository));
    cr_assert_eq(rk_compute_open("cpu", "", "", &compute, NULL), RK_OK);
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", repository);
    cr_expect_eq(system(command), 0);
}

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", repository, name);
    return path;
}

static void make_directory(const char *name)
{
    cr_assert_eq(mkdir(path_of(name), 0755), 0, "%s", name);
}

static void make_file(const char *name, const char *text)
{
    FILE *file = fopen(path_of(name), "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

/* Opens the repository, which must not be servable, and expects one problem with these words. */
static void expect_problem(const char *first, const char *second)
{
    struct rk_registry registry;
    struct rk_error error = {0};
    cr_expect_eq(rk_registry_open(repository, &compute, &mapped_rows, &registry, &error), RK_NOT_FOUND, "%s",
                 error.text);
    cr_expect(strstr(error.text, repository) != NULL && strstr(error.text, "rankpack import") != NULL, "%s",
              error.text);
    bool found = false;
    for (size_t i = 0; i < registry.num_problems; i++)
        found = found || (strstr(registry.problems[i], first) != NULL && strstr(registry.problems[i], second) != NULL);
    cr_expect(found, "no problem names '%s' and '%s' among %zu; the first: %s", first, second, registry.num_problems,
              registry.num_problems > 0 ? registry.problems[0] : "none");
    rk_registry_close(&registry);
}

TestSuite(registry, .init = make, .fini = clean);

Test(registry, a_repository_that_is_not_there_is_named)
{
    struct rk_registry registry;
    struct rk_error error = {0};
    cr_expect_eq(rk_registry_open("/nowhere/models", &compute, &mapped_rows, &registry, &error), RK_NOT_FOUND);
    cr_expect(strstr(error.text, "/nowhere/models") != NULL, "%s", error.text);
    rk_registry_close(&registry);
}

Test(registry, an_empty_repository_or_one_with_hidden_names_only_serves_nothing)
{
    struct rk_registry registry;
    struct rk_error error = {0};
    make_directory(".partial");
    make_directory(".partial/1");
    cr_expect_eq(rk_registry_open(repository, &compute, &mapped_rows, &registry, &error), RK_NOT_FOUND);
    cr_expect_eq(registry.num_problems, 0);
    rk_registry_close(&registry);
}

Test(registry, a_model_without_a_version_is_a_problem)
{
    make_directory("ads");
    expect_problem("/ads", "holds no version");
}

Test(registry, names_that_are_no_versions_are_problems)
{
    static const char *const names[] = {"0", "01", "1a", "latest", "-1", "+1", "9223372036854775808", "1.0"};
    make_directory("ads");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64], told[80];
        snprintf(path, sizeof path, "ads/%s", names[i]);
        snprintf(told, sizeof told, "/ads/%s is", names[i]);
        make_directory(path);
        expect_problem(told, "is not a version");
    }
}

Test(registry, symbolic_links_are_refused_for_models_and_versions)
{
    make_directory("ads");
    make_directory("ads/1");
    cr_assert_eq(symlink("ads", path_of("linked")), 0);
    cr_assert_eq(symlink("1", path_of("ads/2")), 0);
    expect_problem("/linked", "symbolic link");
    expect_problem("/ads/2", "symbolic link");
}

Test(registry, files_where_directories_belong_are_problems)
{
    make_file("readme.txt", "hello");
    make_directory("ads");
    make_file("ads/1", "hello");
    expect_problem("/readme.txt", "not a directory");
    expect_problem("/ads/1", "not a directory");
}

Test(registry, an_empty_package_is_a_problem_that_names_it)
{
    make_directory("ads");
    make_directory("ads/7");
    expect_problem("model ads version 7", "is not served");
}

Test(registry, a_name_that_cannot_travel_in_a_message_is_refused)
{
    make_directory("bad\xff");
    make_directory("bad\xff/1");
    expect_problem("/bad", "UTF-8");
}

Test(registry, nothing_is_found_in_an_empty_registry)
{
    struct rk_registry registry = {0};
    char text[8];
    cr_expect_null(rk_registry_find(&registry, "ads"));
    rk_registry_list(&registry, text, sizeof text);
    cr_expect_str_eq(text, "");
}
