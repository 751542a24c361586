/* The kernels that this machine runs, chosen once at start.
 *
 * One list (quant/kernels.c) names every variant of every kernel with the instruction sets that it needs. The scalar
 * variant is the specification; each instruction set overrides what it does better. Tests and benchmarks walk the same
 * list. Kernels only assert their preconditions: callers check sizes and ids before. */
#ifndef RANKD_QUANT_KERNELS_H
#define RANKD_QUANT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"
#include "quant/convert.h"
#include "quant/gemm.h"
#include "quant/gram.h"
#include "quant/pool.h"
#include "quant/rows.h"

struct rk_kernels {
    union {
        rk_pool_fn *pool[RK_ROW_FORMAT_COUNT]; /* by row format */
        struct {
            rk_pool_fn *pool_f32, *pool_f16, *pool_bf16, *pool_int8, *pool_int4, *pool_int2, *pool_fp8_e4m3,
                *pool_fp8_e5m2, *pool_mxfp8_e4m3, *pool_mxfp8_e5m2, *pool_mxfp6_e2m3, *pool_mxfp6_e3m2,
                *pool_mxfp4_e2m1, *pool_mxint8;
        };
    };
    rk_kept_rows_fn *kept_rows;
    rk_gram_f32_fn *gram_f32;
    rk_gram_bf16_fn *gram_bf16;
    rk_gram_int8_fn *gram_int8;
    rk_gemm_fn *gemm_f32, *gemm_bf16, *gemm_int8;
    rk_to_bf16_fn *to_bf16;
    rk_range_fn *range;
    rk_to_u8_fn *to_u8;
    rk_to_s8_fn *to_s8;
    rk_sigmoid_fn *sigmoid;
};

/* In the order in which they override one another. "avx512" is F, BW, DQ and VL. */
enum rk_isa { RK_ISA_SCALAR, RK_ISA_AVX2, RK_ISA_AVX512, RK_ISA_AVX512_VNNI, RK_ISA_AVX512_BF16, RK_ISA_COUNT };

const char *rk_isa_name(enum rk_isa isa); /* "scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16" */

/* One variant of one kernel, as tests and benchmarks see it. */
struct rk_kernel_variant {
    const char *kernel; /* "pool_f32" */
    enum rk_isa isa;
    size_t slot; /* offset in struct rk_kernels */
    void (*function)(void);
};

/* All variants that were built in, scalar first; *count is their number. */
const struct rk_kernel_variant *rk_kernel_variants(size_t *count);

/* RK_INVALID when RANKD_CPU is set to something that is no name of an instruction set. For the start of programs;
 * below, such a mask is ignored. */
enum rk_status rk_kernels_check_mask(struct rk_error *error);

/* Can this machine run it, after the mask of RANKD_CPU (a name of a set: the highest one allowed)? */
int rk_isa_usable(enum rk_isa isa);

/* The chosen kernels. The first call chooses; safe from any thread. */
const struct rk_kernels *rk_kernels_get(void);

/* One line for people: "avx512: pool_f32 gram_f32; scalar: range". Static storage. */
const char *rk_kernels_describe(void);

#endif
