/* Packed layers against float64 arithmetic, and what they promise: rows that do not depend on one another, and the same
 * bytes for the next layer whichever way they are made. */
#include "quant/linear.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/random.h"

enum { SHAPES = 60 };

/* A layer, and the float32 numbers that its stored weights stand for. */
struct layer {
    struct rk_linear_source source;
    float *weight, *scale, *bias;
    void *elements;
    uint32_t *order;
    struct rk_linear *linear;
};

static void *zeroed(size_t count, size_t bytes)
{
    void *memory = aligned_alloc(64, (count * bytes + 127) / 64 * 64);
    cr_assert_not_null(memory);
    return memset(memory, 0, count * bytes);
}

static struct layer layer_create(struct random *random, enum rk_dense_format format, uint32_t in, uint32_t out,
                                 bool calibrated)
{
    struct layer layer = {0};
    const size_t count = (size_t)in * out;
    layer.weight = zeroed(count, sizeof(float));
    layer.scale = zeroed(out, sizeof(float));
    layer.bias = zeroed(out, sizeof(float));
    layer.elements = zeroed(count, rk_dense_element_bytes(format));
    for (size_t i = 0; i < count; i++)
        layer.weight[i] = random_float(random);
    for (uint32_t o = 0; o < out; o++)
        layer.bias[o] = random_float(random);
    rk_dense_encode(format, layer.weight, out, in, layer.elements, layer.scale);
    rk_dense_decode(format, layer.elements, layer.scale, out, in, layer.weight);
    layer.source = (struct rk_linear_source){.format = format,
                                             .in = in,
                                             .out = out,
                                             .weight = layer.elements,
                                             .scale = layer.scale,
                                             .bias = layer.bias,
                                             .columns = in,
                                             .calibrated = calibrated,
                                             .low = -1.25f,
                                             .high = 1.5f};
    return layer;
}

static void layer_pack(struct layer *layer)
{
    struct rk_error error = {0};
    cr_assert_eq(rk_linear_create(&layer->source, &layer->linear, &error), RK_OK, "%s", error.text);
}

static void layer_destroy(struct layer *layer)
{
    rk_linear_destroy(layer->linear);
    free(layer->weight);
    free(layer->scale);
    free(layer->bias);
    free(layer->elements);
    free(layer->order);
}

static struct rk_matrix matrix_create(enum rk_dense_format format, uint32_t rows, uint32_t columns)
{
    struct rk_matrix matrix = {.row_bytes = rk_matrix_row_bytes(format, columns)};
    matrix.values = zeroed(rows, matrix.row_bytes);
    matrix.scales = zeroed(rows, sizeof(float));
    matrix.zeros = zeroed(rows, sizeof(int32_t));
    memset(matrix.values, 0xff, rows * matrix.row_bytes); /* NaN in padding would show */
    return matrix;
}

static void matrix_destroy(struct rk_matrix *matrix)
{
    free(matrix->values);
    free(matrix->scales);
    free(matrix->zeros);
}

static float *random_rows(struct random *random, uint32_t rows, uint32_t columns)
{
    float *x = zeroed((size_t)rows * columns, sizeof *x);
    for (size_t i = 0; i < (size_t)rows * columns; i++)
        x[i] = random_float(random);
    return x;
}

/* y[rows][out] in float32. */
static float *run_floats(const struct rk_linear *linear, const float *x, uint32_t rows, bool relu)
{
    struct rk_matrix from = matrix_create(rk_linear_format(linear), rows, rk_linear_columns(linear));
    float *y = zeroed((size_t)rows * rk_linear_out(linear), sizeof *y);
    struct rk_matrix to = {.values = y, .row_bytes = rk_linear_out(linear) * sizeof *y};
    rk_linear_input(linear, x, rk_linear_columns(linear), rows, &from);
    rk_linear_run(linear, &from, rows, relu, NULL, NULL, &to);
    matrix_destroy(&from);
    return y;
}

