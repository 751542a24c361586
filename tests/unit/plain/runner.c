/* Runs the tests that plain/criterion/criterion.h collected before main(), one after the other, each in a child
 * process: a crash, a time limit or a sanitizer's report costs one test. Prints the counts in the form that deploy/test
 * reads from Criterion. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "criterion/criterion.h"

#define DEFAULT_TIMEOUT_S 120
#define SKIPPED           77 /* exit status; also of the program, when no test was run */

static struct plain_test *first;
static struct plain_test **last = &first;
static bool failed; /* of the running test, in its child; tests check on their main thread */

void plain_add(struct plain_test *test)
{
    *last = test;
    last = &test->next;
}

void plain_check(bool ok, bool fatal, const char *file, int line, const char *what, const char *format, ...)
{
    if (ok)
        return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: expected %s:", file, line, what);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    failed = true;
    if (fatal)
        exit(1);
}

void plain_skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "skipped: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(SKIPPED);
}

static const struct plain_options *suite_options(const char *suite)
{
    static const struct plain_options none;
    for (const struct plain_test *test = first; test != NULL; test = test->next)
        if (test->function == NULL && strcmp(test->suite, suite) == 0)
            return &test->options;
    return &none;
}

static void call(void (*function)(void))
{
    if (function != NULL)
        function();
}

static void run_child(const struct plain_test *test)
{
    const struct plain_options *suite = suite_options(test->suite);
    alarm(test->options.timeout > 0 ? (unsigned)test->options.timeout : DEFAULT_TIMEOUT_S);
    call(suite->init);
    call(test->options.init);
    test->function();
    call(test->options.fini);
    call(suite->fini);
    exit(failed ? 1 : 0);
}

int main(void)
{
    int tested = 0, passing = 0, crashing = 0, skipped = 0;
    for (const struct plain_test *test = first; test != NULL; test = test->next) {
        if (test->function == NULL)
            continue;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0)
            run_child(test);
        int status = -1;
        if (child < 0 || waitpid(child, &status, 0) < 0) {
            perror("cannot run a test");
            return 2;
        }
        tested++;
        passing += status == 0;
        crashing += WIFSIGNALED(status) != 0;
        const bool skip = WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED;
        skipped += skip;
        if (status != 0 && !skip)
            fprintf(stderr, "[FAIL] %s::%s: %s %d\n", test->suite, test->name,
                    WIFSIGNALED(status) ? "signal" : "exit status",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: %d\n", tested, passing,
            tested - passing - crashing - skipped, crashing);
    return skipped == tested ? SKIPPED : passing + skipped == tested ? 0 : 1;
}
