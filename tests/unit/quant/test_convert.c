/* Conversions: the scalar variant against mathematics, every other variant against its bits, on memory that ends at an
 * inaccessible page. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "quant/dense.h"
#include "quant/kernels_list.h"
#include "quant/minifloat.h"
#include "tests/unit/quant/variants.h"
#include "tests/unit/random.h"

enum { MOST = 200, ROUNDS = 1500 };

/* Numbers of all sizes, and now and then what is no number. */
static float any_float(struct random *random)
{
    static const float special[] = {0.0f,      -0.0f,      INFINITY, -INFINITY, NAN,
                                    0x1p-149f, -0x1p-130f, 3.4e38f,  -3.4e38f,  0.5f};
    switch (random_below(random, 8)) {
    case 0:
        return special[random_below(random, sizeof special / sizeof *special)];
    case 1:
        return rk_f32_from_bits((uint32_t)random_next(random));
    default:
        return 300.0f * random_float(random);
    }
}

struct buffers {
    struct guarded x, y;
};

static struct buffers buffers_create(void)
{
    return (struct buffers){guarded_create(MOST * sizeof(float)), guarded_create(MOST * sizeof(float))};
}

static void buffers_destroy(struct buffers *buffers)
{
    guarded_destroy(&buffers->x);
    guarded_destroy(&buffers->y);
}

/* Fills the last `count` floats before the guard page. */
static float *fill(const struct buffers *buffers, size_t count, struct random *random)
{
    float *x = guarded_last(&buffers->x, count * sizeof *x);
    const bool plain = random_below(random, 2);
    for (size_t i = 0; i < count; i++)
        x[i] = plain ? 300.0f * random_float(random) : any_float(random);
    return x;
}

Test(convert, to_bf16_variants_have_the_bits_of_the_scalar_one)
{
    struct random random = random_from_seed();
    struct buffers buffers = buffers_create();
    for (int round = 0; round < ROUNDS; round++) {
        const size_t count = random_below(&random, MOST);
        const float *x = fill(&buffers, count, &random);
        uint16_t expected[MOST], *y = guarded_last(&buffers.y, count * sizeof *y);
        rk_to_bf16_scalar(x, count, expected);
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("to_bf16", &index)) != NULL;) {
            memset(y, 0xee, count * sizeof *y);
            ((rk_to_bf16_fn *)v->function)(x, count, y);
            for (size_t i = 0; i < count; i++)
                cr_assert_eq(y[i], expected[i], "%s: %g becomes %04x, scalar %04x", rk_isa_name(v->isa), (double)x[i],
                             y[i], expected[i]);
        }
    }
    buffers_destroy(&buffers);
}

Test(convert, range_variants_have_the_bits_of_the_scalar_one)
{
    struct random random = random_from_seed();
    struct buffers buffers = buffers_create();
    for (int round = 0; round < ROUNDS; round++) {
        const size_t count = random_below(&random, MOST);
        const float *x = fill(&buffers, count, &random);
        float least, most;
        rk_range_scalar(x, count, &least, &most);
        bool nan = false;
        for (size_t i = 0; i < count; i++) {
            cr_assert(isnan(x[i]) || x[i] >= least);
            cr_assert(isnan(x[i]) || isnan(most) || x[i] <= most);
            nan |= isnan(x[i]);
        }
        cr_assert(least <= 0.0f && isnan(most) == nan && (nan || most >= 0.0f));
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("range", &index)) != NULL;) {
            float low = 7.0f, high = 7.0f;
            ((rk_range_fn *)v->function)(x, count, &low, &high);
            cr_assert(rk_f32_bits(low) == rk_f32_bits(least) && (nan ? isnan(high) : high == most),
                      "%s of %zu: [%g, %g], scalar [%g, %g]", rk_isa_name(v->isa), count, (double)low, (double)high,
                      (double)least, (double)most);
        }
    }
    buffers_destroy(&buffers);
}

/* Inverse scales that leave numbers within the range, and some that do not. */
static float any_scale(struct random *random)
{
    static const float scales[] = {0.0f, 1.0f, 0x1p-140f, 1e30f, INFINITY};
    return random_below(random, 4) == 0 ? scales[random_below(random, sizeof scales / sizeof *scales)]
                                        : fabsf(random_float(random));
}

static double nearest(float x, float inverse_scale, double limit)
{
    const double scaled = (double)(x * inverse_scale);
    return isnan(scaled) ? 0.0 : fmin(limit, fmax(-limit, nearbyint(scaled)));
}

