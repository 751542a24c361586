/* Packed linear layers: packing, and what surrounds the multiplications of quant/gemm.h.
 *
 * A layer is one allocation: the panels, then the struct, then per output channel bias, scale and sum of weights.
 * Panels of 2 MiB and more begin on a huge page: a product walks through all of them, and in small pages every 64 lines
 * would cost a walk of the page table. Nothing changes after creation, so any thread may read. */
#include "quant/linear.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "quant/base/checked.h"
#include "quant/kernels.h"

enum { LINE = 64, HUGE_PAGE = 2 << 20, HUGE_FROM = 256 << 10, PREFETCHED_BYTES = 64 << 10 };

/* Rows whose floats are written and then quantised while they are still in cache. */
enum { SCRATCH_ROWS = 48 };

struct rk_linear {
    enum rk_dense_format format;
    bool calibrated;
    uint32_t columns, out, groups;
    size_t bytes, panel_bytes;
    rk_gemm_fn *gemm;
    float *bias, *scales, *gains; /* gains: [columns] or NULL */
    int32_t *sums;
    char *panels;
    float scale, inverse_scale; /* of a calibrated layer's input */
    int32_t zero;
};

static size_t round_up(size_t value, size_t to)
{
    return (value + to - 1) / to * to;
}

static rk_gemm_fn *gemm_of(enum rk_dense_format format)
{
    const struct rk_kernels *kernels = rk_kernels_get();
    rk_gemm_fn *const gemms[RK_DENSE_FORMAT_COUNT] = {kernels->gemm_f32, kernels->gemm_bf16, kernels->gemm_int8};
    return gemms[format];
}

/* ---- packing ---- */

static enum rk_status check(const struct rk_linear_source *source, struct rk_error *error)
{
    if ((unsigned)source->format >= RK_DENSE_FORMAT_COUNT)
        return rk_error_set(error, RK_INVALID, "the layer's format, %d, is unknown", (int)source->format);
    if (source->in == 0 || source->out == 0 || source->columns == 0)
        return rk_error_set(error, RK_INVALID, "the layer has %u inputs (%u columns) and %u outputs: at least 1 each",
                            source->in, source->columns, source->out);
    if (source->order == NULL && source->columns != source->in)
        return rk_error_set(error, RK_INVALID, "the layer has %u inputs, but %u columns in their own order", source->in,
                            source->columns);
    for (uint32_t c = 0; source->order != NULL && c < source->columns; c++)
        if (source->order[c] >= source->in && source->order[c] != RK_LINEAR_NO_COLUMN)
            return rk_error_set(error, RK_INVALID, "column %u of the layer's input is said to be input %u of %u", c,
                                source->order[c], source->in);
    for (uint32_t o = 0; source->out_order != NULL && o < source->out; o++)
        if (source->out_order[o] >= source->out)
            return rk_error_set(error, RK_INVALID, "channel %u of the layer's output is said to be output %u of %u", o,
                                source->out_order[o], source->out);
    if (source->format != RK_DENSE_INT8)
        return RK_OK;
    if (source->columns > RK_DENSE_INT8_MAX_IN)
        return rk_error_set(error, RK_INVALID, "an int8 layer takes at most %u inputs, this one has %u",
                            RK_DENSE_INT8_MAX_IN, source->columns);
    if (source->calibrated && !(source->low <= 0.0f && source->high >= 0.0f && source->low < source->high &&
                                isfinite(source->low) && isfinite(source->high)))
        return rk_error_set(error, RK_INVALID,
                            "the layer's inputs are said to be within [%g, %g]: a range that contains 0 is needed",
                            (double)source->low, (double)source->high);
    return RK_OK;
}

