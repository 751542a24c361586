/* Every variant of the packed multiplications against the scalar one, bit for bit, on memory that ends at an
 * inaccessible page. */
#include <math.h>

#include "quant/kernels.h"
#include "tests/unit/quant/variants.h"
#include "tests/unit/random.h"

enum { MAX_ROWS = 40, MAX_OUT = 600, MAX_GROUPS = 700, MAX_WORK = 300000, STRIDE_SLACK = 3 };

static const struct {
    const char *kernel;
    enum rk_dense_format format;
} gemms[] = {{"gemm_f32", RK_DENSE_F32}, {"gemm_bf16", RK_DENSE_BF16}, {"gemm_int8", RK_DENSE_INT8}};

/* Each array ends where its memory does; y and want begin filled alike. */
struct problem {
    struct rk_gemm gemm;
    size_t channels, panels_bytes, x_bytes, y_bytes;
    struct guarded x, panels, bias, scales, sums, x_scales, x_zeros, y, want, biases, row_biases;
};

static void *filled(struct guarded *guarded, size_t bytes)
{
    *guarded = guarded_create(bytes);
    return guarded_last(guarded, bytes);
}

/* Mostly numbers near 1; in wild problems any bits at all: subnormals, infinities and NaN, too. */
static float any_float(struct random *random, bool wild)
{
    float value = random_float(random);
    if (wild && random_below(random, 8) == 0) {
        const uint32_t bits = (uint32_t)random_next(random);
        memcpy(&value, &bits, sizeof value);
    }
    return value;
}

static void fill_groups(struct random *random, enum rk_dense_format format, bool wild, char *groups, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        float value = any_float(random, wild);
        memcpy(&bits, &value, sizeof bits);
        if (format == RK_DENSE_BF16)
            bits = rk_bf16_from_f32(value) | (uint32_t)rk_bf16_from_f32(any_float(random, wild)) << 16;
        else if (format == RK_DENSE_INT8)
            bits = (uint32_t)random_next(random);
        memcpy(groups + i * RK_GEMM_GROUP_BYTES, &bits, sizeof bits);
    }
}

static struct problem problem_create(struct random *random, enum rk_dense_format format, uint32_t rows, uint32_t out,
                                     uint32_t groups, bool wild)
{
    struct problem p = {.channels = (size_t)(out + 15) / 16 * 16};
    const size_t row_bytes = groups * RK_GEMM_GROUP_BYTES;
    struct rk_gemm *gemm = &p.gemm;
    *gemm = (struct rk_gemm){.rows = rows, .out = out, .groups = groups, .relu = random_below(random, 2)};
    gemm->panel_bytes = (groups + random_below(random, STRIDE_SLACK)) * RK_GEMM_LINE_BYTES;
    p.panels_bytes = (p.channels / RK_GEMM_CHANNELS - 1) * gemm->panel_bytes + groups * RK_GEMM_LINE_BYTES;
    gemm->to = (enum rk_dense_format)random_below(random, RK_DENSE_FORMAT_COUNT);
    gemm->x_step = random_below(random, 2);
    gemm->inverse_scale = 20.0f * (1.0f + random_float(random));
    gemm->zero = (int32_t)random_below(random, 256);
    gemm->x_bytes = row_bytes + RK_GEMM_GROUP_BYTES * random_below(random, STRIDE_SLACK);
    const size_t element = rk_dense_element_bytes(gemm->to);
    gemm->y_bytes = element * (out + random_below(random, STRIDE_SLACK));
    p.x_bytes = (rows - 1) * gemm->x_bytes + row_bytes;
    p.y_bytes = (rows - 1) * gemm->y_bytes + out * element;

    char *x = filled(&p.x, p.x_bytes), *panels = filled(&p.panels, p.panels_bytes);
    for (size_t at = 0; at < p.x_bytes; at += RK_GEMM_GROUP_BYTES)
        fill_groups(random, format, wild, x + at, 1);
    fill_groups(random, format, wild, panels, p.panels_bytes / RK_GEMM_GROUP_BYTES);
    float *bias = filled(&p.bias, p.channels * sizeof(float)), *scales = filled(&p.scales, p.channels * sizeof(float));
    int32_t *sums = filled(&p.sums, p.channels * sizeof(int32_t));
    for (size_t o = 0; o < p.channels; o++) {
        bias[o] = any_float(random, wild);
        scales[o] = fabsf(any_float(random, wild)) * 1e-3f;
        sums[o] = 0;
        for (size_t k = 0; format == RK_DENSE_INT8 && k < row_bytes; k++)
            sums[o] += (int8_t)panels[o / 16 * gemm->panel_bytes + k / 4 * RK_GEMM_LINE_BYTES + o % 16 * 4 + k % 4];
    }
    const size_t ranges = gemm->x_step == 0 ? 1 : rows;
    float *x_scales = filled(&p.x_scales, ranges * sizeof(float));
    int32_t *x_zeros = filled(&p.x_zeros, ranges * sizeof(int32_t));
    for (size_t r = 0; r < ranges; r++) {
        x_scales[r] = fabsf(any_float(random, wild)) * 1e-3f;
        x_zeros[r] = (int32_t)random_below(random, 256);
    }
    if (random_below(random, 2)) { /* rows have biases of their own, some of them the same */
        const size_t own = random_between(random, 1, rows);
        const float **biases = filled(&p.biases, rows * sizeof *biases);
        float *values = filled(&p.row_biases, own * p.channels * sizeof *values);
        for (size_t i = 0; i < own * p.channels; i++)
            values[i] = any_float(random, wild);
        for (size_t r = 0; r < rows; r++)
            biases[r] = values + random_below(random, own) * p.channels;
        gemm->biases = biases;
    }
    gemm->y = filled(&p.y, p.y_bytes);
    memset(gemm->y, 0xa5, p.y_bytes);
    memset(filled(&p.want, p.y_bytes), 0xa5, p.y_bytes);
    gemm->x = x;
    gemm->panels = panels;
    gemm->bias = bias;
    gemm->scales = scales;
    gemm->sums = sums;
    gemm->x_scales = x_scales;
    gemm->x_zeros = x_zeros;
    return p;
}

