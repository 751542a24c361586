/* Rows of FP8 and of the MX formats, byte by byte: which scale a block gets, where its elements lie, and every code of
 * an element against float64 mathematics. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "quant/rows.h"
#include "tests/unit/random.h"

/* As the specification's section 5.3 states them; mantissa_bits is -1 for integers. */
static const struct {
    enum rk_row_format format;
    unsigned bits;
    int bias, mantissa_bits, max_exponent;
    double largest;
} elements[] = {
    {RK_ROWS_FP8_E4M3, 8, 7, 3, 0, 448},   {RK_ROWS_FP8_E5M2, 8, 15, 2, 0, 57344},
    {RK_ROWS_MXFP8_E4M3, 8, 7, 3, 8, 448}, {RK_ROWS_MXFP8_E5M2, 8, 15, 2, 15, 57344},
    {RK_ROWS_MXFP6_E2M3, 6, 1, 3, 2, 7.5}, {RK_ROWS_MXFP6_E3M2, 6, 3, 2, 4, 28},
    {RK_ROWS_MXFP4_E2M1, 4, 1, 1, 2, 6},   {RK_ROWS_MXINT8, 8, 0, -1, 0, 127.0 / 64},
};
enum { FORMATS = sizeof elements / sizeof *elements, FIRST_MX = 2, BLOCK = 32, ONE = 127, MOST_DIM = 131 };

static double formula(int f, unsigned code)
{
    const int m = elements[f].mantissa_bits, bits = (int)elements[f].bits;
    if (m < 0)
        return (code < 128 ? (double)code : (double)code - 256) / 64;
    const unsigned mantissa = code % (1u << m), exponent = code % (1u << (bits - 1)) >> m;
    const double size = exponent == 0 ? pow(2, 1 - elements[f].bias - m) * mantissa
                                      : pow(2, (int)exponent - elements[f].bias - m) * (mantissa + pow(2, m));
    return code >> (bits - 1) ? -size : size;
}

/* Element i of a row, bit by bit. */
static unsigned element_at(const unsigned char *row, size_t i, unsigned bits)
{
    unsigned code = 0;
    for (unsigned b = 0; b < bits; b++) {
        const size_t bit = i * bits + b;
        code |= (row[bit / 8] >> bit % 8 & 1u) << b;
    }
    return code;
}

static const char *name_of(int f)
{
    return rk_row_format_name(elements[f].format);
}

Test(rows_mx, every_code_decodes_to_what_its_formula_says_times_the_scale)
{
    unsigned char row[BLOCK * 8 + 8 + 8];
    float values[256];
    for (int f = 0; f < FORMATS; f++) {
        const unsigned bits = elements[f].bits, count = 1u << bits;
        const size_t bytes = count * bits / 8;
        for (int e = -20; e <= 20; e += 10) {
            memset(row, 0, sizeof row);
            for (unsigned code = 0; code < count; code++)
                for (unsigned b = 0; b < bits; b++)
                    row[(code * bits + b) / 8] |= (unsigned char)((code >> b & 1u) << (code * bits + b) % 8);
            const float scale = ldexpf(1.0f, e);
            if (f < FIRST_MX)
                memcpy(row + bytes, &scale, sizeof scale);
            else
                memset(row + bytes, ONE + e, (count + BLOCK - 1) / BLOCK);
            rk_row_traits(elements[f].format)->decode(row, count, values);
            for (unsigned code = 0; code < count; code++) {
                const double expected = formula(f, code) * scale;
                if (fabs(formula(f, code)) <= elements[f].largest || elements[f].mantissa_bits < 0)
                    cr_assert_eq(values[code], expected, "%s, code %#x: %g, expected %g", name_of(f), code,
                                 values[code], expected);
                else
                    cr_assert(!isfinite(values[code]), "%s, code %#x: %g", name_of(f), code, values[code]);
            }
        }
    }
}

Test(rows_mx, scales_of_blocks_follow_their_largest_numbers)
{
    struct random random = random_from_seed();
    float values[MOST_DIM];
    unsigned char row[2 * MOST_DIM];
    for (int f = FIRST_MX; f < FORMATS; f++)
        for (int repeat = 0; repeat < 500; repeat++) {
            const size_t dim = random_between(&random, 1, MOST_DIM), blocks = (dim + BLOCK - 1) / BLOCK;
            double largest[(MOST_DIM + BLOCK - 1) / BLOCK] = {0};
            for (size_t i = 0; i < dim; i++) {
                values[i] = ldexpf(random_float(&random), (int)(i / BLOCK) * 40 - 140 + (int)random_below(&random, 30));
                largest[i / BLOCK] = fmax(largest[i / BLOCK], fabsf(values[i]));
            }
            rk_row_traits(elements[f].format)->encode(values, dim, row);
            const unsigned char *scales = row + rk_row_bytes(elements[f].format, (uint32_t)dim) - blocks;
            for (size_t b = 0; b < blocks; b++) {
                const double exponent = largest[b] > 0 ? floor(log2(largest[b])) - elements[f].max_exponent : -ONE;
                cr_assert_eq(scales[b], (int)fmax(exponent, -ONE) + ONE, "%s, largest %g: %d", name_of(f), largest[b],
                             scales[b]);
            }
        }
}