static struct layer random_layer(struct random *random, enum rk_dense_format format)
{
    return layer_create(random, format, (uint32_t)random_between(random, 1, 300),
                        (uint32_t)random_between(random, 1, 90), random_below(random, 2));
}

/* What element (r, c) of the layer's input stands for, and how far the conversion may have moved it. */
static double input_value(const struct layer *layer, const struct rk_matrix *x, uint32_t r, uint32_t c, float value,
                          float low, float high)
{
    const char *row = (const char *)x->values + r * x->row_bytes;
    double stands_for = (double)((const float *)row)[layer->source.format == RK_DENSE_F32 ? c : 0], bound = 0.0;
    if (layer->source.format == RK_DENSE_BF16) {
        stands_for = (double)rk_bf16_to_f32(((const uint16_t *)row)[c]);
        bound = fabs((double)value) * 0x1p-8;
    } else if (layer->source.format == RK_DENSE_INT8) {
        float scale = x->scales[r], inverse;
        int32_t zero = x->zeros[r];
        if (layer->source.calibrated)
            rk_dense_input_scale(layer->source.low, layer->source.high, &scale, &inverse, &zero);
        else
            cr_assert_float_eq(scale, (high - low) / 255.0f, 1e-6f * scale, "scale %g of a row within [%g, %g]",
                               (double)scale, (double)low, (double)high);
        stands_for = (double)scale * (((const uint8_t *)row)[c] - zero);
        bound = 1.0001 * (double)scale; /* half a step for the number, half for the zero at the range's ends */
    }
    cr_assert_leq(fabs(stands_for - (double)value), bound, "%s row %u column %u: %.9g for %.9g",
                  rk_dense_format_name(layer->source.format), r, c, stands_for, (double)value);
    return stands_for;
}

static void check_layer(struct layer *layer, const float *x, uint32_t rows)
{
    const uint32_t columns = layer->source.columns, out = layer->source.out;
    const enum rk_dense_format format = layer->source.format;
    struct rk_matrix from = matrix_create(format, rows, columns);
    rk_linear_input(layer->linear, x, columns, rows, &from);
    for (int relu = 0; relu < 2; relu++) {
        float *y = run_floats(layer->linear, x, rows, relu);
        for (uint32_t r = 0; r < rows; r++) {
            float low = 0.0f, high = 0.0f;
            for (uint32_t c = 0; c < columns; c++) {
                low = fminf(low, x[r * columns + c]);
                high = fmaxf(high, x[r * columns + c]);
            }
            for (uint32_t o = 0; o < out; o++) {
                double exact = (double)layer->bias[o], size = fabs(exact);
                for (uint32_t c = 0; c < columns; c++) {
                    const uint32_t at = layer->order != NULL ? layer->order[c] : c;
                    const double value = input_value(layer, &from, r, c, x[r * columns + c], low, high);
                    if (at == RK_LINEAR_NO_COLUMN)
                        continue;
                    const double product = value * (double)layer->weight[(size_t)o * layer->source.in + at];
                    exact += product;
                    size += fabs(product);
                }
                /* One rounding of half a unit for each term of the sum and the bias; int8: the sum is exact, four
                 * roundings follow, and decoded weights were rounded themselves. */
                const double bound = 0x1.01p-24 * size * (format == RK_DENSE_INT8 ? 6 : columns + 1) + 1e-36;
                const double want = relu && exact < 0.0 ? 0.0 : exact, have = (double)y[(size_t)r * out + o];
                cr_assert_leq(fabs(have - want), bound, "%s %u to %u, row %u of %u, out %u: %.9g, exactly %.9g (%.3g)",
                              rk_dense_format_name(format), layer->source.in, out, r, rows, o, have, want, bound);
            }
        }
        free(y);
    }
    matrix_destroy(&from);
}

