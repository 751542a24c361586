/* "Did you mean". */
#include <criterion/criterion.h>
#include <string.h>

#include "model/nearest.h"

Test(nearest, edit_distances_are_those_of_the_textbook)
{
    cr_expect_eq(rk_edit_distance("kitten", "sitting"), 3);
    cr_expect_eq(rk_edit_distance("", "abc"), 3);
    cr_expect_eq(rk_edit_distance("abc", "abc"), 0);
    cr_expect_eq(rk_edit_distance("flaw", "lawn"), 2);
}

Test(nearest, the_best_come_first_and_strangers_not_at_all)
{
    static const char *const names[] = {"bottom_mlp", "top_mlp", "tables", "table", "xyz"};
    const char *nearest[3];
    cr_assert_eq(rk_nearest_names("tabl", names, 5, nearest, 3), 2);
    cr_assert_str_eq(nearest[0], "table");
    cr_assert_str_eq(nearest[1], "tables");
    cr_assert_eq(rk_nearest_names("qqqqqq", names, 5, nearest, 3), 0);
}

Test(nearest, a_hint_is_empty_when_nothing_is_alike)
{
    static const char *const names[] = {"rows"};
    char buffer[64];
    cr_assert_str_eq(rk_did_you_mean("row", names, 1, buffer, sizeof buffer), "; did you mean 'rows'?");
    cr_assert_str_eq(rk_did_you_mean("colour", names, 1, buffer, sizeof buffer), "");
}
