/* Lists of scores: what they hold, and which two of them are about the same. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/score_list.h"
#include "tests/unit/random.h"

/* A file with this text, removed by close_file(). */
static char path[64];
static void make_file(const char *text)
{
    snprintf(path, sizeof path, "/tmp/rankd-scores-%d.jsonl", (int)getpid());
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static enum rk_status read_text(struct rk_score_list *list, uint32_t num_heads, const char *text,
                                struct rk_error *error)
{
    rk_score_list_init(list, num_heads);
    make_file(text);
    enum rk_status status = rk_score_list_read(list, path, error);
    unlink(path);
    return status;
}

Test(score_list, holds_what_was_added)
{
    struct random random = random_from_seed();
    struct rk_score_list list;
    double sum = 0, found = 0;
    size_t candidates = 0;
    rk_score_list_init(&list, 3);
    for (int r = 0; r < 500; r++) {
        double logits[30];
        const uint32_t count = (uint32_t)random_between(&random, 1, 10);
        for (uint32_t i = 0; i < 3 * count; i++) {
            logits[i] = (double)random_float(&random);
            sum += logits[i] * (double)(3 * candidates + i);
        }
        char id[16];
        snprintf(id, sizeof id, "r%d", r);
        cr_assert_eq(rk_score_list_add(&list, id, count, logits, logits, NULL), RK_OK);
        candidates += count;
        cr_assert_eq(list.first[r + 1], candidates);
    }
    cr_expect_eq(list.num_requests, 500);
    cr_expect_str_eq(list.ids[499], "r499");
    cr_expect(list.labelled);
    for (size_t i = 0; i < 3 * candidates; i++) {
        found += list.logits[i] * (double)i;
        cr_assert_eq(list.labels[i], list.logits[i] > 0.5);
    }
    cr_expect_float_eq(found, sum, 1e-9);
    rk_score_list_deinit(&list);
}

Test(score_list, one_request_without_labels_leaves_the_list_without)
{
    struct rk_score_list list;
    struct rk_error error = {0};
    cr_expect_eq(read_text(&list, 1,
                           "{\"id\": \"a\", \"logits\": [[1]], \"labels\": [[1]]}\n"
                           "{\"id\": \"b\", \"logits\": [[1]]}\n",
                           &error),
                 RK_OK, "%s", error.text);
    cr_expect_eq(list.num_requests, 2);
    cr_expect_not(list.labelled);
    rk_score_list_deinit(&list);
}

Test(score_list, bad_lines_are_errors_with_file_and_line)
{
    static const char *const texts[] = {
        "{\"id\": \"a\", \"logits\": [[1, 2]]}\n",                      /* two heads */
        "{\"id\": \"a\", \"logits\": [[1e999]]}\n",                     /* no number */
        "{\"id\": \"a\", \"logits\": [[1]], \"labels\": [[1], [0]]}\n", /* one label too many */
        "[]\n",
        "{",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct rk_score_list list;
        struct rk_error error = {0};
        cr_expect_neq(read_text(&list, 1, texts[i], &error), RK_OK, "%s", texts[i]);
        cr_expect_not_null(strstr(error.text, ".jsonl:1: "), "%s", error.text);
        rk_score_list_deinit(&list);
    }
}

Test(score_list, logits_that_are_not_finite_are_refused)
{
    struct rk_score_list list;
    struct rk_error error = {0};
    rk_score_list_init(&list, 2);
    cr_expect_eq(rk_score_list_add(&list, "a", 2, (const double[]){1, 2, 3, NAN}, NULL, &error), RK_CORRUPT);
    cr_expect_str_eq(error.text, "request 'a', candidate 1: logit 1 is nan, not finite");
    cr_expect_eq(list.num_requests, 0);
    rk_score_list_deinit(&list);
}

Test(score_list, lists_match_when_they_are_about_the_same_candidates)
{
    const double logits[4] = {1, 2, 3, 4};
    static const struct {
        const char *id;
        uint32_t heads, first, more;
        bool match;
    } others[] = {{"a", 1, 2, 1, true},  {"b", 1, 2, 1, false}, {"a", 1, 3, 1, false},
                  {"a", 1, 2, 0, false}, {"a", 2, 2, 1, false}, {"a", 1, 2, 2, false}};
    struct rk_score_list list;
    rk_score_list_init(&list, 1);
    cr_assert_eq(rk_score_list_add(&list, "a", 2, logits, NULL, NULL), RK_OK);
    cr_assert_eq(rk_score_list_add(&list, "c", 1, logits, NULL, NULL), RK_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct rk_score_list other;
        struct rk_error error = {0};
        rk_score_list_init(&other, others[i].heads);
        cr_assert_eq(rk_score_list_add(&other, others[i].id, others[i].heads == 1 ? others[i].first : 2, logits, NULL,
                                       NULL),
                     RK_OK);
        for (uint32_t m = 0; m < others[i].more; m++)
            cr_assert_eq(rk_score_list_add(&other, "c", 1, logits, NULL, NULL), RK_OK);
        const enum rk_status status = rk_score_list_match(&list, "one", &other, "other", &error);
        cr_expect_eq(status, others[i].match ? RK_OK : RK_INVALID, "case %zu: %s", i, error.text);
        rk_score_list_deinit(&other);
    }
    rk_score_list_deinit(&list);
}
