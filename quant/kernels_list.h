/* Every variant of every kernel, in one list: X(kernel, isa, SUFFIX). It declares the functions, fills the table in
 * kernels.c, and through rk_kernel_variants() feeds the tests and the benchmarks, so that no kernel can exist untested.
 */
#ifndef RANKD_QUANT_KERNELS_LIST_H
#define RANKD_QUANT_KERNELS_LIST_H

#include "quant/kernels.h"

#define RK_KERNELS_SCALAR(X)                                                                                           \
    RK_POOL_KERNELS(X, scalar, SCALAR)                                                                                 \
    X(kept_rows, scalar, SCALAR)                                                                                       \
    X(gram_f32, scalar, SCALAR)                                                                                        \
    X(gram_bf16, scalar, SCALAR)                                                                                       \
    X(gram_int8, scalar, SCALAR)                                                                                       \
    X(gemm_f32, scalar, SCALAR)                                                                                        \
    X(gemm_bf16, scalar, SCALAR)                                                                                       \
    X(gemm_int8, scalar, SCALAR)                                                                                       \
    X(to_bf16, scalar, SCALAR)                                                                                         \
    X(range, scalar, SCALAR)                                                                                           \
    X(to_u8, scalar, SCALAR)                                                                                           \
    X(to_s8, scalar, SCALAR)                                                                                           \
    X(sigmoid, scalar, SCALAR)

#ifdef RANKD_ISA_X86
#define RK_KERNELS_X86(X)                                                                                              \
    RK_POOL_KERNELS(X, avx2, AVX2)                                                                                     \
    X(kept_rows, avx2, AVX2)                                                                                           \
    X(gram_f32, avx2, AVX2)                                                                                            \
    X(gram_bf16, avx2, AVX2)                                                                                           \
    X(gram_int8, avx2, AVX2)                                                                                           \
    X(gemm_f32, avx2, AVX2)                                                                                            \
    X(gemm_bf16, avx2, AVX2)                                                                                           \
    X(gemm_int8, avx2, AVX2)                                                                                           \
    X(to_bf16, avx2, AVX2)                                                                                             \
    X(range, avx2, AVX2)                                                                                               \
    X(to_u8, avx2, AVX2)                                                                                               \
    X(to_s8, avx2, AVX2)                                                                                               \
    X(sigmoid, avx2, AVX2)                                                                                             \
    RK_POOL_KERNELS(X, avx512, AVX512)                                                                                 \
    X(to_bf16, avx512, AVX512)                                                                                         \
    X(range, avx512, AVX512)                                                                                           \
    X(to_u8, avx512, AVX512)                                                                                           \
    X(to_s8, avx512, AVX512)                                                                                           \
    X(sigmoid, avx512, AVX512)                                                                                         \
    X(gram_f32, avx512, AVX512)                                                                                        \
    X(gemm_f32, avx512, AVX512)                                                                                        \
    X(gram_int8, avx512_vnni, AVX512_VNNI)                                                                             \
    X(gemm_int8, avx512_vnni, AVX512_VNNI)                                                                             \
    X(gram_bf16, avx512_bf16, AVX512_BF16)                                                                             \
    X(gemm_bf16, avx512_bf16, AVX512_BF16)
#else
#define RK_KERNELS_X86(X)
#endif

#define RK_KERNELS(X)                                                                                                  \
    RK_KERNELS_SCALAR(X)                                                                                               \
    RK_KERNELS_X86(X)

#define RK_KERNEL_DECLARE(kernel, isa, suffix) rk_##kernel##_fn rk_##kernel##_##isa;
RK_KERNELS(RK_KERNEL_DECLARE)
#undef RK_KERNEL_DECLARE

#endif
