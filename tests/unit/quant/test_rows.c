/* Row formats: every format of the table keeps its promises (bytes, bound, unaligned rows), and the codes of the small
 * floating-point formats are what their specifications say. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "quant/minifloat.h"
#include "quant/rows.h"
#include "tests/unit/random.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const size_t dims[] = {1, 2, 3, 4, 5, 7, 16, 31, 32, 33, 63, 64, 65, 128, 130};
enum { MOST_DIM = 130, GUARD = 0xa5 };

static int is_format(enum rk_row_format format, const char *start)
{
    return strncmp(rk_row_format_name(format), start, strlen(start)) == 0;
}

Test(rows, the_table_is_complete)
{
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        const struct rk_row_traits *traits = rk_row_traits(f);
        cr_assert(traits->name != NULL && traits->summary != NULL && traits->bits > 0, "format %d", f);
        cr_assert(traits->encode != NULL && traits->decode != NULL && traits->error_bound != NULL, "%s", traits->name);
        enum rk_row_format parsed;
        cr_assert(rk_row_format_parse(traits->name, &parsed), "%s", traits->name);
        cr_assert_eq((int)parsed, f, "%s", traits->name);
        cr_assert_str_eq(rk_row_format_name(f), traits->name);
    }
    enum rk_row_format parsed;
    static const char *const wrong[] = {"", "int3", "int8 ", "INT8", "mxfp4"};
    for (size_t i = 0; i < COUNT(wrong); i++)
        cr_assert(!rk_row_format_parse(wrong[i], &parsed), "'%s'", wrong[i]);
    cr_assert_str_eq(rk_row_format_name(RK_ROW_FORMAT_COUNT), "unknown");
}

Test(rows, bytes_of_a_row)
{
    static const struct {
        enum rk_row_format format;
        uint32_t dim;
        uint64_t bytes;
    } cases[] = {
        {RK_ROWS_F32, 16, 64},      {RK_ROWS_F16, 3, 6},          {RK_ROWS_BF16, 128, 256},
        {RK_ROWS_INT8, 16, 24},     {RK_ROWS_INT4, 16, 12},       {RK_ROWS_INT4, 3, 6},
        {RK_ROWS_INT2, 5, 6},       {RK_ROWS_FP8_E4M3, 20, 24},   {RK_ROWS_MXFP8_E4M3, 33, 35},
        {RK_ROWS_MXFP6_E2M3, 3, 4}, {RK_ROWS_MXFP6_E3M2, 64, 50}, {RK_ROWS_MXFP4_E2M1, 33, 19},
        {RK_ROWS_MXINT8, 128, 132}, {RK_ROWS_MXFP8_E5M2, 32, 33},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        cr_assert_eq(rk_row_bytes(cases[i].format, cases[i].dim), cases[i].bytes, "%s of %u: %llu bytes",
                     rk_row_format_name(cases[i].format), cases[i].dim,
                     (unsigned long long)rk_row_bytes(cases[i].format, cases[i].dim));
}

/* ---- error bounds ---- */

/* Rows that a model holds, and rows that nobody hopes for. */
static void fill(struct random *random, uint64_t kind, float *values, size_t dim)
{
    const int exponent = (int)random_between(random, 0, 60) - 30;
    const float offset = random_float(random);
    for (size_t i = 0; i < dim; i++) {
        const float x = random_float(random);
        switch (kind) {
        case 0: /* ordinary */
            values[i] = x;
            break;
        case 1: /* any scale */
            values[i] = ldexpf(x, exponent);
            break;
        case 2: /* a large offset and a small spread */
            values[i] = ldexpf(offset, exponent) + ldexpf(x, exponent - 12);
            break;
        case 3: /* constant */
            values[i] = exponent % 4 == 0 ? 0.0f : ldexpf(offset, exponent);
            break;
        case 4: /* every magnitude in one row */
            values[i] = ldexpf(x, (int)random_between(random, 0, 250) - 149);
            break;
        case 5: /* subnormal */
            values[i] = ldexpf(x, -(int)random_between(random, 126, 148));
            break;
        case 6: /* the ends of float32 */
            values[i] = x < 0 ? -FLT_MAX : x < 0.5f ? FLT_MAX : x;
            break;
        case 7: /* around the ends of float16 */
            values[i] = ldexpf(x, random_below(random, 2) ? 17 : -23);
            break;
        case 8: /* halves of steps, where rounding could go either way */
            values[i] = (float)((int)random_between(random, 0, 1024) - 512) / 64.0f;
            break;
        default: /* just below powers of two, where MX saturates most */
            values[i] = ldexpf(x < 0 ? -0x1.fffffep0f : 0x1.fffffep0f, (int)random_between(random, 0, 8));
            break;
        }
    }
}

enum { KINDS = 10 };

static double largest_error(const float *values, const float *decoded, size_t dim)
{
    double largest = 0;
    for (size_t i = 0; i < dim; i++) {
        const double error = fabs((double)decoded[i] - values[i]);
        largest = error > largest || isnan(error) ? error : largest;
    }
    return largest;
}

