/* The kernels that this machine runs, chosen once at start.
 *
 * One list (quant/kernels.c) names every variant of every kernel with the instruction sets that it needs. The scalar
 * variant is the specification; each instruction set overrides what it does better. Tests and benchmarks walk the same
 * list. Kernels only assert their preconditions: callers check sizes and ids before. */
#ifndef RANKD_QUANT_KERNELS_H
#define RANKD_QUANT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "quant/gram.h"

/* out[dim] = sum over i < count of weights[i] * rows[i][0..dim), or the plain sum when weights is NULL.
 * count may be 0 (out becomes zero). Rows and out need no alignment beyond that of float. out may be one of the rows,
 * so that a sum can take part in the next one. */
typedef void rk_pool_f32_fn(const float *const *rows, const float *weights, size_t count, size_t dim, float *out);

/* sum over i < dim of a[i] * b[i] */
typedef float rk_dot_f32_fn(const float *a, const float *b, size_t dim);

struct rk_kernels {
    rk_pool_f32_fn *pool_f32;
    rk_dot_f32_fn *dot_f32;
    rk_gram_f32_fn *gram_f32;
    rk_gram_bf16_fn *gram_bf16;
    rk_gram_int8_fn *gram_int8;
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

/* Can this machine run it, after the mask of RANKD_CPU (a name of a set: the highest one allowed)? */
int rk_isa_usable(enum rk_isa isa);

/* The chosen kernels. The first call chooses; safe from any thread. */
const struct rk_kernels *rk_kernels_get(void);

/* One line for people: "pool_f32=avx512 dot_f32=avx512". Static storage. */
const char *rk_kernels_describe(void);

#endif
