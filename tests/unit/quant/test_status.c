/* Error texts, status names and checked arithmetic. */
#include <criterion/criterion.h>
#include <string.h>

#include "quant/base/checked.h"
#include "quant/base/status.h"

Test(status, the_first_error_is_kept)
{
    struct rk_error error = {0};
    cr_assert_eq(rk_error_set(&error, RK_CORRUPT, "row %d", 7), RK_CORRUPT);
    cr_assert_eq(rk_error_set(&error, RK_IO, "cleanup failed"), RK_IO);
    cr_assert_eq(error.status, RK_CORRUPT);
    cr_assert_str_eq(error.text, "row 7");
    rk_error_clear(&error);
    rk_error_set(&error, RK_IO, "later");
    cr_assert_str_eq(error.text, "later");
}

Test(status, no_error_object_is_needed)
{
    cr_assert_eq(rk_error_set(NULL, RK_INVALID, "nobody reads this"), RK_INVALID);
    cr_assert_eq(rk_error_prefix(NULL, "nor this"), RK_OK);
}

Test(status, a_prefix_says_what_was_being_done)
{
    struct rk_error error = {0};
    cr_assert_eq(rk_error_prefix(&error, "opening"), RK_OK);
    cr_assert_str_eq(error.text, "");
    rk_error_set(&error, RK_NOT_FOUND, "no such file");
    cr_assert_eq(rk_error_prefix(&error, "opening '%s'", "a"), RK_NOT_FOUND);
    cr_assert_str_eq(error.text, "opening 'a': no such file");
}

Test(status, long_texts_are_cut_and_terminated)
{
    char longer[2 * sizeof((struct rk_error *)0)->text];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    struct rk_error error = {0};
    rk_error_set(&error, RK_INVALID, "%s", longer);
    cr_assert_eq(strlen(error.text), sizeof error.text - 1);
    rk_error_prefix(&error, "%s", longer);
    cr_assert_eq(strlen(error.text), sizeof error.text - 1);
}

Test(status, every_status_has_a_name_of_its_own)
{
    for (int a = 0; a < RK_STATUS_COUNT; a++) {
        cr_assert_not_null(rk_status_name((enum rk_status)a), "status %d", a);
        for (int b = 0; b < a; b++)
            cr_assert_str_neq(rk_status_name((enum rk_status)a), rk_status_name((enum rk_status)b), "%d and %d", a, b);
    }
    cr_assert_str_eq(rk_status_name((enum rk_status)99), "unknown");
    cr_assert_str_eq(rk_status_name((enum rk_status) - 1), "unknown");
}

Test(checked, results_that_do_not_fit_are_refused)
{
    uint64_t result;
    cr_assert(rk_checked_add(UINT64_MAX - 1, 1, &result) && result == UINT64_MAX);
    cr_assert_not(rk_checked_add(UINT64_MAX, 1, &result));
    cr_assert(rk_checked_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &result));
    cr_assert_not(rk_checked_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &result));
    cr_assert(rk_checked_align(65, 64, &result) && result == 128);
    cr_assert(rk_checked_align(64, 64, &result) && result == 64);
    cr_assert_not(rk_checked_align(UINT64_MAX - 3, 64, &result));
}