static void problem_destroy(struct problem *p)
{
    struct guarded *const all[] = {&p->x,       &p->panels, &p->bias, &p->scales, &p->sums,      &p->x_scales,
                                   &p->x_zeros, &p->y,      &p->want, &p->biases, &p->row_biases};
    for (size_t i = 0; i < sizeof all / sizeof *all - (p->gemm.biases == NULL ? 2 : 0); i++)
        guarded_destroy(all[i]);
}

/* NaNs are equal whatever their payload, which depends on the order in which an instruction looks at its operands. */
static bool equal(const struct problem *p, const char *a, const char *b)
{
    for (uint32_t r = 0; r < p->gemm.rows; r++)
        for (uint32_t o = 0; o < p->gemm.out; o++) {
            const size_t element = rk_dense_element_bytes(p->gemm.to), at = r * p->gemm.y_bytes + o * element;
            float of_a = 0.0f, of_b = 0.0f;
            memcpy((char *)&of_a + 4 - element, a + at, element);
            memcpy((char *)&of_b + 4 - element, b + at, element);
            const bool nans = p->gemm.to != RK_DENSE_INT8 && isnan(of_a) && isnan(of_b);
            if (!nans && memcmp(a + at, b + at, element) != 0)
                return false;
        }
    for (uint32_t r = 0; r + 1 < p->gemm.rows; r++) { /* what lies between rows was left alone */
        const size_t end = r * p->gemm.y_bytes + p->gemm.out * rk_dense_element_bytes(p->gemm.to);
        if (memcmp(a + end, b + end, (r + 1) * p->gemm.y_bytes - end) != 0)
            return false;
    }
    return true;
}

static void compare(const char *kernel, struct problem *p, bool wild)
{
    const struct rk_gemm *gemm = &p->gemm;
    const struct rk_kernel_variant *variant;
    size_t index = 0;
    struct rk_gemm scalar = *gemm;
    scalar.y = guarded_last(&p->want, p->y_bytes);
    ((rk_gemm_fn *)next_variant(kernel, &index)->function)(&scalar);
    while ((variant = next_variant(kernel, &index)) != NULL) {
        memset(gemm->y, 0xa5, p->y_bytes);
        ((rk_gemm_fn *)variant->function)(gemm);
        cr_assert(equal(p, gemm->y, scalar.y), "%s %s: %u rows, %u out, %u groups, to %s%s%s%s differs from scalar",
                  kernel, rk_isa_name(variant->isa), gemm->rows, gemm->out, gemm->groups,
                  rk_dense_format_name(gemm->to), gemm->relu ? ", relu" : "",
                  gemm->biases != NULL ? ", own biases" : "", wild ? ", any bits" : "");
    }
}