Test(rows_mx, elements_are_the_nearest_codes_in_their_places)
{
    struct random random = random_from_seed();
    float values[MOST_DIM];
    unsigned char row[2 * MOST_DIM];
    for (int f = 0; f < FORMATS; f++)
        for (int repeat = 0; repeat < 20; repeat++) {
            const size_t dim = random_between(&random, 1, MOST_DIM), bits = elements[f].bits;
            for (size_t i = 0; i < dim; i++)
                values[i] = ldexpf(random_float(&random), (int)random_below(&random, 6));
            rk_row_traits(elements[f].format)->encode(values, dim, row);
            float fp8_scale;
            if (f < FIRST_MX)
                memcpy(&fp8_scale, row + dim, sizeof fp8_scale);
            for (size_t i = 0; i < dim; i++) {
                const double scale = f < FIRST_MX ? fp8_scale : pow(2, row[(dim * bits + 7) / 8 + i / BLOCK] - ONE);
                const double x = values[i] / scale, chosen = formula(f, element_at(row, i, (unsigned)bits));
                double nearest = INFINITY; /* its distance */
                for (unsigned code = 0; code < 1u << bits; code++)
                    if (fabs(formula(f, code)) <= elements[f].largest)
                        nearest = fmin(nearest, fabs(formula(f, code) - x));
                cr_assert_leq(fabs(chosen), elements[f].largest, "%s", name_of(f));
                cr_assert_leq(fabs(chosen - x), nearest + 1e-6 * fabs(x), "%s, element %zu: %.9g became %g", name_of(f),
                              i, x, chosen);
            }
            for (size_t bit = dim * bits; bit % 8 != 0; bit++)
                cr_assert_eq(row[bit / 8] >> bit % 8 & 1, 0, "%s, dim %zu: bits behind the last element", name_of(f),
                             dim);
        }
}

Test(rows_mx, fp8_scales_bring_the_largest_number_to_the_largest_code)
{
    struct random random = random_from_seed();
    float values[MOST_DIM], scale;
    unsigned char row[2 * MOST_DIM];
    for (int f = 0; f < FIRST_MX; f++)
        for (int repeat = 0; repeat < 200; repeat++) {
            const size_t dim = random_between(&random, 1, MOST_DIM);
            float largest = 0;
            for (size_t i = 0; i < dim; i++) {
                values[i] = random_float(&random);
                largest = fmaxf(largest, fabsf(values[i]));
            }
            rk_row_traits(elements[f].format)->encode(values, dim, row);
            memcpy(&scale, row + dim, sizeof scale);
            cr_assert_eq(scale, largest / (float)elements[f].largest, "%s: %.9g for %.9g", name_of(f), scale, largest);
            for (size_t i = 0; i < dim; i++)
                if (fabsf(values[i]) == largest)
                    cr_assert_eq(formula(f, row[i]), copysign(elements[f].largest, values[i]), "%s", name_of(f));
        }
}

Test(rows_mx, a_block_of_zeros_has_the_smallest_scale_and_a_row_of_zeros_scale_one)
{
    const float values[BLOCK] = {0}, one = 1.0f;
    unsigned char row[BLOCK + 4];
    for (int f = 0; f < FORMATS; f++) {
        memset(row, 255, sizeof row);
        rk_row_traits(elements[f].format)->encode(values, BLOCK, row);
        const size_t bytes = BLOCK * elements[f].bits / 8;
        for (size_t i = 0; i < bytes; i++)
            cr_assert_eq(row[i], 0, "%s", name_of(f));
        if (f < FIRST_MX)
            cr_assert_arr_eq(row + bytes, &one, sizeof one, "%s", name_of(f));
        else
            cr_assert_eq(row[bytes], 0, "%s", name_of(f));
    }
}

Test(rows_mx, a_scale_of_255_is_not_a_number)
{
    unsigned char row[BLOCK + 1] = {0};
    float values[BLOCK];
    for (int f = FIRST_MX; f < FORMATS; f++) {
        row[BLOCK * elements[f].bits / 8] = 255;
        rk_row_traits(elements[f].format)->decode(row, BLOCK, values);
        for (size_t i = 0; i < BLOCK; i++)
            cr_assert(isnan(values[i]), "%s: %g", name_of(f), values[i]);
        row[BLOCK * elements[f].bits / 8] = 0;
    }
}
