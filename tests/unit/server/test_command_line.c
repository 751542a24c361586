/* The command line over the configuration file: what is taken, what is refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/command_line.h"

#define ARGUMENTS(...) ((char *const[]){"rankd", __VA_ARGS__, NULL})

static enum rk_status parse(char *const *arguments, struct rk_command_line *line, struct rk_error *error)
{
    int count = 0;
    while (arguments[count] != NULL)
        count++;
    *error = (struct rk_error){0};
    return rk_command_line_parse(count, arguments, line, error);
}

Test(command_line, flags_are_taken_with_a_space_or_an_equals_sign)
{
    struct rk_command_line line;
    struct rk_error error;
    cr_assert_eq(parse(ARGUMENTS("--model-repository", "/m", "--workers=3", "--check"), &line, &error), RK_OK, "%s",
                 error.text);
    cr_expect_str_eq(line.options.model_repository, "/m");
    cr_expect_eq(line.options.workers, 3);
    cr_expect(line.check);
}

Test(command_line, flags_override_the_file_wherever_they_stand)
{
    char path[] = "/tmp/rankd-flags-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "model_repository: /file\nworkers: 5\nmax_batch: 9\n";
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    close(fd);
    struct rk_command_line line;
    struct rk_error error;
    cr_assert_eq(parse(ARGUMENTS("--workers", "2", "--config", path), &line, &error), RK_OK, "%s", error.text);
    unlink(path);
    cr_expect_str_eq(line.options.model_repository, "/file");
    cr_expect_eq(line.options.workers, 2);
    cr_expect_eq(line.options.max_batch, 9);
}

Test(command_line, wrong_flags_are_refused_with_a_reason)
{
    static const struct {
        char *const arguments[6];
        const char *reason;
    } cases[] = {
        {{"rankd"}, "model_repository is not set"},
        {{"rankd", "--worker", "2"}, "did you mean 'workers'?"},
        {{"rankd", "--workers"}, "--workers needs a value"},
        {{"rankd", "--workers", "x"}, "whole number from 0 to 512"},
        {{"rankd", "--workers="}, "whole number from 0 to 512"},
        {{"rankd", "--check=yes"}, "--check takes no value"},
        {{"rankd", "models"}, "'models' is not a flag"},
        {{"rankd", "--"}, "is not a flag"},
        {{"rankd", "-x"}, "is not a flag"},
        {{"rankd", "--=3"}, "there is no flag"},
        {{"rankd", "--config", "/nowhere/x.yaml"}, "/nowhere/x.yaml"},
        {{"rankd", "--config", "a", "--config", "b"}, "given twice"},
        {{"rankd", "--model-repository", "/m", "--listen", "here"}, "HOST:PORT"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_command_line line;
        struct rk_error error;
        cr_expect_neq(parse(cases[i].arguments, &line, &error), RK_OK, "case %zu is taken", i);
        cr_expect(strstr(error.text, cases[i].reason) != NULL, "case %zu: '%s' does not say '%s'", i, error.text,
                  cases[i].reason);
    }
}

Test(command_line, help_and_version_need_nothing_else)
{
    struct rk_command_line line;
    struct rk_error error;
    cr_expect_eq(parse(ARGUMENTS("--help"), &line, &error), RK_OK);
    cr_expect(line.help);
    cr_expect_eq(parse(ARGUMENTS("-h"), &line, &error), RK_OK);
    cr_expect(line.help);
    cr_expect_eq(parse(ARGUMENTS("--version"), &line, &error), RK_OK);
    cr_expect(line.version);
}