static void compare_shape(struct random *random, size_t g, uint32_t rows, uint32_t out, uint32_t groups, bool wild)
{
    struct problem p = problem_create(random, gemms[g].format, rows, out, groups, wild);
    compare(gemms[g].kernel, &p, wild);
    problem_destroy(&p);
}

Test(gemm, variants_equal_scalar_bit_for_bit_on_random_shapes)
{
    struct random random = random_from_seed();
    for (size_t g = 0; g < sizeof gemms / sizeof *gemms; g++)
        for (int i = 0; i < 150; i++) {
            const uint32_t rows = (uint32_t)random_between(&random, 1, MAX_ROWS),
                           out = (uint32_t)random_between(&random, 1, i % 4 ? 100 : MAX_OUT),
                           most = MAX_WORK / (rows * out),
                           groups = (uint32_t)random_between(&random, 1,
                                                             most < 1            ? 1
                                                             : most < MAX_GROUPS ? most
                                                                                 : MAX_GROUPS);
            compare_shape(&random, g, rows, out, groups, i % 3 == 0);
        }
}

Test(gemm, variants_equal_scalar_on_every_small_number_of_rows_and_panels)
{
    struct random random = random_from_seed();
    for (size_t g = 0; g < sizeof gemms / sizeof *gemms; g++) {
        for (uint32_t rows = 1; rows <= MAX_ROWS; rows++)
            for (uint32_t panels = 1; panels <= 5; panels++)
                compare_shape(&random, g, rows, panels * 16 - (uint32_t)random_below(&random, 16), 5, false);
        compare_shape(&random, g, 1, 1, 1, false);
        compare_shape(&random, g, 3, 17, 1, false);
        compare_shape(&random, g, 2, 16 * 33, 2, false);
    }
}

/* Wider than what is multiplied at a time while its sums stay in registers. */
Test(gemm, variants_equal_scalar_on_wide_inputs)
{
    struct random random = random_from_seed();
    for (size_t g = 0; g < sizeof gemms / sizeof *gemms; g++) {
        compare_shape(&random, g, 1, 40, 5000, false);
        compare_shape(&random, g, 2, 17, 1025, false);
        compare_shape(&random, g, 14, 33, 1537, false);
        compare_shape(&random, g, 101, 3, 1100, false);
    }
}

/* |sum - zero * weight sum| comes within 0.4% of 2^31, and what is subtracted may be as large. */
Test(gemm, int8_sums_do_not_overflow_at_the_widest_input)
{
    struct random random = random_from_seed();
    for (int low = 0; low < 2; low++) { /* inputs all above, or all below zero */
        struct problem p = problem_create(&random, RK_DENSE_INT8, 2, 16, RK_DENSE_INT8_MAX_IN / 4, false);
        memset(guarded_last(&p.x, p.x_bytes), low ? 0 : 255, p.x_bytes);
        memset(guarded_last(&p.panels, p.panels_bytes), -128, p.panels_bytes);
        for (uint32_t o = 0; o < 16; o++) {
            ((int32_t *)guarded_last(&p.sums, 16 * sizeof(int32_t)))[o] = -128 * (int32_t)RK_DENSE_INT8_MAX_IN;
            ((float *)guarded_last(&p.bias, 16 * sizeof(float)))[o] = 0.0f;
            ((float *)guarded_last(&p.scales, 16 * sizeof(float)))[o] = 1.0f;
        }
        const float one = 1.0f, want = (low ? 128.0f : -128.0f) * 255.0f * (float)RK_DENSE_INT8_MAX_IN;
        const int32_t zero = low ? 255 : 0;
        float y[2 * 16];
        struct rk_gemm gemm = p.gemm;
        gemm.to = RK_DENSE_F32;
        gemm.relu = false;
        gemm.biases = NULL;
        gemm.x_scales = &one;
        gemm.x_zeros = &zero;
        gemm.x_step = 0;
        gemm.y = y;
        gemm.y_bytes = 16 * sizeof *y;
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("gemm_int8", &index)) != NULL;) {
            ((rk_gemm_fn *)v->function)(&gemm);
            for (int i = 0; i < 2 * 16; i++)
                cr_assert_eq(y[i], want, "%s: %.9g, exactly %.9g", rk_isa_name(v->isa), (double)y[i], (double)want);
        }
        problem_destroy(&p);
    }
}