/* Weights to their places among the panels. */
static void pack(struct rk_linear *linear, const struct rk_linear_source *source)
{
    for (uint32_t c = 0; linear->gains != NULL && c < source->columns; c++) {
        const uint32_t from = source->order != NULL ? source->order[c] : c;
        linear->gains[c] = from == RK_LINEAR_NO_COLUMN ? 0.0f : source->gain[from];
    }
    const size_t element = rk_dense_element_bytes(linear->format), per_group = RK_GEMM_GROUP_BYTES / element;
    for (uint32_t o = 0; o < source->out; o++) {
        const uint32_t from_row = source->out_order != NULL ? source->out_order[o] : o;
        const char *row = (const char *)source->weight + (size_t)from_row * source->in * element;
        char *channel =
            linear->panels + o / RK_GEMM_CHANNELS * linear->panel_bytes + o % RK_GEMM_CHANNELS * RK_GEMM_GROUP_BYTES;
        for (uint32_t c = 0; c < source->columns; c++) {
            const uint32_t from = source->order != NULL ? source->order[c] : c;
            if (from == RK_LINEAR_NO_COLUMN)
                continue;
            memcpy(channel + c / per_group * RK_GEMM_LINE_BYTES + c % per_group * element, row + (size_t)from * element,
                   element);
            if (linear->format == RK_DENSE_INT8)
                linear->sums[o] += ((const int8_t *)row)[from];
        }
        linear->bias[o] = source->bias != NULL ? source->bias[from_row] : 0.0f;
        linear->scales[o] = linear->format == RK_DENSE_INT8 ? source->scale[from_row] : 1.0f;
    }
}

enum rk_status rk_linear_create(const struct rk_linear_source *source, struct rk_linear **created,
                                struct rk_error *error)
{
    enum rk_status status = check(source, error);
    if (status != RK_OK)
        return status;
    const size_t per_group = RK_GEMM_GROUP_BYTES / rk_dense_element_bytes(source->format);
    const uint32_t groups = (uint32_t)((source->columns + per_group - 1) / per_group);
    const size_t panel_bytes = ((size_t)groups | 1) * RK_GEMM_LINE_BYTES,
                 panels = ((size_t)source->out + RK_GEMM_CHANNELS - 1) / RK_GEMM_CHANNELS,
                 channels = panels * RK_GEMM_CHANNELS, head_bytes = round_up(sizeof(struct rk_linear), LINE),
                 behind_bytes = head_bytes + (3 * channels + source->columns) * sizeof(float);
    const bool gained = source->format == RK_DENSE_INT8 && source->gain != NULL;
    uint64_t panels_bytes, bytes;
    void *block;
    bool fits = rk_checked_mul(panels, panel_bytes, &panels_bytes) &&
                rk_checked_add(panels_bytes, behind_bytes, &bytes) && bytes < PTRDIFF_MAX - HUGE_PAGE;
    const size_t alignment = fits && bytes >= HUGE_FROM ? HUGE_PAGE : LINE;
    if (fits) {
        bytes = round_up(bytes, alignment);
        fits = posix_memalign(&block, alignment, bytes) == 0;
    }
    if (!fits)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for a layer of %u inputs and %u outputs",
                            source->columns, source->out);
    if (alignment == HUGE_PAGE)
        madvise(block, bytes, MADV_HUGEPAGE); /* a wish: without it all works as well, only slower */
    memset(block, 0, bytes);
    struct rk_linear *linear = (struct rk_linear *)((char *)block + panels_bytes);
    float *bias = (float *)((char *)linear + head_bytes);
    *linear = (struct rk_linear){.format = source->format,
                                 .calibrated = source->format == RK_DENSE_INT8 && source->calibrated,
                                 .columns = source->columns,
                                 .out = source->out,
                                 .groups = groups,
                                 .bytes = bytes,
                                 .panel_bytes = panel_bytes,
                                 .gemm = gemm_of(source->format),
                                 .bias = bias,
                                 .scales = bias + channels,
                                 .sums = (int32_t *)(bias + 2 * channels),
                                 .gains = gained ? bias + 3 * channels : NULL,
                                 .panels = block};
    if (linear->calibrated)
        rk_dense_input_scale(source->low, source->high, &linear->scale, &linear->inverse_scale, &linear->zero);
    pack(linear, source);
    *created = linear;
    return RK_OK;
}

