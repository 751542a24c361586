/* The heap of waiting jobs against a sorted list. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "server/deadline_heap.h"
#include "tests/unit/random.h"

#define JOBS 200

static struct rk_job *top_of(const struct rk_deadline_heap *heap)
{
    const struct rk_heap_entry *top = rk_deadline_heap_top(heap);
    return top != NULL ? top->job : NULL;
}

/* The job that should be on top, found the slow way; NULL: none is in. */
static struct rk_job *first_of(struct rk_job *jobs, const uint64_t *orders)
{
    struct rk_job *first = NULL;
    for (int i = 0; i < JOBS; i++)
        if (jobs[i].place != 0 && (first == NULL || jobs[i].due_us < first->due_us ||
                                   (jobs[i].due_us == first->due_us && orders[i] < orders[first - jobs])))
            first = &jobs[i];
    return first;
}

Test(deadline_heap, the_earliest_deadline_is_on_top_whatever_comes_and_goes)
{
    struct random random = random_from_seed();
    struct rk_deadline_heap heap;
    static struct rk_job jobs[JOBS];
    uint64_t orders[JOBS], order = 0;
    cr_assert_eq(rk_deadline_heap_init(&heap, JOBS, NULL), RK_OK);
    for (int step = 0; step < 20000; step++) {
        const uint64_t i = random_below(&random, JOBS);
        if (jobs[i].place == 0) {
            static const uint64_t rare[] = {0, 1, UINT64_MAX - 1, UINT64_MAX};
            jobs[i].due_us =
                random_below(&random, 3) == 0 ? rare[random_below(&random, 4)] : random_below(&random, 20);
            orders[i] = order++;
            cr_assert(rk_deadline_heap_add(&heap, &jobs[i], orders[i]));
            cr_assert(jobs[i].place != 0);
        } else {
            rk_deadline_heap_remove(&heap, random_below(&random, 2) ? &jobs[i] : top_of(&heap));
        }
        struct rk_job *expected = first_of(jobs, orders);
        cr_assert_eq(top_of(&heap), expected, "step %d: job %td is on top, not %td", step, top_of(&heap) - jobs,
                     expected - jobs);
    }
    rk_deadline_heap_deinit(&heap);
}

Test(deadline_heap, it_takes_no_more_than_it_was_made_for)
{
    struct rk_deadline_heap heap;
    static struct rk_job jobs[3];
    cr_assert_eq(rk_deadline_heap_init(&heap, 2, NULL), RK_OK);
    cr_expect_null(top_of(&heap));
    cr_expect(rk_deadline_heap_add(&heap, &jobs[0], 0));
    cr_expect(rk_deadline_heap_add(&heap, &jobs[1], 1));
    cr_expect(!rk_deadline_heap_add(&heap, &jobs[2], 2));
    cr_expect_eq(jobs[2].place, 0);
    rk_deadline_heap_remove(&heap, &jobs[0]);
    cr_expect(rk_deadline_heap_add(&heap, &jobs[2], 3));
    cr_expect_eq(top_of(&heap), &jobs[1]);
    rk_deadline_heap_deinit(&heap);
}
