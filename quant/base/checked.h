/* Arithmetic on sizes that come from files and sockets: every product and sum of untrusted numbers goes through here.
 */
#ifndef RANKD_QUANT_BASE_CHECKED_H
#define RANKD_QUANT_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

/* Each returns false, with *result undefined, when the true result does not fit. */
static inline bool rk_checked_add(uint64_t a, uint64_t b, uint64_t *result)
{
    return !__builtin_add_overflow(a, b, result);
}

static inline bool rk_checked_mul(uint64_t a, uint64_t b, uint64_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

/* The next multiple of a power of two. */
static inline bool rk_checked_align(uint64_t value, uint64_t alignment, uint64_t *result)
{
    if (!rk_checked_add(value, alignment - 1, result))
        return false;
    *result &= ~(alignment - 1);
    return true;
}

#endif