Test(linear, results_are_within_the_bound_of_float64_arithmetic)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (int i = 0; i < SHAPES; i++) {
            struct layer layer = i == 0 ? layer_create(&random, format, 1, 1, false) : random_layer(&random, format);
            const uint32_t rows = (uint32_t)random_between(&random, 1, 7);
            float *x = random_rows(&random, rows, layer.source.in);
            layer_pack(&layer);
            check_layer(&layer, x, rows);
            free(x);
            layer_destroy(&layer);
        }
}

Test(linear, wide_inputs_are_within_the_bound_too)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++) {
        struct layer layer = layer_create(&random, format, 20000, 19, false);
        float *x = random_rows(&random, 3, 20000);
        layer_pack(&layer);
        check_layer(&layer, x, 3);
        free(x);
        layer_destroy(&layer);
    }
}

Test(linear, column_order_is_folded_into_the_weights)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (int i = 0; i < SHAPES; i++) {
            struct layer layer = random_layer(&random, format);
            const uint32_t columns = (uint32_t)random_between(&random, 1, 2 * layer.source.in);
            layer.order = zeroed(columns, sizeof *layer.order);
            for (uint32_t c = 0; c < columns; c++)
                layer.order[c] = random_below(&random, 4) == 0 ? RK_LINEAR_NO_COLUMN
                                                               : (uint32_t)random_below(&random, layer.source.in);
            layer.source.order = layer.order;
            layer.source.columns = columns;
            float *x = random_rows(&random, 2, columns);
            layer_pack(&layer);
            cr_assert_eq(rk_linear_columns(layer.linear), columns);
            check_layer(&layer, x, 2);
            free(x);
            layer_destroy(&layer);
        }
}

Test(linear, a_row_alone_has_the_very_bits_that_it_has_in_a_batch)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (int i = 0; i < SHAPES; i++) {
            struct layer layer = random_layer(&random, format);
            const uint32_t rows = (uint32_t)random_between(&random, 2, 40), in = layer.source.in,
                           out = layer.source.out;
            float *x = random_rows(&random, rows, in);
            layer_pack(&layer);
            float *together = run_floats(layer.linear, x, rows, true);
            for (uint32_t r = 0; r < rows; r++) {
                float *alone = run_floats(layer.linear, x + r * in, 1, true);
                cr_assert_eq(memcmp(alone, together + r * out, out * sizeof *alone), 0, "%s %u to %u: row %u of %u",
                             rk_dense_format_name(format), in, out, r, rows);
                free(alone);
            }
            free(together);
            free(x);
            layer_destroy(&layer);
        }
}

/* For every format of a layer and of the next one. */
Test(linear, what_the_next_layer_reads_is_what_it_would_make_of_floats)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (int i = 0; i < 4 * SHAPES; i++) {
            struct layer layer = random_layer(&random, format),
                         next = layer_create(&random, (enum rk_dense_format)(i % RK_DENSE_FORMAT_COUNT),
                                             layer.source.out, 3, random_below(&random, 2));
            const uint32_t rows = (uint32_t)random_between(&random, 1, 130), in = layer.source.in,
                           out = layer.source.out;
            const bool relu = random_below(&random, 2);
            float *x = random_rows(&random, rows, in);
            layer_pack(&layer);
            layer_pack(&next);
            struct rk_matrix from = matrix_create(format, rows, in),
                             have = matrix_create(next.source.format, rows, out),
                             want = matrix_create(next.source.format, rows, out);
            float *scratch = zeroed(rows * rk_linear_scratch_floats(layer.linear, next.linear), sizeof *scratch);
            rk_linear_input(layer.linear, x, in, rows, &from);
            rk_linear_run(layer.linear, &from, rows, relu, next.linear, scratch, &have);
            float *y = run_floats(layer.linear, x, rows, relu);
            rk_linear_input(next.linear, y, out, rows, &want);
            cr_assert_eq(memcmp(have.values, want.values, rows * want.row_bytes), 0, "%s to %s, %u rows, %u to %u",
                         rk_dense_format_name(format), rk_dense_format_name(next.source.format), rows, in, out);
            cr_assert_eq(memcmp(have.scales, want.scales, rows * sizeof *want.scales), 0);
            cr_assert_eq(memcmp(have.zeros, want.zeros, rows * sizeof *want.zeros), 0);
            free(y);
            free(scratch);
            free(x);
            matrix_destroy(&from);
            matrix_destroy(&have);
            matrix_destroy(&want);
            layer_destroy(&layer);
            layer_destroy(&next);
        }
}