Test(rows, errors_stay_within_the_bound_in_unaligned_rows)
{
    struct random random = random_from_seed();
    unsigned char memory[MOST_DIM * 4 + 64];
    float values[MOST_DIM], decoded[MOST_DIM + 1];
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (size_t d = 0; d < COUNT(dims); d++)
            for (int repeat = 0; repeat < 40 * KINDS; repeat++) {
                const size_t dim = dims[d], bytes = rk_row_bytes(f, (uint32_t)dim), at = random_between(&random, 1, 16);
                fill(&random, repeat % KINDS, values, dim);
                memset(memory, GUARD, sizeof memory);
                decoded[dim] = 42.0f;
                rk_row_traits(f)->encode(values, dim, memory + at);
                rk_row_traits(f)->decode(memory + at, dim, decoded);
                cr_assert_eq(memory[at - 1], GUARD, "%s wrote before its row", rk_row_format_name(f));
                for (size_t i = at + bytes; i < sizeof memory; i++)
                    cr_assert_eq(memory[i], GUARD, "%s wrote behind its row of %zu", rk_row_format_name(f), dim);
                cr_assert_eq(decoded[dim], 42.0f, "%s decoded more than %zu", rk_row_format_name(f), dim);
                const double bound = rk_row_traits(f)->error_bound(values, dim),
                             error = largest_error(values, decoded, dim);
                cr_assert(error <= bound, "%s, dim %zu, kind %d: error %g, bound %g", rk_row_format_name(f), dim,
                          repeat % KINDS, error, bound);
            }
}

Test(rows, bounds_are_nearly_reached)
{
    struct random random = random_from_seed();
    unsigned char row[MOST_DIM * 4];
    float values[MOST_DIM], decoded[MOST_DIM];
    static const uint64_t kinds[] = {0, 1, 2, 4, 7};
    for (int f = RK_ROWS_F16; f < RK_ROW_FORMAT_COUNT; f++)
        for (size_t k = 0; k < COUNT(kinds); k++) {
            double most = 0;
            for (int repeat = 0; repeat < 1000; repeat++) {
                fill(&random, kinds[k], values, MOST_DIM);
                rk_row_traits(f)->encode(values, MOST_DIM, row);
                rk_row_traits(f)->decode(row, MOST_DIM, decoded);
                const double bound = rk_row_traits(f)->error_bound(values, MOST_DIM);
                most = fmax(most, largest_error(values, decoded, MOST_DIM) / bound);
            }
            cr_assert_gt(most, 0.8, "%s, kind %d: only %g of the bound", rk_row_format_name(f), (int)kinds[k], most);
        }
}

Test(rows, what_is_decoded_encodes_to_itself)
{
    struct random random = random_from_seed();
    unsigned char row[MOST_DIM * 4];
    float values[MOST_DIM], decoded[MOST_DIM], again[MOST_DIM];
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (int repeat = 0; repeat < 200; repeat++) {
            const size_t dim = dims[random_below(&random, COUNT(dims))];
            fill(&random, 0, values, dim);
            rk_row_traits(f)->encode(values, dim, row);
            rk_row_traits(f)->decode(row, dim, decoded);
            rk_row_traits(f)->encode(decoded, dim, row);
            rk_row_traits(f)->decode(row, dim, again);
            if (!is_format(f, "int")) /* the range of an integer row may shrink when it is rounded to float16 */
                for (size_t i = 0; i < dim; i++)
                    cr_assert_float_eq(again[i], decoded[i], is_format(f, "fp8") ? 1e-6 * fabsf(decoded[i]) : 0,
                                       "%s: %.9g, then %.9g", rk_row_format_name(f), decoded[i], again[i]);
            const double bound = rk_row_traits(f)->error_bound(decoded, dim);
            cr_assert_leq(largest_error(decoded, again, dim), bound, "%s", rk_row_format_name(f));
        }
}

Test(rows, nothing_becomes_infinite)
{
    unsigned char row[MOST_DIM * 4];
    const float values[] = {FLT_MAX, -FLT_MAX, 1e6f, -1e6f, 0.0f, -0.0f, 0x1p-149f, -0x1p-149f};
    float decoded[COUNT(values)];
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (size_t dim = 1; dim <= COUNT(values); dim++) {
            rk_row_traits(f)->encode(values + COUNT(values) - dim, dim, row);
            rk_row_traits(f)->decode(row, dim, decoded);
            for (size_t i = 0; i < dim; i++)
                cr_assert(isfinite(decoded[i]), "%s, dim %zu: %g", rk_row_format_name(f), dim, decoded[i]);
        }
}

Test(rows, a_row_of_zeros_stays_one)
{
    unsigned char row[MOST_DIM * 4];
    const float values[MOST_DIM] = {0};
    float decoded[MOST_DIM];
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        memset(row, 255, sizeof row);
        rk_row_traits(f)->encode(values, MOST_DIM, row);
        rk_row_traits(f)->decode(row, MOST_DIM, decoded);
        cr_assert_arr_eq(decoded, values, sizeof values, "%s", rk_row_format_name(f));
        cr_assert_leq(rk_row_traits(f)->error_bound(values, MOST_DIM), 0x1p-100, "%s", rk_row_format_name(f));
    }
}
