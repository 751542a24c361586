/* Takes Criterion's place: under the thread sanitizer, whose memory layout Criterion's sandbox does not survive, and
 * for tests/conformance. The few macros that these tests use mean the same here; each test runs in a process of its
 * own; see runner.c. */
#ifndef RANKD_TESTS_UNIT_PLAIN_CRITERION_H
#define RANKD_TESTS_UNIT_PLAIN_CRITERION_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

struct plain_options {
    void (*init)(void), (*fini)(void);
    double timeout; /* seconds; 0: the default */
};

struct plain_test { /* a suite when function is NULL */
    const char *suite, *name;
    void (*function)(void);
    struct plain_options options;
    struct plain_test *next;
};

void plain_add(struct plain_test *test);
void plain_check(bool ok, bool fatal, const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* Ends the test, which then counts neither as passed nor as failed. */
_Noreturn void plain_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define PLAIN_ADD(id, suite_, name_, function_, ...)                                                                   \
    __attribute__((constructor)) static void id##_add(void)                                                            \
    {                                                                                                                  \
        static struct plain_test test = {.suite = suite_,                                                              \
                                         .name = name_,                                                                \
                                         .function = function_,                                                        \
                                         .options = {__VA_ARGS__}};                                                    \
        plain_add(&test);                                                                                              \
    }

#define Test(suite, name, ...)                                                                                         \
    static void suite##_##name##_test(void);                                                                           \
    PLAIN_ADD(suite##_##name, #suite, #name, suite##_##name##_test, __VA_ARGS__)                                       \
    static void suite##_##name##_test(void)

#define TestSuite(suite, ...)                                                                                          \
    PLAIN_ADD(suite##_suite, #suite, NULL, NULL, __VA_ARGS__)                                                          \
    struct plain_test

/* A message is a literal format and its arguments, or nothing. */
#define PLAIN_CHECK(ok, fatal, what, ...) plain_check(ok, fatal, __FILE__, __LINE__, what, " " __VA_ARGS__)

#define cr_assert(condition, ...)  PLAIN_CHECK((condition), true, #condition, __VA_ARGS__)
#define cr_assert_eq(a, b, ...)    PLAIN_CHECK((a) == (b), true, #a " == " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...)   PLAIN_CHECK((a) >= (b), true, #a " >= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...)    PLAIN_CHECK((a) > (b), true, #a " > " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...)   PLAIN_CHECK((a) <= (b), true, #a " <= " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...)    PLAIN_CHECK((a) < (b), true, #a " < " #b, __VA_ARGS__)
#define cr_assert_not_null(a, ...) PLAIN_CHECK((a) != NULL, true, #a " is not NULL", __VA_ARGS__)
#define cr_expect(condition, ...)  PLAIN_CHECK((condition), false, #condition, __VA_ARGS__)
#define cr_expect_eq(a, b, ...)    PLAIN_CHECK((a) == (b), false, #a " == " #b, __VA_ARGS__)
#define cr_expect_float_eq(a, b, epsilon, ...)                                                                         \
    PLAIN_CHECK(fabs((double)((a) - (b))) <= (epsilon), false, #a " == " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...)     PLAIN_CHECK((a) > (b), false, #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...)    PLAIN_CHECK((a) >= (b), false, #a " >= " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...)     PLAIN_CHECK((a) < (b), false, #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...)    PLAIN_CHECK((a) <= (b), false, #a " <= " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...)    PLAIN_CHECK((a) != (b), false, #a " != " #b, __VA_ARGS__)
#define cr_expect_null(a, ...)      PLAIN_CHECK((a) == NULL, false, #a " is NULL", __VA_ARGS__)
#define cr_expect_not_null(a, ...)  PLAIN_CHECK((a) != NULL, false, #a " is not NULL", __VA_ARGS__)
#define cr_skip                     plain_skip
#define cr_expect_str_eq(a, b, ...) PLAIN_CHECK(strcmp(a, b) == 0, false, #a " equals " #b, __VA_ARGS__)

#endif