Test(linear, rows_of_zeros_give_the_bias)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++) {
        struct layer layer = random_layer(&random, format);
        float *x = zeroed(layer.source.in, sizeof *x);
        layer_pack(&layer);
        float *y = run_floats(layer.linear, x, 1, false);
        for (uint32_t o = 0; o < layer.source.out; o++)
            cr_assert_eq(y[o], layer.bias[o], "%s: %.9g, bias %.9g", rk_dense_format_name(format), (double)y[o],
                         (double)layer.bias[o]);
        free(y);
        free(x);
        layer_destroy(&layer);
    }
}

/* What is no number shows, but for a calibrated layer, whose bytes cannot carry it; other rows are not touched by it.
 */
Test(linear, a_row_with_nan_or_infinity_stays_visible_and_alone)
{
    struct random random = random_from_seed();
    const float odd[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-42f};
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
            for (int calibrated = 0; calibrated < 2; calibrated++) {
                struct layer layer = layer_create(&random, format, 37, 21, calibrated);
                float *x = random_rows(&random, 3, 37);
                layer_pack(&layer);
                float *before = run_floats(layer.linear, x, 3, true);
                x[37 + random_below(&random, 37)] = odd[i];
                float *after = run_floats(layer.linear, x, 3, true);
                cr_assert_eq(memcmp(before, after, 21 * sizeof *before), 0);
                cr_assert_eq(memcmp(before + 2 * 21, after + 2 * 21, 21 * sizeof *before), 0);
                for (int o = 0; o < 21 && isnan(odd[i]) && !(format == RK_DENSE_INT8 && calibrated); o++)
                    cr_assert(isnan(after[21 + o]), "%s: %g", rk_dense_format_name(format), (double)after[21 + o]);
                free(before);
                free(after);
                free(x);
                layer_destroy(&layer);
            }
}

Test(linear, sources_that_make_no_sense_are_refused)
{
    static const uint32_t outside[] = {0, 4, 1, 2};
    const float weight[16] = {0}, scale[4] = {0};
    const struct rk_linear_source good = {
        .format = RK_DENSE_INT8, .in = 4, .out = 4, .weight = weight, .scale = scale, .columns = 4};
    struct rk_linear_source wrong[] = {good, good, good, good, good, good, good, good, good, good};
    wrong[0].in = 0;
    wrong[1].out = 0;
    wrong[2].columns = 0;
    wrong[3].columns = 5;
    wrong[4].order = outside;
    wrong[5].format = RK_DENSE_FORMAT_COUNT;
    wrong[6].columns = wrong[6].in = RK_DENSE_INT8_MAX_IN + 1;
    wrong[7].calibrated = true;
    wrong[7].low = 0.5f;
    wrong[7].high = 1.0f;
    wrong[8].calibrated = true;
    wrong[8].high = INFINITY;
    wrong[9].out_order = outside;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct rk_linear *linear = NULL;
        struct rk_error error = {0};
        cr_assert_eq(rk_linear_create(&wrong[i], &linear, &error), RK_INVALID, "%zu: %s", i, error.text);
        cr_assert_null(linear);
    }
    struct rk_linear *linear = NULL;
    struct rk_error error = {0};
    cr_assert_eq(rk_linear_create(&good, &linear, &error), RK_OK, "%s", error.text);
    rk_linear_prefetch(linear);
    cr_assert_gt(rk_linear_bytes(linear), 16);
    rk_linear_destroy(linear);
    rk_linear_destroy(NULL);
}

/* Multiplying inside or before gives the same bits: for rows longer than one stretch of gains, columns in any order,
 * and also where the layer is fed by another. */
