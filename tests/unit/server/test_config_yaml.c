/* Good files set options; broken ones are refused at the right line and column, and change nothing. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/config_yaml.h"

static enum rk_status parse(const char *text, size_t length, struct rk_options *options, struct rk_error *error)
{
    *error = (struct rk_error){0};
    rk_options_init(options);
    return rk_config_parse("rankd.yaml", text, length, options, error);
}

Test(config_yaml, a_file_sets_what_it_names_and_leaves_the_rest)
{
    static const char text[] = "# a comment\n"
                               "model_repository: /srv/models\n"
                               "listen: \"[::1]:0\"\n"
                               "workers: 7   # as many\n"
                               "log_level: warn\n";
    struct rk_options options, defaults;
    struct rk_error error;
    rk_options_init(&defaults);
    cr_assert_eq(parse(text, sizeof text - 1, &options, &error), RK_OK, "%s", error.text);
    cr_expect_str_eq(options.model_repository, "/srv/models");
    cr_expect_str_eq(options.listen, "[::1]:0");
    cr_expect_eq(options.workers, 7);
    cr_expect_eq(options.log_level, 2);
    cr_expect_eq(options.max_batch, defaults.max_batch);
}

Test(config_yaml, empty_files_and_comments_alone_keep_the_defaults)
{
    static const char *const texts[] = {"", "\n\n", "# nothing\n", "---\n{}\n", "{}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct rk_options options, defaults;
        struct rk_error error;
        rk_options_init(&defaults);
        cr_expect_eq(parse(texts[i], strlen(texts[i]), &options, &error), RK_OK, "'%s': %s", texts[i], error.text);
        cr_expect_eq(memcmp(&options, &defaults, sizeof options), 0);
    }
}

Test(config_yaml, every_option_can_be_set_by_its_key_and_its_wrong_value_is_refused_where_it_stands)
{
    size_t count;
    const struct rk_option *table = rk_options_table(&count);
    for (size_t i = 0; i < count; i++) {
        char text[256], expected[64];
        struct rk_options options;
        struct rk_error error;
        if (table[i].type == RK_OPTION_NUMBER)
            snprintf(text, sizeof text, "%s: %llu\n", table[i].name, (unsigned long long)table[i].most);
        else
            snprintf(text, sizeof text, "%s: \"%s\"\n", table[i].name,
                     table[i].type == RK_OPTION_CHOICE ? table[i].choices[0] : "text");
        cr_expect_eq(parse(text, strlen(text), &options, &error), RK_OK, "%s: %s", text, error.text);
        if (table[i].type == RK_OPTION_TEXT)
            continue;
        snprintf(text, sizeof text, "# first\n%s: wrong\n", table[i].name);
        snprintf(expected, sizeof expected, "rankd.yaml:2:%zu: %s", strlen(table[i].name) + 3, table[i].name);
        cr_expect_eq(parse(text, strlen(text), &options, &error), RK_INVALID, "%s is taken", text);
        cr_expect_eq(strncmp(error.text, expected, strlen(expected)), 0, "'%s' does not start with '%s'", error.text,
                     expected);
    }
}

Test(config_yaml, broken_files_are_refused_with_place_and_reason)
{
    static const struct {
        const char *text, *place, *reason;
    } cases[] = {
        {"worker: 2\n", ":1:1:", "did you mean 'workers'?"},
        {"workers: 2\nmax-batch: 3\n", ":2:1:", "there is no option 'max-batch'; did you mean 'max_batch'?"},
        {"zzz: 1\n", ":1:1:", "rankd --help lists them"},
        {"workers: many\n", ":1:10:", "whole number from 0 to 512"},
        {"workers: 513\n", ":1:10:", "whole number from 0 to 512"},
        {"workers: -1\n", ":1:10:", "whole number"},
        {"workers: 1.5\n", ":1:10:", "whole number"},
        {"workers: true\n", ":1:10:", "whole number"},
        {"workers: 0x10\n", ":1:10:", "whole number"},
        {"workers: \"2\"\n", ":1:10:", "quoted text"},
        {"workers: '2'\n", ":1:10:", "quoted text"},
        {"workers:\n", ":1:9:", "has no value"},
        {"workers: ~\n", ":1:10:", "has no value"},
        {"workers: null\n", ":1:10:", "has no value"},
        {"workers: 99999999999999999999999\n", ":1:10:", "whole number"},
        {"workers: 2\n\nworkers: 3\n", ":3:1:", "set twice, first on line 1"},
        {"workers: [2]\n", ":1:10:", "is a list"},
        {"workers:\n  - 2\n", ":2:3:", "is a list"},
        {"workers: {a: 1}\n", ":1:10:", "not nested"},
        {"server:\n  workers: 2\n", ":1:1:", "there is no option 'server'"},
        {"workers: &x 2\n", ":1:10:", "anchor"},
        {"workers: *x\n", ":1:10:", "alias"},
        {"*x : 2\n", ":1:1:", "alias"},
        {"&x workers: 2\n", ":1:1:", "anchor"},
        {"workers: !!str 2\n", ":1:10:", "tag"},
        {"&a\nworkers: 2\n", ":1:1:", "anchor"},
        {"- workers\n", ":1:1:", "mapping"},
        {"workers\n", ":1:1:", "mapping"},
        {"42\n", ":1:1:", "mapping"},
        {"[a]: 1\n", ":1:1:", "list"},
        {"? {a: b}\n: 1\n", ":1:3:", "mapping"},
        {"workers: 2\n---\nworkers: 3\n", ":2:1:", "second document"},
        {"workers: 2\n  max_batch: 3\n", ":1:10:", "workers is '2 max_batch'"},
        {"\tworkers: 2\n", ":1:1:", "option: value"},
        {"workers: 2\nlisten: \"open\n", ":3:1:", "quoted scalar"},
        {"workers: {\n", ":1:10:", "not nested"},
        {"log_level: loud\n", ":1:12:", "debug, info, warn, error"},
        {"log_level: 1\n", ":1:12:", "debug, info, warn, error"},
        {"workers: 2\nmax_batch: 0\n", ":2:12:", "from 1 to 65536"},
        {"workers: 2\n\xff\xfe\x01\n", ":2:1:", "UTF-8"},
        {"workers: 2\nlisten: a\x01z\n", ":2:10:", "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_options options, defaults;
        struct rk_error error;
        char place[64];
        rk_options_init(&defaults);
        snprintf(place, sizeof place, "rankd.yaml%s", cases[i].place);
        cr_expect_eq(parse(cases[i].text, strlen(cases[i].text), &options, &error), RK_INVALID, "taken: %s",
                     cases[i].text);
        cr_expect_eq(strncmp(error.text, place, strlen(place)), 0, "%s: '%s' does not start with '%s'", cases[i].text,
                     error.text, place);
        cr_expect(strstr(error.text, cases[i].reason) != NULL, "%s: '%s' does not say '%s'", cases[i].text, error.text,
                  cases[i].reason);
        cr_expect_eq(memcmp(&options, &defaults, sizeof options), 0, "%s: a refused file changed the options",
                     cases[i].text);
    }
}

Test(config_yaml, random_bytes_never_do_harm)
{
    const char *given = getenv("RANKD_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid();
    printf("seed %u\n", seed);
    static const char alphabet[] = "workers: 2\n\t-[]{}&*!|>'\"%@`#,?~max_batch\\\xc3\xa9\xff";
    for (int round = 0; round < 3000; round++) {
        char text[200];
        size_t length = (size_t)rand_r(&seed) % sizeof text;
        for (size_t i = 0; i < length; i++)
            text[i] = round % 2 ? alphabet[(size_t)rand_r(&seed) % (sizeof alphabet)] : (char)rand_r(&seed);
        struct rk_options options;
        struct rk_error error;
        enum rk_status status = parse(text, length, &options, &error);
        cr_assert((status == RK_OK) == (error.text[0] == '\0'), "status %d with the text '%s'", (int)status,
                  error.text);
    }
}

Test(config_yaml, what_is_not_a_file_is_refused_by_name)
{
    struct rk_options options;
    char directory[] = "/tmp/rankd-config-XXXXXX";
    char path[128];
    cr_assert_not_null(mkdtemp(directory));

    struct rk_error error = {0};
    cr_expect_eq(rk_config_read(directory, &options, &error), RK_INVALID);
    cr_expect(strstr(error.text, directory) != NULL && strstr(error.text, "a directory") != NULL, "%s", error.text);

    snprintf(path, sizeof path, "%s/missing", directory);
    error = (struct rk_error){0};
    cr_expect_eq(rk_config_read(path, &options, &error), RK_NOT_FOUND);
    cr_expect(strstr(error.text, path) != NULL, "%s", error.text);

    snprintf(path, sizeof path, "%s/fifo", directory);
    cr_assert_eq(mkfifo(path, 0600), 0);
    error = (struct rk_error){0};
    cr_expect_eq(rk_config_read(path, &options, &error), RK_INVALID);
    cr_expect(strstr(error.text, "not a regular file") != NULL, "%s", error.text);
    unlink(path);

    snprintf(path, sizeof path, "%s/huge", directory);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(ftruncate(fileno(file), (off_t)1 << 40), 0);
    fclose(file);
    error = (struct rk_error){0};
    cr_expect_eq(rk_config_read(path, &options, &error), RK_INVALID);
    cr_expect(strstr(error.text, "1099511627776 bytes") != NULL, "%s", error.text);
    unlink(path);
    rmdir(directory);
}

Test(config_yaml, the_sample_configuration_is_a_good_file)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    cr_assert_not_null(stream);
    rk_options_print_sample(stream);
    fclose(stream);
    struct rk_options options, defaults;
    struct rk_error error;
    rk_options_init(&defaults);
    cr_expect_eq(parse(text, length, &options, &error), RK_OK, "%s", error.text);
    cr_expect_eq(memcmp(&options, &defaults, sizeof options), 0);
    free(text);
}
