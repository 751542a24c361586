/* Every variant of every kernel against the scalar one, on memory that ends at an inaccessible page. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quant/kernels.h"
#include "quant/kernels_list.h"
#include "tests/unit/random.h"

enum { MAX_DIM = 130, MAX_COUNT = 70 };

/* A buffer whose last byte is the last byte before a page that may not be touched; likewise its first. */
struct guarded {
    unsigned char *mapping;
    size_t page, bytes;
};

static struct guarded guarded_create(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    unsigned char *mapping = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(mapping, MAP_FAILED);
    cr_assert_eq(mprotect(mapping + page, inner, PROT_READ | PROT_WRITE), 0);
    return (struct guarded){mapping, page, inner};
}

static float *last_floats(const struct guarded *guarded, size_t count)
{
    return (float *)(guarded->mapping + guarded->page + guarded->bytes) - count;
}

static void guarded_destroy(struct guarded *guarded)
{
    munmap(guarded->mapping, guarded->bytes + 2 * guarded->page);
}

static const struct rk_kernel_variant *next_variant(const char *kernel, size_t *index)
{
    size_t count;
    const struct rk_kernel_variant *variants = rk_kernel_variants(&count);
    while (*index < count) {
        const struct rk_kernel_variant *variant = &variants[(*index)++];
        if (strcmp(variant->kernel, kernel) == 0 && rk_isa_usable(variant->isa))
            return variant;
    }
    return NULL;
}

Test(kernels, pool_f32_variants_equal_scalar_up_to_the_guard_page)
{
    struct random random = random_from_seed();
    struct guarded buffers[MAX_COUNT], out = guarded_create(MAX_DIM * sizeof(float));
    const float *rows[MAX_COUNT];
    float weights[MAX_COUNT];
    for (int i = 0; i < MAX_COUNT; i++)
        buffers[i] = guarded_create(MAX_DIM * sizeof(float));
    static const size_t counts[] = {0, 1, 2, 3, 7, MAX_COUNT};
    for (size_t dim = 1; dim <= MAX_DIM; dim++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
            for (int weighted = 0; weighted < 2; weighted++) {
                const size_t count = counts[c];
                float expected[MAX_DIM], *result = last_floats(&out, dim);
                for (size_t i = 0; i < count; i++) {
                    float *row = last_floats(&buffers[i], dim); /* every alignment comes by as dim grows */
                    for (size_t d = 0; d < dim; d++)
                        row[d] = random_float(&random);
                    rows[i] = row;
                    weights[i] = random_float(&random);
                }
                rk_pool_f32_scalar(rows, weighted ? weights : NULL, count, dim, expected);
                size_t index = 0;
                for (const struct rk_kernel_variant *v; (v = next_variant("pool_f32", &index)) != NULL;) {
                    memset(result, 0xff, dim * sizeof *result);
                    ((rk_pool_f32_fn *)v->function)(rows, weighted ? weights : NULL, count, dim, result);
                    for (size_t d = 0; d < dim; d++) {
                        /* Plain sums add in the same order everywhere; a fused multiply-add rounds once instead of
                         * twice. */
                        const double bound = weighted ? 2e-7 * (double)(count + 1) : 0.0;
                        cr_assert(fabs((double)result[d] - (double)expected[d]) <= bound,
                                  "%s dim %zu count %zu weighted %d: out[%zu] is %.9g, scalar gives %.9g",
                                  rk_isa_name(v->isa), dim, count, weighted, d, (double)result[d], (double)expected[d]);
                    }
                }
            }
    for (int i = 0; i < MAX_COUNT; i++)
        guarded_destroy(&buffers[i]);
    guarded_destroy(&out);
}

Test(kernels, pool_f32_may_write_over_one_of_its_rows)
{
    for (size_t dim = 1; dim <= MAX_DIM; dim++) {
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("pool_f32", &index)) != NULL;) {
            float sum[MAX_DIM], row[MAX_DIM];
            for (size_t d = 0; d < dim; d++) {
                sum[d] = (float)d;
                row[d] = 1000.0f;
            }
            const float *rows[] = {sum, row, row};
            ((rk_pool_f32_fn *)v->function)(rows, NULL, 3, dim, sum);
            for (size_t d = 0; d < dim; d++)
                cr_assert_eq(sum[d], (float)d + 2000.0f, "%s dim %zu: [%zu] is %g, expected %g", rk_isa_name(v->isa),
                             dim, d, (double)sum[d], (double)d + 2000.0);
        }
    }
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
    cr_assert_not_null(kernels->pool_f32);
    cr_assert_not_null(kernels->dot_f32);
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
    char text[1024];
    describe_in_child("scalar", text, sizeof text);
    cr_assert_not_null(strstr(text, "pool_f32=scalar dot_f32=scalar"), "%s", text);
    cr_assert_null(strstr(text, "avx"), "%s", text);
    describe_in_child("avx2", text, sizeof text);
    cr_assert_null(strstr(text, "avx512"), "%s", text);
    if (rk_isa_usable(RK_ISA_AVX2))
        cr_assert_not_null(strstr(text, "pool_f32=avx2 dot_f32=avx2"), "%s", text);
}
