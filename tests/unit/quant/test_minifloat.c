/* Small floating-point formats, code by code, against the formulas of their specifications in float64, and rounding
 * against a search for the nearest code. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "quant/minifloat.h"
#include "tests/unit/random.h"

/* As the specifications state them: exponent bias, the largest finite number, what the codes above it are. */
static const struct {
    const char *name;
    struct rk_minifloat format;
    int exponent_bits, mantissa_bits, bias;
    double largest;
    int has_infinity;
} formats[] = {
    {"fp16", RK_MINIFLOAT_F16, 5, 10, 15, 65504, 1}, {"bf16", RK_MINIFLOAT_BF16, 8, 7, 127, 0x1.fep127, 1},
    {"e4m3", RK_MINIFLOAT_E4M3, 4, 3, 7, 448, 0},    {"e5m2", RK_MINIFLOAT_E5M2, 5, 2, 15, 57344, 1},
    {"e2m3", RK_MINIFLOAT_E2M3, 2, 3, 1, 7.5, 0},    {"e3m2", RK_MINIFLOAT_E3M2, 3, 2, 3, 28, 0},
    {"e2m1", RK_MINIFLOAT_E2M1, 2, 1, 1, 6, 0},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static unsigned code_count(int f)
{
    return 2u << (formats[f].exponent_bits + formats[f].mantissa_bits);
}

/* What the formula of the format gives, whether or not the code stands for a number. */
static double formula(int f, unsigned code)
{
    const int m = formats[f].mantissa_bits, e = formats[f].exponent_bits;
    const unsigned mantissa = code % (1u << m), exponent = code >> m & ((1u << e) - 1);
    const double sign = code >> (m + e) ? -1.0 : 1.0;
    return exponent == 0 ? sign * pow(2, 1 - formats[f].bias) * (mantissa / pow(2, m))
                         : sign * pow(2, (int)exponent - formats[f].bias) * (1 + mantissa / pow(2, m));
}

Test(minifloat, every_code_decodes_to_what_its_formula_says)
{
    for (int f = 0; f < FORMATS; f++) {
        double largest = 0;
        for (unsigned code = 0; code < code_count(f); code++) {
            const float decoded = rk_minifloat_to_f32(formats[f].format, code);
            const double expected = formula(f, code), size = fabs(expected);
            if (size <= formats[f].largest) {
                cr_assert_eq(decoded, expected, "%s, code %#x: %g, expected %g", formats[f].name, code, decoded,
                             expected);
                cr_assert_eq(!signbit(decoded), !signbit(expected), "%s, code %#x", formats[f].name, code);
                largest = fmax(largest, decoded);
            } else if (formats[f].has_infinity && size == pow(2, ilogb(formats[f].largest) + 1)) {
                cr_assert(isinf(decoded) && !signbit(decoded) == !signbit(expected), "%s, code %#x: %g",
                          formats[f].name, code, decoded);
            } else {
                cr_assert(isnan(decoded), "%s, code %#x: %g", formats[f].name, code, decoded);
            }
        }
        cr_assert_eq(largest, formats[f].largest, "%s: the largest is %g", formats[f].name, largest);
    }
}

Test(minifloat, every_number_encodes_to_its_code)
{
    for (int f = 0; f < FORMATS; f++)
        for (unsigned code = 0; code < code_count(f); code++)
            if (fabs(formula(f, code)) <= formats[f].largest)
                cr_assert_eq(rk_minifloat_from_f32(formats[f].format, (float)formula(f, code)), code, "%s, code %#x",
                             formats[f].name, code);
}

/* Nearest to even between the neighbours `code` and `code + 1`: around the middle of each pair. */
Test(minifloat, between_two_numbers_the_nearer_or_the_even_one_is_chosen)
{
    for (int f = 0; f < FORMATS; f++)
        for (unsigned code = 0; code + 1 < code_count(f) / 2; code++) {
            const double low = formula(f, code), high = formula(f, code + 1);
            if (high > formats[f].largest)
                break;
            const float middle = (float)((low + high) / 2);
            if ((double)middle != (low + high) / 2)
                continue; /* float32 has no such number */
            const unsigned even = code + code % 2;
            for (int negative = 0; negative < 2; negative++) {
                const float sign = negative ? -1.0f : 1.0f;
                const unsigned mark = negative ? code_count(f) / 2 : 0;
                const unsigned at = rk_minifloat_from_f32(formats[f].format, sign * middle);
                const unsigned below = rk_minifloat_from_f32(formats[f].format, sign * nextafterf(middle, 0.0f));
                const unsigned above = rk_minifloat_from_f32(formats[f].format, sign * nextafterf(middle, INFINITY));
                cr_assert_eq(at, mark | even, "%s: the middle of %g and %g became %#x", formats[f].name, low, high, at);
                cr_assert_eq(below, mark | code, "%s: below the middle of %g and %g: %#x", formats[f].name, low, high,
                             below);
                cr_assert_eq(above, mark | (code + 1), "%s: above the middle of %g and %g: %#x", formats[f].name, low,
                             high, above);
            }
        }
}

Test(minifloat, random_numbers_become_the_nearest)
{
    struct random random = random_from_seed();
    for (int f = 0; f < FORMATS; f++) {
        const int e = formats[f].exponent_bits, lowest = 1 - formats[f].bias - formats[f].mantissa_bits - 3;
        for (int repeat = 0; repeat < 20000; repeat++) {
            const float x = ldexpf(random_float(&random),
                                   lowest + (int)random_below(&random, (1u << e) + formats[f].mantissa_bits + 6));
            const unsigned code = rk_minifloat_from_f32(formats[f].format, x);
            const double decoded = formula(f, code), error = fabs(decoded - x);
            cr_assert_leq(fabs(decoded), formats[f].largest, "%s: %g became %g", formats[f].name, x, decoded);
            const unsigned size = code % (code_count(f) / 2);
            for (int step = -1; step <= 1; step += 2) {
                const double other = size == 0 && step < 0 ? 0 : fabs(formula(f, size + step));
                if (other <= formats[f].largest)
                    cr_assert_leq(error, fabs(other - fabs((double)x)), "%s: %.9g became %g, not %g", formats[f].name,
                                  x, decoded, other);
            }
        }
    }
}

Test(minifloat, what_does_not_fit_saturates)
{
    for (int f = 0; f < FORMATS; f++) {
        static const float wide[] = {FLT_MAX, INFINITY};
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(rk_minifloat_to_f32(formats[f].format, rk_minifloat_from_f32(formats[f].format, wide[i])),
                         formats[f].largest, "%s", formats[f].name);
            cr_assert_eq(rk_minifloat_to_f32(formats[f].format, rk_minifloat_from_f32(formats[f].format, -wide[i])),
                         -formats[f].largest, "%s", formats[f].name);
        }
    }
    cr_assert_eq(rk_f16_from_f32(65520.0f), 0x7bff);
    cr_assert_eq(rk_f16_to_f32(0x3c01), 1.0f + 0x1p-10f);
}