Test(linear, gains_multiply_the_inputs_before_they_are_rounded)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 60; round++) {
        const uint32_t in = (uint32_t)random_between(&random, 1, 1200), out = (uint32_t)random_between(&random, 1, 40);
        const uint32_t rows = (uint32_t)random_between(&random, 1, 9);
        struct layer plain = layer_create(&random, RK_DENSE_INT8, in, out, random_below(&random, 2));
        if (random_below(&random, 2)) {
            plain.order = zeroed(in, sizeof *plain.order);
            for (uint32_t c = 0; c < in; c++)
                plain.order[c] = random_below(&random, 5) == 0 ? RK_LINEAR_NO_COLUMN : in - 1 - c;
            plain.source.order = plain.order;
        }
        layer_pack(&plain);
        const uint32_t columns = plain.source.columns;
        float *gains = random_rows(&random, 1, in), *x = random_rows(&random, rows, columns);
        float *multiplied = random_rows(&random, rows, columns);
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t c = 0; c < columns; c++) {
                const uint32_t from = plain.order != NULL ? plain.order[c] : c;
                multiplied[r * columns + c] = from == RK_LINEAR_NO_COLUMN ? 0.0f : x[r * columns + c] * gains[from];
            }
        struct rk_linear_source source = plain.source;
        source.gain = gains;
        struct rk_linear *with = NULL;
        struct rk_error error = {0};
        cr_assert_eq(rk_linear_create(&source, &with, &error), RK_OK, "%s", error.text);
        float *got = run_floats(with, x, rows, false), *wanted = run_floats(plain.linear, multiplied, rows, false);
        cr_assert_arr_eq(got, wanted, rows * out * sizeof *got, "round %d: %u inputs, %u outputs, %u rows", round, in,
                         out, rows);
        free(got);
        free(wanted);
        free(multiplied);
        free(x);
        free(gains);
        rk_linear_destroy(with);
        layer_destroy(&plain);
    }
}

Test(linear, a_layer_with_gains_reads_what_another_wrote)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 40; round++) {
        const enum rk_dense_format format = (enum rk_dense_format)random_below(&random, RK_DENSE_FORMAT_COUNT);
        struct layer first = layer_create(&random, format, 30, 45, false);
        struct layer second = layer_create(&random, RK_DENSE_INT8, 45, 20, false);
        layer_pack(&first);
        struct rk_linear_source source = second.source;
        float *gains = random_rows(&random, 1, 45), *x = random_rows(&random, 7, 30);
        struct rk_linear *with = NULL;
        struct rk_error error = {0};
        source.gain = gains;
        cr_assert_eq(rk_linear_create(&source, &with, &error), RK_OK, "%s", error.text);
        float *between = run_floats(first.linear, x, 7, true), *wanted = run_floats(with, between, 7, false);
        struct rk_matrix in = matrix_create(format, 7, 30), middle = matrix_create(RK_DENSE_INT8, 7, 45);
        float *scratch = zeroed(7, rk_linear_scratch_floats(first.linear, with) * sizeof(float));
        float *got = zeroed(7, 20 * sizeof *got);
        struct rk_matrix to = {.values = got, .row_bytes = 20 * sizeof *got};
        rk_linear_input(first.linear, x, 30, 7, &in);
        rk_linear_run(first.linear, &in, 7, true, with, scratch, &middle);
        rk_linear_run(with, &middle, 7, false, NULL, NULL, &to);
        cr_assert_arr_eq(got, wanted, 7 * 20 * sizeof *got, "round %d", round);
        free(between);
        free(wanted);
        free(got);
        free(scratch);
        free(x);
        free(gains);
        matrix_destroy(&in);
        matrix_destroy(&middle);
        rk_linear_destroy(with);
        layer_destroy(&first);
        layer_destroy(&second);
    }
}

