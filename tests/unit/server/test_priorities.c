/* Reading the classes, and finding them. */
#include <criterion/criterion.h>
#include <string.h>

#include "server/priorities.h"

Test(priorities, classes_are_read_in_order_with_their_weights)
{
    struct rk_priorities priorities;
    cr_assert_eq(rk_priorities_parse("interactive=8,batch=1,night-2=1000", &priorities, NULL), RK_OK);
    cr_assert_eq(priorities.count, 3);
    cr_expect_str_eq(priorities.classes[0].name, "interactive");
    cr_expect_eq(priorities.classes[0].weight, 8);
    cr_expect_str_eq(priorities.classes[2].name, "night-2");
    cr_expect_eq(priorities.classes[2].weight, 1000);
}

Test(priorities, a_name_is_found_and_none_is_the_first)
{
    struct rk_priorities priorities;
    struct rk_error error = {0};
    uint32_t index = 77;
    cr_assert_eq(rk_priorities_parse("interactive=8,batch=1", &priorities, NULL), RK_OK);
    cr_expect_eq(rk_priorities_find(&priorities, "batch", &index, NULL), RK_OK);
    cr_expect_eq(index, 1);
    cr_expect_eq(rk_priorities_find(&priorities, "", &index, NULL), RK_OK);
    cr_expect_eq(index, 0);
    cr_expect_eq(rk_priorities_find(&priorities, "Batch", &index, &error), RK_INVALID);
    cr_expect_str_eq(error.text, "priority is 'Batch'; this server has: interactive, batch");
}

Test(priorities, everything_else_is_refused_and_the_value_named)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "''"},
        {"interactive", "'interactive' is no class"},
        {"=1", "'=1' is no class"},
        {"a=1,", "'' is no class"},
        {",a=1", "'' is no class"},
        {"a=1,,b=1", "'' is no class"},
        {"a b=1", "'a b=1' is no class"},
        {"a=0", "weight of 'a'"},
        {"a=1001", "from 1 to 1000"},
        {"a=99999999999999999999", "weight of 'a'"},
        {"a=", "weight of 'a'"},
        {"a=-1", "weight of 'a'"},
        {"a=1.5", "weight of 'a'"},
        {"a=1=2", "weight of 'a'"},
        {"a=1,b=2,a=3", "'a' stands there twice"},
        {"a23456789012345678901234567890123=1", "is no class"},
        {"a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1", "at most 8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_priorities priorities;
        struct rk_error error = {0};
        cr_expect_eq(rk_priorities_parse(cases[i].text, &priorities, &error), RK_INVALID, "'%s'", cases[i].text);
        cr_expect(strstr(error.text, cases[i].words) != NULL, "'%s': %s", cases[i].text, error.text);
    }
}
