/* Every variant of every kernel against the scalar one, on memory that ends at an inaccessible page. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/quant/variants.h"
#include "tests/unit/random.h"

enum { MAX_DIM = 130 };

static float *last_floats(const struct guarded *guarded, size_t count)
{
    return guarded_last(guarded, count * sizeof(float));
}

Test(kernels, dot_f32_variants_equal_scalar_up_to_the_guard_page)
{
    struct random random = random_from_seed();
    struct guarded first = guarded_create(MAX_DIM * sizeof(float)),
                   second = guarded_create((MAX_DIM + 1) * sizeof(float));
    for (size_t dim = 1; dim <= MAX_DIM; dim++)
        for (size_t shift = 0; shift < 2; shift++) { /* the two at different alignments, too */
            float *a = last_floats(&first, dim), *b = last_floats(&second, dim + shift);
            double exact = 0.0, size = 0.0;
            for (size_t d = 0; d < dim; d++) {
                a[d] = random_float(&random);
                b[d] = random_float(&random);
                exact += (double)a[d] * (double)b[d];
                size += fabs((double)a[d] * (double)b[d]);
            }
            size_t index = 0;
            for (const struct rk_kernel_variant *v; (v = next_variant("dot_f32", &index)) != NULL;) {
                const float result = ((rk_dot_f32_fn *)v->function)(a, b, dim);
                /* dim roundings of half a unit each, of partial sums no larger than `size` */
                const double bound = 6e-8 * (double)(dim + 1) * size;
                cr_assert(fabs((double)result - exact) <= bound, "%s dim %zu: %.9g, exactly %.9g", rk_isa_name(v->isa),
                          dim, (double)result, exact);
            }
        }
    guarded_destroy(&first);
    guarded_destroy(&second);
}

Test(kernels, dot_f32_of_nothing_is_zero)
{
    size_t index = 0;
    for (const struct rk_kernel_variant *v; (v = next_variant("dot_f32", &index)) != NULL;)
        cr_assert_eq(((rk_dot_f32_fn *)v->function)(NULL, NULL, 0), 0.0f, "%s", rk_isa_name(v->isa));
}

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
    cr_assert(strncmp(text, "scalar: ", 8) == 0 && strstr(text, " dot_f32") && !strstr(text, "avx"), "%s", text);
    describe_in_child("avx2", text, sizeof text);
    cr_assert_null(strstr(text, "avx512"), "%s", text);
    if (rk_isa_usable(RK_ISA_AVX2))
        cr_assert(strncmp(text, "avx2: ", 6) == 0 && strstr(text, " dot_f32"), "%s", text);
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