void rk_linear_destroy(struct rk_linear *linear)
{
    if (linear != NULL)
        free(linear->panels); /* the block begins with them */
}

uint32_t rk_linear_columns(const struct rk_linear *linear)
{
    return linear->columns;
}

uint32_t rk_linear_out(const struct rk_linear *linear)
{
    return linear->out;
}

enum rk_dense_format rk_linear_format(const struct rk_linear *linear)
{
    return linear->format;
}

size_t rk_linear_bytes(const struct rk_linear *linear)
{
    return linear->bytes;
}

/* ---- running ---- */

size_t rk_matrix_row_bytes(enum rk_dense_format format, uint32_t columns)
{
    return round_up(columns * rk_dense_element_bytes(format), LINE) | LINE; /* an odd number of lines, as of panels */
}

static char *row_of(const struct rk_matrix *matrix, uint32_t row)
{
    return (char *)matrix->values + row * matrix->row_bytes;
}

/* Zeros behind the columns of a layer's input, to the end of the last group. */
static void pad(const struct rk_linear *linear, uint32_t rows, struct rk_matrix *matrix)
{
    const size_t used = linear->columns * rk_dense_element_bytes(linear->format),
                 padding = (size_t)linear->groups * RK_GEMM_GROUP_BYTES - used;
    for (uint32_t r = 0; padding > 0 && r < rows; r++)
        memset(row_of(matrix, r) + used, 0, padding);
}

enum { GAIN_COLUMNS = 512 }; /* multiplied at a time, on the stack */

static uint32_t multiply_gains(const struct rk_linear *linear, const float *x, uint32_t first,
                               float to[static GAIN_COLUMNS])
{
    const uint32_t left = linear->columns - first, count = left < GAIN_COLUMNS ? left : GAIN_COLUMNS;
    const float *gains = linear->gains + first;
    for (uint32_t c = 0; c < count; c++)
        to[c] = x[first + c] * gains[c];
    return count;
}

/* One row of a layer with gains: once through it for the range, once for the bytes. A row of one stretch, as most are, is
 * multiplied once. */
static void convert_with_gains(const struct rk_linear *linear, const float *x, struct rk_matrix *to, uint32_t r)
{
    const struct rk_kernels *kernels = rk_kernels_get();
    uint8_t *row = (uint8_t *)row_of(to, r);
    float part[GAIN_COLUMNS], inverse_scale = linear->inverse_scale, low = 0.0f, high = 0.0f;
    int32_t zero = linear->zero;
    for (uint32_t c = 0, count; !linear->calibrated && c < linear->columns; c += count) {
        float part_low, part_high;
        count = multiply_gains(linear, x, c, part);
        kernels->range(part, count, &part_low, &part_high);
        low = part_low < low ? part_low : low;
        high = part_high <= high || isnan(high) ? high : part_high;
    }
    if (!linear->calibrated) {
        rk_dense_input_scale(low, high, &to->scales[r], &inverse_scale, &to->zeros[r]);
        zero = to->zeros[r];
    }
    const bool multiplied = !linear->calibrated && linear->columns <= GAIN_COLUMNS;
    for (uint32_t c = 0, count; c < linear->columns; c += count) {
        count = multiplied ? linear->columns : multiply_gains(linear, x, c, part);
        kernels->to_u8(part, count, inverse_scale, zero, row + c);
    }
}

