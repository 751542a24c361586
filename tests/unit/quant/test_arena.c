/* Arenas: alignment, limits, overflow, and that a reset keeps the memory. */
#include <criterion/criterion.h>
#include <string.h>

#include "quant/base/arena.h"

static struct rk_arena arena;

static void setup(void)
{
    rk_arena_init(&arena, 1024);
}

static void teardown(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(arena, .init = setup, .fini = teardown);

Test(arena, takes_no_memory_before_the_first_allocation)
{
    cr_assert_eq(arena.held_bytes, 0);
    cr_assert_not_null(rk_arena_alloc(&arena, 1));
    cr_assert_eq(arena.held_bytes, 1024);
}

Test(arena, allocations_are_aligned_and_apart)
{
    unsigned char *previous = NULL;
    for (size_t bytes = 1; bytes < 300; bytes += 7) {
        unsigned char *memory = rk_arena_alloc(&arena, bytes);
        cr_assert_not_null(memory);
        cr_assert_eq((uintptr_t)memory % 16, 0, "%p of %zu bytes", (void *)memory, bytes);
        memset(memory, (int)bytes, bytes);
        if (previous != NULL)
            cr_assert_eq(previous[0], (unsigned char)(bytes - 7), "the allocation of %zu bytes was overwritten",
                         bytes - 7);
        previous = memory;
    }
}

Test(arena, a_size_of_zero_gives_a_valid_pointer)
{
    cr_assert_not_null(rk_arena_alloc(&arena, 0));
    cr_assert_not_null(rk_arena_array(&arena, 0, 8));
}

Test(arena, going_back_to_a_mark_gives_everything_since_then_back)
{
    const struct rk_arena_mark empty = rk_arena_mark(&arena);
    for (int round = 0; round < 3; round++) {
        unsigned char *kept = rk_arena_alloc(&arena, 100);
        memset(kept, 7, 100);
        const struct rk_arena_mark mark = rk_arena_mark(&arena);
        const size_t used = arena.used_bytes;
        unsigned char *next = rk_arena_alloc(&arena, 10);
        for (int i = 0; i < 20; i++)
            memset(rk_arena_alloc(&arena, (size_t)i * 300), 9, (size_t)i * 300);
        const size_t held = arena.held_bytes;
        rk_arena_rewind(&arena, &mark);
        cr_assert_eq(arena.used_bytes, used, "%zu bytes are used, %zu were", arena.used_bytes, used);
        cr_assert_eq((void *)rk_arena_alloc(&arena, 10), (void *)next);
        for (int i = 0; i < 20; i++)
            memset(rk_arena_alloc(&arena, (size_t)i * 300), 9, (size_t)i * 300);
        cr_assert_eq(arena.held_bytes, held, "the same again took more from the system");
        for (int i = 0; i < 100; i++)
            cr_assert_eq(kept[i], 7, "byte %d from before the mark has changed", i);
        rk_arena_rewind(&arena, &empty);
        cr_assert_eq(arena.used_bytes, 0);
    }
}

Test(arena, an_allocation_larger_than_a_chunk_gets_its_own)
{
    unsigned char *memory = rk_arena_alloc(&arena, 100000);
    cr_assert_not_null(memory);
    memset(memory, 1, 100000);
    cr_assert_geq(arena.held_bytes, 100000);
}

Test(arena, a_reset_keeps_the_memory_and_a_warm_arena_takes_no_more)
{
    for (int i = 0; i < 40; i++)
        rk_arena_alloc(&arena, 100);
    rk_arena_alloc(&arena, 5000);
    const size_t held = arena.held_bytes;
    for (int round = 0; round < 3; round++) {
        rk_arena_reset(&arena, SIZE_MAX);
        cr_assert_eq(arena.used_bytes, 0);
        for (int i = 0; i < 40; i++)
            cr_assert_not_null(rk_arena_alloc(&arena, 100));
        cr_assert_not_null(rk_arena_alloc(&arena, 5000));
        cr_assert_eq(arena.held_bytes, held, "round %d: %zu bytes held, %zu before", round, arena.held_bytes, held);
    }
}

Test(arena, a_reset_gives_back_what_exceeds_the_bytes_to_keep)
{
    rk_arena_alloc(&arena, 1000);
    rk_arena_alloc(&arena, 100000);
    rk_arena_reset(&arena, 2048);
    cr_assert_eq(arena.held_bytes, 1024);
    rk_arena_reset(&arena, 0);
    cr_assert_eq(arena.held_bytes, 0);
    cr_assert_not_null(rk_arena_alloc(&arena, 10));
}

Test(arena, the_limit_refuses_and_a_reset_lifts_it)
{
    rk_arena_alloc(&arena, 64);
    rk_arena_limit(&arena, 32);
    cr_assert_null(rk_arena_alloc(&arena, 33));
    cr_assert_not_null(rk_arena_alloc(&arena, 32));
    cr_assert_null(rk_arena_alloc(&arena, 1));
    rk_arena_limit(&arena, 16);
    cr_assert_not_null(rk_arena_alloc(&arena, 1));
    rk_arena_reset(&arena, SIZE_MAX);
    cr_assert_not_null(rk_arena_alloc(&arena, 4096));
}

Test(arena, sizes_that_overflow_are_refused)
{
    cr_assert_null(rk_arena_alloc(&arena, SIZE_MAX));
    cr_assert_null(rk_arena_alloc(&arena, SIZE_MAX - 15));
    cr_assert_null(rk_arena_alloc(&arena, SIZE_MAX - 31));
    cr_assert_null(rk_arena_array(&arena, SIZE_MAX / 4, 8));
    cr_assert_null(rk_arena_array(&arena, (SIZE_MAX >> 1) + 2, 2));
    cr_assert_null(rk_arena_string(&arena, "x", SIZE_MAX));
    rk_arena_limit(&arena, SIZE_MAX);
    cr_assert_null(rk_arena_alloc(&arena, SIZE_MAX));
    cr_assert_eq(arena.used_bytes, 0);
}

Test(arena, arrays_are_zeroed_in_reused_memory_too)
{
    memset(rk_arena_alloc(&arena, 512), 0xff, 512);
    rk_arena_reset(&arena, SIZE_MAX);
    const unsigned char *array = rk_arena_array(&arena, 64, 8);
    for (int i = 0; i < 512; i++)
        cr_assert_eq(array[i], 0, "byte %d is %d", i, array[i]);
}

Test(arena, strings_are_copied_and_terminated)
{
    cr_assert_str_eq(rk_arena_string(&arena, "rankdXXX", 5), "rankd");
    cr_assert_str_eq(rk_arena_string(&arena, NULL, 0), "");
    cr_assert_str_eq(rk_arena_printf(&arena, "%s-%d", "row", 7), "row-7");
    rk_arena_limit(&arena, 4);
    cr_assert_null(rk_arena_printf(&arena, "%s", "longer than the limit"));
}
