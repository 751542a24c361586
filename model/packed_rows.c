/* FBGEMM's table-batched inference keeps scale and bias as float16 in front of a row's elements, whatever their width;
 * quant/rows.h has them behind, and as float32 for int8. Both orders of the elements are the same. Pure functions. */
#include "model/packed_rows.h"

#include <math.h>
#include <string.h>

#include "quant/minifloat.h"

struct affine {
    float scale, bias;
};

enum { FRONT_BYTES = 4, HALF_BYTES = 2 };

static uint64_t element_bytes(enum rk_row_format format, uint32_t dim)
{
    return ((uint64_t)dim * rk_row_traits(format)->bits + 7) / 8;
}

uint64_t rk_packed_row_bytes(enum rk_row_format format, enum rk_row_layout layout, uint32_t dim)
{
    return layout == RK_LAYOUT_FBGEMM ? element_bytes(format, dim) + FRONT_BYTES : rk_row_bytes(format, dim);
}

static bool has_tail(enum rk_row_format format)
{
    return rk_row_traits(format)->tail_bytes > 0;
}

static struct affine from_halves(const unsigned char *bytes)
{
    uint16_t halves[2];
    memcpy(halves, bytes, sizeof halves);
    return (struct affine){rk_f16_to_f32(halves[0]), rk_f16_to_f32(halves[1])};
}

/* What the row, packed as quant/rows.h says, ends in. */
static struct affine tail_of(enum rk_row_format format, const unsigned char *tail)
{
    struct affine affine;
    if (rk_row_traits(format)->tail_bytes == FRONT_BYTES)
        return from_halves(tail);
    memcpy(&affine.scale, tail, sizeof affine.scale);
    memcpy(&affine.bias, tail + sizeof affine.scale, sizeof affine.bias);
    return affine;
}

/* Whatever its elements are: can they decode to numbers only? */
static bool is_finite_affine(enum rk_row_format format, struct affine affine)
{
    const float levels = (float)((1u << rk_row_traits(format)->bits) - 1);
    return isfinite(affine.scale) && isfinite(affine.bias) && isfinite(fmaf(levels, affine.scale, affine.bias));
}

static bool are_finite_halves(enum rk_row_format format, const unsigned char *row, uint32_t dim)
{
    const uint16_t exponent = format == RK_ROWS_F16 ? 0x7c00 : 0x7f80; /* all ones: infinity or NaN */
    for (uint32_t i = 0; i < dim; i++) {
        uint16_t half;
        memcpy(&half, row + (size_t)i * HALF_BYTES, sizeof half);
        if ((half & exponent) == exponent)
            return false;
    }
    return true;
}

uint64_t rk_packed_rows_convert(const struct rk_packed_rows *packed, const void *source, uint64_t count, void *rows)
{
    const enum rk_row_format format = packed->format;
    const uint64_t elements = element_bytes(format, packed->dim), row_bytes = rk_row_bytes(format, packed->dim);
    const unsigned char *from = source;
    unsigned char *to = rows;
    for (uint64_t r = 0; r < count; r++, from += packed->source_bytes, to += row_bytes) {
        if (packed->layout == RK_LAYOUT_ROWS) {
            memcpy(to, from, row_bytes);
        } else {
            const struct affine affine = from_halves(from);
            memcpy(to, from + FRONT_BYTES, elements);
            if (row_bytes - elements == FRONT_BYTES) {
                memcpy(to + elements, from, FRONT_BYTES);
            } else {
                memcpy(to + elements, &affine.scale, sizeof affine.scale);
                memcpy(to + elements + sizeof affine.scale, &affine.bias, sizeof affine.bias);
            }
        }
        if (has_tail(format) ? !is_finite_affine(format, tail_of(format, to + elements))
                             : !are_finite_halves(format, to, packed->dim))
            return r;
    }
    return count;
}
