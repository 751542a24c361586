/* Ready-made rows: what becomes of FBGEMM's layout decodes to the same numbers, and rows that are not finite are found.
 */
#include "model/packed_rows.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/minifloat.h"
#include "tests/unit/random.h"

enum { ROWS = 7, MOST_DIM = 70, MOST_BYTES = MOST_DIM * 4 + 8 + RK_LAYOUT_MAX_PADDING };

static const enum rk_row_format formats[] = {RK_ROWS_F16, RK_ROWS_BF16, RK_ROWS_INT8, RK_ROWS_INT4, RK_ROWS_INT2};
enum { FORMATS = sizeof formats / sizeof *formats, FIRST_INTEGER = 2 };

/* Packed by quant/rows.h's own encoder. */
static void encode_rows(struct random *random, enum rk_row_format format, uint32_t dim, unsigned char *rows)
{
    float values[MOST_DIM];
    for (size_t r = 0; r < ROWS; r++) {
        for (uint32_t i = 0; i < dim; i++)
            values[i] = random_float(random);
        rk_row_traits(format)->encode(values, dim, rows + r * rk_row_bytes(format, dim));
    }
}

Test(packed_rows, rows_in_our_layout_are_copied)
{
    struct random random = random_from_seed();
    for (int f = 0; f < FORMATS; f++)
        for (uint32_t dim = 1; dim <= MOST_DIM; dim += 3) {
            unsigned char rows[ROWS * MOST_BYTES], out[ROWS * MOST_BYTES];
            const uint64_t bytes = rk_row_bytes(formats[f], dim);
            encode_rows(&random, formats[f], dim, rows);
            const struct rk_packed_rows packed = {formats[f], RK_LAYOUT_ROWS, dim, bytes};
            cr_assert_eq(rk_packed_row_bytes(formats[f], RK_LAYOUT_ROWS, dim), bytes);
            cr_assert_eq(rk_packed_rows_convert(&packed, rows, ROWS, out), ROWS);
            cr_assert_arr_eq(out, rows, ROWS * bytes, "%s, dim %u", rk_row_format_name(formats[f]), dim);
        }
}

Test(packed_rows, fbgemm_rows_decode_to_scale_times_element_plus_bias)
{
    struct random random = random_from_seed();
    for (int f = FIRST_INTEGER; f < FORMATS; f++)
        for (uint32_t dim = 1; dim <= MOST_DIM; dim += 3) {
            const unsigned bits = rk_row_traits(formats[f])->bits;
            const size_t elements = (dim * bits + 7) / 8, source_bytes = 4 + elements + random_below(&random, 20);
            unsigned char source[ROWS * MOST_BYTES], out[ROWS * MOST_BYTES];
            for (size_t i = 0; i < ROWS * source_bytes; i++)
                source[i] = (unsigned char)random_next(&random);
            for (size_t r = 0; r < ROWS; r++) {
                const uint16_t front[2] = {rk_f16_from_f32(random_float(&random)),
                                           rk_f16_from_f32(random_float(&random))};
                memcpy(source + r * source_bytes, front, sizeof front);
            }
            const struct rk_packed_rows packed = {formats[f], RK_LAYOUT_FBGEMM, dim, source_bytes};
            cr_assert_eq(rk_packed_row_bytes(formats[f], RK_LAYOUT_FBGEMM, dim), 4 + elements);
            cr_assert_eq(rk_packed_rows_convert(&packed, source, ROWS, out), ROWS);
            for (size_t r = 0; r < ROWS; r++) {
                float decoded[MOST_DIM];
                uint16_t front[2];
                memcpy(front, source + r * source_bytes, sizeof front);
                rk_row_traits(formats[f])->decode(out + r * rk_row_bytes(formats[f], dim), dim, decoded);
                for (uint32_t i = 0; i < dim; i++) {
                    const unsigned byte = source[r * source_bytes + 4 + i * bits / 8];
                    const unsigned q = byte >> i * bits % 8 & ((1u << bits) - 1);
                    cr_assert_eq(decoded[i], fmaf((float)q, rk_f16_to_f32(front[0]), rk_f16_to_f32(front[1])),
                                 "%s, dim %u, row %zu, element %u: %g", rk_row_format_name(formats[f]), dim, r, i,
                                 decoded[i]);
                }
            }
        }
}

Test(packed_rows, the_first_row_that_is_not_finite_is_found)
{
    struct random random = random_from_seed();
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const uint16_t bad_f16[] = {0x7e00, 0x7c00, 0xfc00}, bad_bf16[] = {0x7fc0, 0x7f80, 0xff80};
    enum { DIM = 12 };
    for (int f = 0; f < FORMATS; f++)
        for (int b = 0; b < 3; b++)
            for (int part = 0; part < 2; part++) {
                const enum rk_row_format format = formats[f];
                const size_t bytes = rk_row_bytes(format, DIM), at = random_below(&random, ROWS);
                unsigned char rows[ROWS * MOST_BYTES], out[ROWS * MOST_BYTES];
                encode_rows(&random, format, DIM, rows);
                unsigned char *row = rows + at * bytes;
                if (format == RK_ROWS_INT8)
                    memcpy(row + DIM + (size_t)part * 4, &bad[b], 4);
                else if (f >= FIRST_INTEGER)
                    memcpy(row + bytes - 4 + (size_t)part * 2, &bad_f16[b], 2);
                else
                    memcpy(row + part * 2 * (DIM - 1), format == RK_ROWS_F16 ? &bad_f16[b] : &bad_bf16[b], 2);
                const struct rk_packed_rows packed = {format, RK_LAYOUT_ROWS, DIM, bytes};
                cr_assert_eq(rk_packed_rows_convert(&packed, rows, ROWS, out), at, "%s, %g", rk_row_format_name(format),
                             (double)bad[b]);
            }
}

Test(packed_rows, a_finite_scale_that_no_element_may_be_multiplied_with_is_found)
{
    const float tail[2] = {2e38f, 0.0f};
    unsigned char row[4 + 8] = {1, 1, 1, 1}, out[4 + 8];
    memcpy(row + 4, tail, sizeof tail);
    const struct rk_packed_rows packed = {RK_ROWS_INT8, RK_LAYOUT_ROWS, 4, sizeof row};
    cr_assert_eq(rk_packed_rows_convert(&packed, row, 1, out), 0);
}