/* One row, without padding. */
static void convert(const struct rk_linear *linear, const float *x, struct rk_matrix *to, uint32_t r)
{
    const struct rk_kernels *kernels = rk_kernels_get();
    void *row = row_of(to, r);
    if (linear->format == RK_DENSE_F32) {
        memcpy(row, x, linear->columns * sizeof *x);
    } else if (linear->format == RK_DENSE_BF16) {
        kernels->to_bf16(x, linear->columns, row);
    } else if (linear->gains != NULL) {
        convert_with_gains(linear, x, to, r);
    } else if (linear->calibrated) {
        kernels->to_u8(x, linear->columns, linear->inverse_scale, linear->zero, row);
    } else {
        float low, high, inverse_scale;
        kernels->range(x, linear->columns, &low, &high);
        rk_dense_input_scale(low, high, &to->scales[r], &inverse_scale, &to->zeros[r]);
        kernels->to_u8(x, linear->columns, inverse_scale, to->zeros[r], row);
    }
}

void rk_linear_input(const struct rk_linear *linear, const float *x, size_t x_stride, uint32_t rows,
                     struct rk_matrix *to)
{
    for (uint32_t r = 0; r < rows; r++)
        convert(linear, x + r * x_stride, to, r);
    pad(linear, rows, to);
}

/* A range is known only when the whole row is: its floats must be kept until then. */
static bool needs_scratch(const struct rk_linear *next)
{
    return next != NULL && next->format == RK_DENSE_INT8 && (!next->calibrated || next->gains != NULL);
}

size_t rk_linear_scratch_floats(const struct rk_linear *linear, const struct rk_linear *next)
{
    return needs_scratch(next) ? round_up(linear->out, LINE / sizeof(float)) : 0;
}

size_t rk_linear_start_floats(const struct rk_linear *linear)
{
    return round_up(linear->out, RK_GEMM_CHANNELS);
}

void rk_linear_run(const struct rk_linear *linear, const struct rk_matrix *x, uint32_t rows, bool relu,
                   const struct rk_linear *next, float *scratch, struct rk_matrix *y)
{
    assert(next == NULL || next->columns == linear->out);
    const bool own_ranges = linear->format == RK_DENSE_INT8 && !linear->calibrated;
    struct rk_gemm gemm = {.x_bytes = x->row_bytes,
                           .panels = linear->panels,
                           .panel_bytes = linear->panel_bytes,
                           .groups = linear->groups,
                           .out = linear->out,
                           .bias = linear->bias,
                           .scales = linear->scales,
                           .sums = linear->sums,
                           .x_step = own_ranges,
                           .relu = relu,
                           .to = next != NULL ? next->format : RK_DENSE_F32,
                           .y_bytes = y->row_bytes,
                           .ahead = next != NULL ? next->panels : linear->panels};
    uint32_t step = rows;
    if (needs_scratch(next)) {
        step = SCRATCH_ROWS;
        gemm.to = RK_DENSE_F32;
        gemm.y = scratch;
        gemm.y_bytes = rk_linear_scratch_floats(linear, next) * sizeof *scratch;
    } else if (gemm.to == RK_DENSE_INT8) {
        gemm.inverse_scale = next->inverse_scale;
        gemm.zero = next->zero;
    }
    for (uint32_t first = 0; first < rows; first += step) {
        gemm.rows = rows - first < step ? rows - first : step;
        gemm.x = row_of(x, first);
        gemm.biases = x->starts != NULL ? x->starts + first : NULL;
        gemm.x_scales = own_ranges ? x->scales + first : &linear->scale;
        gemm.x_zeros = own_ranges ? x->zeros + first : &linear->zero;
        if (!needs_scratch(next))
            gemm.y = row_of(y, first);
        linear->gemm(&gemm);
        for (uint32_t r = 0; needs_scratch(next) && r < gemm.rows; r++)
            convert(next, scratch + r * rk_linear_scratch_floats(linear, next), y, first + r);
    }
    if (next != NULL)
        pad(next, rows, y);
}

void rk_linear_prefetch(const struct rk_linear *linear)
{
    for (size_t at = 0; at < linear->bytes && at < PREFETCHED_BYTES; at += LINE)
        __builtin_prefetch(linear->panels + at, 0, 2);
}
