/* Every option is driven from the table, so a new one is tested by being listed. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/options.h"

static uint64_t number_of(const struct rk_options *options, const struct rk_option *option)
{
    return *(const uint64_t *)((const char *)options + option->offset);
}

static enum rk_status set_number(struct rk_options *options, const struct rk_option *option, uint64_t number)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%" PRIu64, number);
    return rk_option_set(options, option, text, (size_t)length, NULL);
}

Test(options, every_default_is_allowed_and_reads_back_as_it_is_written)
{
    struct rk_options options;
    rk_options_init(&options);
    size_t count;
    const struct rk_option *table = rk_options_table(&count);
    for (size_t i = 0; i < count; i++) {
        char text[RK_OPTION_TEXT_BYTES];
        rk_option_format(&options, &table[i], text, sizeof text);
        cr_expect_str_eq(text, table[i].initial, "%s is '%s', its default is '%s'", table[i].name, text,
                         table[i].initial);
        cr_expect(table[i].help[0] != '\0', "%s has no help", table[i].name);
    }
}

Test(options, every_number_takes_its_bounds_and_nothing_past_them)
{
    size_t count;
    const struct rk_option *table = rk_options_table(&count);
    for (size_t i = 0; i < count; i++) {
        const struct rk_option *option = &table[i];
        if (option->type != RK_OPTION_NUMBER)
            continue;
        struct rk_options options;
        rk_options_init(&options);
        cr_expect_eq(set_number(&options, option, option->least), RK_OK, "%s refuses %" PRIu64, option->name,
                     option->least);
        cr_expect_eq(number_of(&options, option), option->least);
        cr_expect_eq(set_number(&options, option, option->most), RK_OK, "%s refuses %" PRIu64, option->name,
                     option->most);
        cr_expect_eq(number_of(&options, option), option->most);
        cr_expect_eq(set_number(&options, option, option->most + 1), RK_INVALID, "%s takes %" PRIu64, option->name,
                     option->most + 1);
        if (option->least > 0)
            cr_expect_eq(set_number(&options, option, option->least - 1), RK_INVALID, "%s takes %" PRIu64, option->name,
                         option->least - 1);
        cr_expect_eq(number_of(&options, option), option->most, "%s was changed by a refused value", option->name);
    }
}

Test(options, wrong_values_of_every_number_are_refused_with_name_value_and_bounds)
{
    static const char *const wrong[] = {"",
                                        "many",
                                        "-1",
                                        "1.5",
                                        "0x10",
                                        "1e3",
                                        " 1",
                                        "1 ",
                                        "1_000",
                                        "99999999999999999999999",
                                        "18446744073709551616",
                                        "+1",
                                        "\xff\xfe"};
    size_t count;
    const struct rk_option *table = rk_options_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (table[i].type != RK_OPTION_NUMBER)
            continue;
        for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
            struct rk_options options;
            struct rk_error error = {0};
            char bound[32];
            rk_options_init(&options);
            cr_expect_eq(rk_option_set(&options, &table[i], wrong[w], strlen(wrong[w]), &error), RK_INVALID,
                         "%s takes '%s'", table[i].name, wrong[w]);
            snprintf(bound, sizeof bound, "to %" PRIu64, table[i].most);
            cr_expect(strstr(error.text, table[i].name) != NULL && strstr(error.text, bound) != NULL &&
                          strstr(error.text, wrong[w]) != NULL,
                      "the error for %s = '%s' reads: %s", table[i].name, wrong[w], error.text);
        }
    }
}

Test(options, every_choice_is_taken_and_another_word_names_them_all)
{
    size_t count;
    const struct rk_option *table = rk_options_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (table[i].type != RK_OPTION_CHOICE)
            continue;
        struct rk_options options;
        struct rk_error error = {0};
        rk_options_init(&options);
        cr_expect_eq(rk_option_set(&options, &table[i], "loud", 4, &error), RK_INVALID);
        for (size_t c = 0; table[i].choices[c] != NULL; c++) {
            cr_expect_eq(rk_option_set(&options, &table[i], table[i].choices[c], strlen(table[i].choices[c]), NULL),
                         RK_OK);
            cr_expect_eq(number_of(&options, &table[i]), c);
            cr_expect(strstr(error.text, table[i].choices[c]) != NULL, "'%s' misses %s", error.text,
                      table[i].choices[c]);
        }
    }
}

Test(options, text_that_is_too_long_or_holds_a_nul_is_refused)
{
    struct rk_options options;
    char text[RK_OPTION_TEXT_BYTES];
    memset(text, 'x', sizeof text);
    rk_options_init(&options);
    const struct rk_option *option = rk_option_find("listen", 6);
    cr_expect_eq(rk_option_set(&options, option, text, sizeof text - 1, NULL), RK_OK);
    cr_expect_eq(rk_option_set(&options, option, text, sizeof text, NULL), RK_INVALID);
    cr_expect_eq(rk_option_set(&options, option, "a\0b", 3, NULL), RK_INVALID);
}

Test(options, names_are_found_with_dashes_and_near_misses_are_suggested)
{
    cr_expect_eq(rk_option_find("max-batch", 9), rk_option_find("max_batch", 9));
    cr_expect_not_null(rk_option_find("max_batch", 9));
    cr_expect_null(rk_option_find("max_batc", 8));
    cr_expect_null(rk_option_find("max_batchs", 10));
    cr_expect_str_eq(rk_option_suggest("worker", 6), "did you mean 'workers'?");
    cr_expect_str_eq(rk_option_suggest("max-bacth", 9), "did you mean 'max_batch'?");
    cr_expect_str_eq(rk_option_suggest("zebra", 5), "");
}
