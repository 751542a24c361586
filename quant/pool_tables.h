/* What the vector variants of pooled lookup read from tables. */
#ifndef RANKD_QUANT_POOL_TABLES_H
#define RANKD_QUANT_POOL_TABLES_H

#include <stdint.h>

/* An E8M0 scale as the bits of a float32: a power of two, the least of which is subnormal; 255 is not a number. */
#define RK_POW2_4(e)                                                                                                   \
    (uint32_t)(e) << 23, (uint32_t)((e) + 1) << 23, (uint32_t)((e) + 2) << 23, (uint32_t)((e) + 3) << 23
#define RK_POW2_16(e) RK_POW2_4(e), RK_POW2_4((e) + 4), RK_POW2_4((e) + 8), RK_POW2_4((e) + 12)
#define RK_POW2_64(e) RK_POW2_16(e), RK_POW2_16((e) + 16), RK_POW2_16((e) + 32), RK_POW2_16((e) + 48)
static const uint32_t rk_pool_e8m0[256] = {
    UINT32_C(1) << 22,   UINT32_C(1) << 23,    UINT32_C(2) << 23, UINT32_C(3) << 23,   RK_POW2_4(4),
    RK_POW2_4(8),        RK_POW2_4(12),        RK_POW2_16(16),    RK_POW2_16(32),      RK_POW2_16(48),
    RK_POW2_64(64),      RK_POW2_64(128),      RK_POW2_16(192),   RK_POW2_16(208),     RK_POW2_16(224),
    RK_POW2_4(240),      RK_POW2_4(244),       RK_POW2_4(248),    UINT32_C(252) << 23, UINT32_C(253) << 23,
    UINT32_C(254) << 23, UINT32_C(0x7fc00000),
};

#endif
