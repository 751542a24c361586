/* Choosing kernels: the list, its description and the mask. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quant/kernels.h"

Test(kernels, every_slot_has_a_scalar_variant_and_is_filled)
{
    const struct rk_kernels *kernels = rk_kernels_get();
    size_t count, scalars = 0;
    const struct rk_kernel_variant *variants = rk_kernel_variants(&count);
    for (size_t i = 0; i < count; i++)
        scalars += variants[i].isa == RK_ISA_SCALAR;
    cr_assert_eq(scalars * sizeof(void (*)(void)), sizeof *kernels, "%zu scalar variants for %zu slots", scalars,
                 sizeof *kernels / sizeof(void (*)(void)));
    void (*slots[sizeof *kernels / sizeof(void (*)(void))])(void);
    memcpy(slots, kernels, sizeof slots);
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        cr_assert_not_null(slots[i], "slot %zu", i);
}

/* The choice is made once per process, so each mask is tried in a child. */
static void describe_in_child(const char *mask, char *text, size_t size)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        setenv("RANKD_CPU", mask, 1);
        const char *description = rk_kernels_describe();
        const size_t length = strlen(description);
        _exit(write(ends[1], description, length) == (ssize_t)length ? 0 : 1);
    }
    close(ends[1]);
    ssize_t length = read(ends[0], text, size - 1);
    text[length > 0 ? length : 0] = '\0';
    close(ends[0]);
    int status = 1;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
}

Test(kernels, rankd_cpu_bounds_the_instruction_sets)
{
    char text[4096];
    describe_in_child("scalar", text, sizeof text);
    cr_assert(strncmp(text, "scalar: ", 8) == 0 && strstr(text, " gram_f32") && !strstr(text, "avx"), "%s", text);
    describe_in_child("avx2", text, sizeof text);
    cr_assert_null(strstr(text, "avx512"), "%s", text);
    if (rk_isa_usable(RK_ISA_AVX2))
        cr_assert(strncmp(text, "avx2: ", 6) == 0 && strstr(text, " gram_f32"), "%s", text);
}

Test(kernels, a_mask_that_is_no_instruction_set_is_an_error_that_lists_them)
{
    struct rk_error error = {0};
    for (int isa = 0; isa < RK_ISA_COUNT; isa++) {
        setenv("RANKD_CPU", rk_isa_name((enum rk_isa)isa), 1);
        cr_assert_eq(rk_kernels_check_mask(&error), RK_OK, "%s", error.text);
    }
    setenv("RANKD_CPU", "avx3", 1);
    cr_assert_eq(rk_kernels_check_mask(&error), RK_INVALID);
    cr_assert_not_null(strstr(error.text,
                              "RANKD_CPU is 'avx3', none of scalar, avx2, avx512, avx512_vnni, avx512_bf16"),
                       "%s", error.text);
    unsetenv("RANKD_CPU");
    cr_assert_eq(rk_kernels_check_mask(NULL), RK_OK);
}
