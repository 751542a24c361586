/* Pinning, within the mask that the test itself runs under. */
#include <criterion/criterion.h>
#include <sched.h>

#include "server/processors.h"

static void *where(void *mask)
{
    cr_expect_eq(sched_getaffinity(0, sizeof(cpu_set_t), mask), 0);
    return NULL;
}

Test(processors, a_pinned_thread_runs_on_its_processor_of_the_mask_alone)
{
    cpu_set_t own;
    cr_assert_eq(sched_getaffinity(0, sizeof own, &own), 0);
    const uint32_t count = rk_processors_count();
    cr_expect_eq(count, (uint32_t)CPU_COUNT(&own), "%u", count);
    for (uint32_t i = 0; i < 2 * count; i++) {
        pthread_attr_t attributes;
        pthread_t thread;
        uint32_t processor = UINT32_MAX;
        cpu_set_t mask;
        pthread_attr_init(&attributes);
        cr_assert_eq(rk_processors_pin(&attributes, i, &processor, NULL), RK_OK);
        cr_assert_eq(pthread_create(&thread, &attributes, where, &mask), 0);
        pthread_join(thread, NULL);
        cr_expect(CPU_ISSET(processor, &own), "processor %u is not of the mask", processor);
        cr_expect(CPU_COUNT(&mask) == 1 && CPU_ISSET(processor, &mask), "worker %u", i);
        int before = 0; /* it is number i of the mask, round and round */
        for (uint32_t p = 0; p < processor; p++)
            before += CPU_ISSET(p, &own) != 0;
        cr_expect_eq(before, (int)(i % count));
        pthread_attr_destroy(&attributes);
    }
}

Test(processors, a_smaller_mask_is_respected)
{
    cpu_set_t own, one;
    uint32_t last = 0, processor = UINT32_MAX;
    pthread_attr_t attributes;
    cr_assert_eq(sched_getaffinity(0, sizeof own, &own), 0);
    for (uint32_t p = 0; p < CPU_SETSIZE; p++)
        if (CPU_ISSET(p, &own))
            last = p;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_expect_eq(rk_processors_count(), 1);
    pthread_attr_init(&attributes);
    cr_expect_eq(rk_processors_pin(&attributes, 5, &processor, NULL), RK_OK);
    cr_expect_eq(processor, last);
    pthread_attr_destroy(&attributes);
}