Test(convert, to_u8_variants_have_the_bits_of_the_scalar_one)
{
    struct random random = random_from_seed();
    struct buffers buffers = buffers_create();
    for (int round = 0; round < ROUNDS; round++) {
        const size_t count = random_below(&random, MOST);
        const float *x = fill(&buffers, count, &random), scale = any_scale(&random);
        const int32_t zero = (int32_t)random_below(&random, 256);
        uint8_t *y = guarded_last(&buffers.y, count);
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("to_u8", &index)) != NULL;) {
            memset(y, 0xee, count);
            ((rk_to_u8_fn *)v->function)(x, count, scale, zero, y);
            for (size_t i = 0; i < count; i++) {
                const double wanted = fmin(255.0, fmax(0.0, nearest(x[i], scale, 1000.0) + zero));
                cr_assert_eq(y[i], wanted, "%s: %g * %g + %d becomes %u, not %g", rk_isa_name(v->isa), (double)x[i],
                             (double)scale, zero, y[i], wanted);
            }
        }
    }
    buffers_destroy(&buffers);
}

Test(convert, to_s8_variants_have_the_bits_of_the_scalar_one)
{
    struct random random = random_from_seed();
    struct buffers buffers = buffers_create();
    for (int round = 0; round < ROUNDS; round++) {
        const size_t count = random_below(&random, MOST);
        const float *x = fill(&buffers, count, &random), scale = any_scale(&random);
        int8_t *y = guarded_last(&buffers.y, count);
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("to_s8", &index)) != NULL;) {
            memset(y, 0x6e, count);
            ((rk_to_s8_fn *)v->function)(x, count, scale, y);
            for (size_t i = 0; i < count; i++)
                cr_assert_eq(y[i], nearest(x[i], scale, 127.0), "%s: %g * %g becomes %d, not %g", rk_isa_name(v->isa),
                             (double)x[i], (double)scale, y[i], nearest(x[i], scale, 127.0));
        }
    }
    buffers_destroy(&buffers);
}

Test(convert, sigmoid_is_right_to_three_units_in_the_last_place)
{
    float x, y;
    for (uint64_t bits = 0; bits < (uint64_t)1 << 32; bits += 4099) {
        x = rk_f32_from_bits((uint32_t)bits);
        rk_sigmoid_scalar(&x, 1, &y);
        if (isnan(x)) {
            cr_assert(isnan(y));
            continue;
        }
        const double exact = 1.0 / (1.0 + exp(-(double)x));
        if (x < -87.0f) {
            cr_assert_eq(y, 0.0f, "sigmoid(%g) is %g", (double)x, (double)y);
            continue;
        }
        const double unit = (double)(nextafterf((float)exact, 2.0f) - (float)exact);
        cr_assert_leq(fabs((double)y - exact), 3.0 * unit, "sigmoid(%.9g) is %.9g, not %.9g", (double)x, (double)y,
                      exact);
    }
    x = INFINITY;
    rk_sigmoid_scalar(&x, 1, &y);
    cr_assert_eq(y, 1.0f);
    x = -INFINITY;
    rk_sigmoid_scalar(&x, 1, &y);
    cr_assert_eq(y, 0.0f);
    x = 0.0f;
    rk_sigmoid_scalar(&x, 1, &y);
    cr_assert_eq(y, 0.5f);
}

Test(convert, sigmoid_variants_have_the_bits_of_the_scalar_one)
{
    struct random random = random_from_seed();
    struct buffers buffers = buffers_create();
    for (int round = 0; round < ROUNDS; round++) {
        const size_t count = random_below(&random, MOST);
        const float *x = fill(&buffers, count, &random);
        float expected[MOST], *y = guarded_last(&buffers.y, count * sizeof *y);
        rk_sigmoid_scalar(x, count, expected);
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant("sigmoid", &index)) != NULL;) {
            memset(y, 0xee, count * sizeof *y);
            ((rk_sigmoid_fn *)v->function)(x, count, y);
            for (size_t i = 0; i < count; i++)
                cr_assert(isnan(x[i]) ? isnan(y[i]) : rk_f32_bits(y[i]) == rk_f32_bits(expected[i]),
                          "%s: sigmoid(%.9g) is %.9g, scalar %.9g", rk_isa_name(v->isa), (double)x[i], (double)y[i],
                          (double)expected[i]);
            memcpy(y, x, count * sizeof *y); /* in place */
            ((rk_sigmoid_fn *)v->function)(y, count, y);
            for (size_t i = 0; i < count; i++)
                cr_assert(isnan(x[i]) || rk_f32_bits(y[i]) == rk_f32_bits(expected[i]));
        }
    }
    buffers_destroy(&buffers);
}
