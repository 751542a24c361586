/* Probes of one core's multipliers: loops of nothing but multiply-adds on registers, whose rate is the peak. */
#ifndef RANKD_TESTS_BENCH_PROBES_H
#define RANKD_TESTS_BENCH_PROBES_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "quant/dense.h"
#include "quant/kernels.h"

enum { PROBE_STEPS = 20000, PROBE_SUMS = 12 };

#define PROBE(name, isa, type, zero, step)                                                                             \
    __attribute__((target(isa), noinline)) static void name(void)                                                      \
    {                                                                                                                  \
        type s0 = zero, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0,     \
             s11 = s0, x = s0;                                                                                         \
        __asm__ volatile("" : "+v"(x));                                                                                \
        for (int i = 0; i < PROBE_STEPS; i++) {                                                                        \
            s0 = step(s0), s1 = step(s1), s2 = step(s2), s3 = step(s3), s4 = step(s4), s5 = step(s5), s6 = step(s6),   \
            s7 = step(s7), s8 = step(s8), s9 = step(s9), s10 = step(s10), s11 = step(s11);                             \
            __asm__ volatile(""                                                                                        \
                             : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7),         \
                               "+v"(s8), "+v"(s9), "+v"(s10), "+v"(s11));                                              \
        }                                                                                                              \
    }
#define STEP_F32(s)  _mm512_fmadd_ps(x, x, s)
#define STEP_BF16(s) _mm512_dpbf16_ps(s, (__m512bh)x, (__m512bh)x)
#define STEP_INT8(s) _mm512_dpbusd_epi32(s, x, x)
PROBE(probe_f32, "avx512f", __m512, _mm512_setzero_ps(), STEP_F32)
PROBE(probe_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), STEP_BF16)
PROBE(probe_int8, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), STEP_INT8)
#undef PROBE

static const struct {
    enum rk_isa isa;
    void (*run)(void);
    uint32_t macs; /* of one step */
} probes[RK_DENSE_FORMAT_COUNT] = {[RK_DENSE_F32] = {RK_ISA_AVX512, probe_f32, 16},
                                   [RK_DENSE_BF16] = {RK_ISA_AVX512_BF16, probe_bf16, 32},
                                   [RK_DENSE_INT8] = {RK_ISA_AVX512_VNNI, probe_int8, 64}};

/* What this thread has had of a core, so that others on it do not count. */
static inline double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Multiply-adds per microsecond; 0 on machines without the instruction. */
static inline double probe_rate(enum rk_dense_format format, double seconds)
{
    if (!rk_isa_usable(probes[format].isa))
        return 0.0;
    uint64_t steps = 0;
    const double start = now_s();
    double spent;
    do {
        probes[format].run();
        steps += (uint64_t)PROBE_STEPS * PROBE_SUMS;
        spent = now_s() - start;
    } while (spent < seconds);
    return 1e-6 * (double)(steps * probes[format].macs) / spent;
}

static inline int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static inline double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return values[count / 2];
}

#endif
