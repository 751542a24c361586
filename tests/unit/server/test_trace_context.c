/* traceparent: what is one, and what is not. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "server/trace_context.h"

#define TRACE  "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

Test(trace_context, a_valid_header_is_taken_apart)
{
    struct rk_trace_context context;
    cr_assert(rk_trace_context_parse("00-" TRACE "-" PARENT "-01", &context));
    cr_expect_str_eq(context.trace_id, TRACE);
    cr_expect_str_eq(context.parent_id, PARENT);
    cr_assert(context.sampled);
    cr_assert(rk_trace_context_parse("00-" TRACE "-" PARENT "-00", &context));
    cr_assert(!context.sampled);
    cr_assert(rk_trace_context_parse("00-" TRACE "-" PARENT "-fb", &context),
              "flags that nobody knows yet are let pass");
    cr_assert(context.sampled);
}

Test(trace_context, a_later_version_may_have_more_behind_it)
{
    struct rk_trace_context context;
    cr_assert(rk_trace_context_parse("01-" TRACE "-" PARENT "-01", &context));
    cr_assert(rk_trace_context_parse("01-" TRACE "-" PARENT "-01-what-comes", &context));
    cr_assert(!rk_trace_context_parse("01-" TRACE "-" PARENT "-01.what-comes", &context));
    cr_assert(!rk_trace_context_parse("00-" TRACE "-" PARENT "-01-what-comes", &context));
}

Test(trace_context, what_is_none_is_refused)
{
    static const char *const wrong[] = {
        "",
        "00",
        "ff-" TRACE "-" PARENT "-01",
        "0-" TRACE "-" PARENT "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-" TRACE "-" PARENT "-1",
        "00-" TRACE "-" PARENT "-0g",
        "00-" TRACE "-" PARENT,
        "00_" TRACE "_" PARENT "_01",
        " 00-" TRACE "-" PARENT "-01",
    };
    struct rk_trace_context context;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert(!rk_trace_context_parse(wrong[i], &context), "'%s' was taken for one", wrong[i]);
}

Test(trace_context, a_header_that_is_cut_anywhere_is_refused_and_not_read_past_its_end)
{
    const char whole[] = "00-" TRACE "-" PARENT "-01";
    struct rk_trace_context context;
    for (size_t length = 0; length + 1 < sizeof whole; length++) {
        char *cut = strndup(whole, length); /* an allocation of its own, so that a sanitizer sees its end */
        cr_assert(!rk_trace_context_parse(cut, &context), "%zu characters were enough", length);
        free(cut);
    }
}
