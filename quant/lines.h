/* Cache lines that will be read soon, brought into the second-level cache bit by bit while something else is computed.
 *
 * Memory answers a few dozen requests at a time. Asked for all lines of a tile at once, it keeps the core waiting; asked
 * for one line every few nanoseconds, it works beside the multiplications. So those who compute take lines from a list
 * as they go: an even share for each step of the work. */
#ifndef RANKD_QUANT_LINES_H
#define RANKD_QUANT_LINES_H

#include <stddef.h>
#include <stdint.h>

struct rk_lines {
    const void *const *next, *const *end;
    uint64_t share; /* of one step of the work, in lines / 2^16 */
    uint64_t due;   /* likewise: what steps gone by have not used up */
};

/* Spreads the list over `steps`. */
static inline void rk_lines_spread(struct rk_lines *lines, uint64_t steps)
{
    lines->share = steps > 0 ? (((uint64_t)(lines->end - lines->next) << 16) + steps - 1) / steps : 0;
    lines->due = 0;
}

/* After `steps` of the work: as many lines, if so many are due and left, else NULL. */
static inline const void *const *rk_lines_take(struct rk_lines *lines, uint32_t steps)
{
    const uint64_t all = (uint64_t)steps << 16;
    lines->due += steps * lines->share;
    if (lines->due < all || (size_t)(lines->end - lines->next) < steps)
        return NULL;
    const void *const *taken = lines->next;
    lines->next += steps;
    lines->due -= all;
    return taken;
}

/* After `steps` of the work: asks for the lines that are due. */
static inline void rk_lines_ask(struct rk_lines *lines, uint32_t steps)
{
    lines->due += steps * lines->share;
    for (; lines->due >= 1u << 16 && lines->next < lines->end; lines->due -= 1u << 16)
        __builtin_prefetch(*lines->next++, 0, 2);
}

#endif