Test(linear, channels_come_out_in_the_order_that_is_asked_for)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (int i = 0; i < SHAPES; i++) {
            struct layer layer = random_layer(&random, format);
            const uint32_t in = layer.source.in, out = layer.source.out;
            float *x = random_rows(&random, 3, in);
            layer_pack(&layer);
            float *plain = run_floats(layer.linear, x, 3, false);
            uint32_t *order = zeroed(out, sizeof *order);
            for (uint32_t o = 0; o < out; o++)
                order[o] = (uint32_t)random_below(&random, out);
            struct rk_linear_source source = layer.source;
            struct rk_linear *ordered = NULL;
            struct rk_error error = {0};
            source.out_order = order;
            cr_assert_eq(rk_linear_create(&source, &ordered, &error), RK_OK, "%s", error.text);
            float *y = run_floats(ordered, x, 3, false);
            for (uint32_t at = 0; at < 3 * out; at++)
                cr_assert_eq(y[at], plain[at / out * out + order[at % out]], "%s row %u: output %u is not output %u",
                             rk_dense_format_name(format), at / out, at % out, order[at % out]);
            rk_linear_destroy(ordered);
            free(order);
            free(plain);
            free(y);
            free(x);
            layer_destroy(&layer);
        }
}

/* A row that begins at a start has the bits of a layer whose bias that start is, whatever reads it next. */
Test(linear, a_start_stands_in_for_the_bias)
{
    struct random random = random_from_seed();
    for (enum rk_dense_format format = 0; format < RK_DENSE_FORMAT_COUNT; format++)
        for (int i = 0; i < SHAPES; i++) {
            struct layer layer = random_layer(&random, format),
                         next = layer_create(&random, (enum rk_dense_format)(i % RK_DENSE_FORMAT_COUNT),
                                             layer.source.out, 3, random_below(&random, 2));
            const uint32_t rows = (uint32_t)random_between(&random, 1, 110), in = layer.source.in,
                           out = layer.source.out, num_starts = (uint32_t)random_between(&random, 1, 4);
            const bool relu = random_below(&random, 2);
            layer_pack(&layer);
            layer_pack(&next);
            const size_t stride = rk_linear_start_floats(layer.linear);
            cr_assert(stride >= out);
            float *starts = random_rows(&random, num_starts, (uint32_t)stride), *x = random_rows(&random, rows, in);
            const float **of_rows = zeroed(rows, sizeof *of_rows);
            for (uint32_t r = 0; r < rows; r++)
                of_rows[r] = starts + random_below(&random, num_starts) * stride;
            struct rk_matrix from = matrix_create(format, rows, in),
                             have = matrix_create(next.source.format, rows, out),
                             want = matrix_create(next.source.format, rows, out);
            float *scratch = zeroed(rows * rk_linear_scratch_floats(layer.linear, next.linear), sizeof *scratch);
            rk_linear_input(layer.linear, x, in, rows, &from);
            from.starts = of_rows;
            rk_linear_run(layer.linear, &from, rows, relu, next.linear, scratch, &have);
            for (uint32_t s = 0; s < num_starts; s++) {
                struct rk_linear_source source = layer.source;
                struct rk_linear *biased = NULL;
                struct rk_error error = {0};
                source.bias = starts + s * stride;
                cr_assert_eq(rk_linear_create(&source, &biased, &error), RK_OK, "%s", error.text);
                float *y = run_floats(biased, x, rows, relu);
                rk_linear_input(next.linear, y, out, rows, &want);
                for (uint32_t r = 0; r < rows; r++) {
                    const size_t at = r * want.row_bytes;
                    if (of_rows[r] == source.bias)
                        cr_assert_arr_eq((char *)have.values + at, (char *)want.values + at, want.row_bytes,
                                         "%s to %s: row %u of %u", rk_dense_format_name(format),
                                         rk_dense_format_name(next.source.format), r, rows);
                }
                free(y);
                rk_linear_destroy(biased);
            }
            free(scratch);
            free(of_rows);
            free(starts);
            free(x);
            matrix_destroy(&from);
            matrix_destroy(&have);
            matrix_destroy(&want);
            layer_destroy(&layer);
            layer_destroy(&next);
        }
}
