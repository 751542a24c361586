/* Choosing kernels: walks the list (scalar first, then wider instruction sets) and lets every usable variant override
 * its slot in one table of function pointers. The table is filled once, under pthread_once, and read-only from then on.
 */
#include "quant/kernels.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/kernels_list.h"

#define ROW(name, isa_name, suffix)                                                                                    \
    {#name, RK_ISA_##suffix, offsetof(struct rk_kernels, name), (void (*)(void))rk_##name##_##isa_name},
static const struct rk_kernel_variant variants[] = {RK_KERNELS(ROW)};
#undef ROW

enum { NUM_VARIANTS = sizeof variants / sizeof variants[0] };

static const char *const isa_names[RK_ISA_COUNT] = {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};

static struct {
    pthread_once_t once;
    struct rk_kernels kernels;
    char description[64 * NUM_VARIANTS];
} chosen = {.once = PTHREAD_ONCE_INIT};

const char *rk_isa_name(enum rk_isa isa)
{
    return (unsigned)isa < RK_ISA_COUNT ? isa_names[isa] : "unknown";
}

const struct rk_kernel_variant *rk_kernel_variants(size_t *count)
{
    *count = NUM_VARIANTS;
    return variants;
}

static int machine_has(enum rk_isa isa)
{
    if (isa == RK_ISA_SCALAR)
        return 1;
#ifdef RANKD_ISA_X86
    /* These ask the operating system too: registers that it does not save do not count. */
    __builtin_cpu_init();
    /* Whatever has AVX2 has F16C, too, which compilers do not all know to ask for. */
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
    if (isa == RK_ISA_AVX2)
        return avx2;
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (isa == RK_ISA_AVX512)
        return avx512;
    if (isa == RK_ISA_AVX512_VNNI)
        return avx512 && __builtin_cpu_supports("avx512vnni");
    if (isa == RK_ISA_AVX512_BF16)
        return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
    return 0;
}

enum rk_status rk_kernels_check_mask(struct rk_error *error)
{
    const char *mask = getenv("RANKD_CPU");
    char names[128] = "";
    size_t used = 0;
    for (int isa = 0; mask != NULL && isa < RK_ISA_COUNT; isa++) {
        if (strcmp(mask, isa_names[isa]) == 0)
            return RK_OK;
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", isa ? ", " : "", isa_names[isa]);
    }
    if (mask == NULL)
        return RK_OK;
    return rk_error_set(error, RK_INVALID,
                        "the environment variable RANKD_CPU is '%.64s', none of %s; unset it to use all that this "
                        "machine has",
                        mask, names);
}

int rk_isa_usable(enum rk_isa isa)
{
    const char *mask = getenv("RANKD_CPU");
    for (int highest = 0; mask != NULL && highest < RK_ISA_COUNT; highest++)
        if (strcmp(mask, isa_names[highest]) == 0 && (int)isa > highest)
            return 0;
    return machine_has(isa);
}

static void choose(void)
{
    enum rk_isa isa_of[sizeof(struct rk_kernels) / sizeof(void (*)(void))] = {0};
    for (size_t i = 0; i < NUM_VARIANTS; i++) {
        if (!rk_isa_usable(variants[i].isa))
            continue;
        memcpy((char *)&chosen.kernels + variants[i].slot, &variants[i].function, sizeof variants[i].function);
        isa_of[variants[i].slot / sizeof(void (*)(void))] = variants[i].isa;
    }
    size_t used = 0;
    for (int isa = RK_ISA_COUNT - 1; isa >= 0; isa--) {
        const char *separator = used > 0 ? "; " : "";
        bool first = true;
        for (size_t i = 0; i < NUM_VARIANTS && variants[i].isa == RK_ISA_SCALAR; i++) { /* every kernel has one */
            if ((int)isa_of[variants[i].slot / sizeof(void (*)(void))] != isa)
                continue;
            used += (size_t)snprintf(chosen.description + used, sizeof chosen.description - used, "%s%s%s %s",
                                     first ? separator : "", first ? isa_names[isa] : "", first ? ":" : "",
                                     variants[i].kernel);
            first = false;
        }
    }
}

const struct rk_kernels *rk_kernels_get(void)
{
    pthread_once(&chosen.once, choose);
    return &chosen.kernels;
}

const char *rk_kernels_describe(void)
{
    rk_kernels_get();
    return chosen.description;
}
