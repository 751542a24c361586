/* Integer rows against PyTorch: the bytes of its packers and the sums of its pooled lookups
 * (tests/golden/quantized_rows). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/rows.h"
#include "tests/unit/quant/variants.h"

/* A safetensors file written by a trusted hand: a length, JSON without blanks, tensors. */
struct golden {
    unsigned char *bytes;
    size_t dim, rows, bags;
};

/* The JSON object of a tensor, where its shape begins. */
static const char *shape_of(const struct golden *golden, const char *name)
{
    char key[40];
    snprintf(key, sizeof key, "\"%s\":{", name);
    const char *entry = strstr((const char *)golden->bytes + 8, key);
    cr_assert_not_null(entry, "no tensor %s", name);
    return strstr(entry, "\"shape\":[") + strlen("\"shape\":[");
}

static const void *tensor(const struct golden *golden, const char *name)
{
    uint64_t header_bytes;
    memcpy(&header_bytes, golden->bytes, sizeof header_bytes);
    const char *offsets = strstr(shape_of(golden, name), "\"data_offsets\":[") + strlen("\"data_offsets\":[");
    return golden->bytes + 8 + header_bytes + strtoull(offsets, NULL, 10);
}

/* Tensors lie behind one another, whatever their sizes. */
static float float_at(const float *values, size_t i)
{
    float value;
    memcpy(&value, (const char *)values + i * sizeof value, sizeof value);
    return value;
}

static struct golden golden_open(int dim)
{
    char path[500];
    snprintf(path, sizeof path, "%s/tests/golden/quantized_rows/dim%d.safetensors", RANKD_SOURCE, dim);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "cannot open %s", path);
    enum { MOST_BYTES = 1 << 20 };
    struct golden golden = {.bytes = calloc(1, MOST_BYTES)};
    cr_assert_lt(fread(golden.bytes, 1, MOST_BYTES, file), (size_t)MOST_BYTES);
    fclose(file);
    cr_assert_eq(sscanf(shape_of(&golden, "fp32"), "%zu,%zu", &golden.rows, &golden.dim), 2);
    cr_assert_eq(sscanf(shape_of(&golden, "int8.sum"), "%zu", &golden.bags), 1);
    cr_assert_eq(golden.dim, (size_t)dim);
    return golden;
}

static const int dims[] = {4, 16, 20, 64, 128};
static const enum rk_row_format formats[] = {RK_ROWS_INT8, RK_ROWS_INT4, RK_ROWS_INT2};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

Test(rows_golden, encoders_give_the_bytes_of_pytorch)
{
    for (size_t d = 0; d < COUNT(dims); d++) {
        struct golden golden = golden_open(dims[d]);
        const float *values = tensor(&golden, "fp32");
        for (size_t f = 0; f < COUNT(formats); f++) {
            char name[40];
            snprintf(name, sizeof name, "%s.rows", rk_row_format_name(formats[f]));
            const size_t row_bytes = rk_row_bytes(formats[f], (uint32_t)golden.dim);
            const unsigned char *expected = tensor(&golden, name);
            unsigned char *row = malloc(row_bytes);
            for (size_t r = 0; r < golden.rows; r++) {
                rk_row_traits(formats[f])->encode(values + r * golden.dim, golden.dim, row);
                cr_assert_arr_eq(row, expected + r * row_bytes, row_bytes, "%s, dim %d, row %zu", name, dims[d], r);
            }
            free(row);
        }
        free(golden.bytes);
    }
}

static void check_sums(const struct golden *golden, enum rk_row_format format, int weighted)
{
    char name[40], sum_name[40];
    snprintf(name, sizeof name, "%s.rows", rk_row_format_name(format));
    snprintf(sum_name, sizeof sum_name, "%s.%s", rk_row_format_name(format), weighted ? "weighted_sum" : "sum");
    const unsigned char *rows = tensor(golden, name);
    const float *expected = tensor(golden, sum_name), *weights = tensor(golden, "weights");
    const int64_t *indices = tensor(golden, "indices"), *offsets = tensor(golden, "offsets");
    const size_t dim = golden->dim, row_bytes = rk_row_bytes(format, (uint32_t)dim);
    float *decoded = malloc(dim * sizeof *decoded);
    double *sum = malloc(dim * sizeof *sum);
    for (size_t bag = 0; bag < golden->bags; bag++) {
        double size = 0; /* PyTorch, too, rounds relative to its summands: sums may cancel */
        memset(sum, 0, dim * sizeof *sum);
        for (int64_t i = offsets[bag]; i < offsets[bag + 1]; i++) {
            rk_row_traits(format)->decode(rows + (size_t)indices[i] * row_bytes, dim, decoded);
            const double weight = weighted ? (double)weights[i] : 1.0;
            double largest = 0;
            for (size_t k = 0; k < dim; k++) {
                sum[k] += weight * decoded[k];
                largest = fmax(largest, fabsf(decoded[k]));
            }
            size += fabs(weight) * largest;
        }
        for (size_t k = 0; k < dim; k++)
            cr_assert_leq(fabs(sum[k] - float_at(expected, bag * dim + k)), 1e-6 * size,
                          "%s, dim %zu, bag %zu, element %zu: %.9g, expected %.9g", sum_name, dim, bag, k, sum[k],
                          float_at(expected, bag * dim + k));
    }
    free(decoded);
    free(sum);
}

Test(rows_golden, sums_of_decoded_rows_are_those_of_pytorch)
{
    for (size_t d = 0; d < COUNT(dims); d++) {
        struct golden golden = golden_open(dims[d]);
        cr_assert_gt(golden.bags, 1);
        for (size_t f = 0; f < COUNT(formats); f++) {
            check_sums(&golden, formats[f], 0);
            check_sums(&golden, formats[f], 1);
        }
        free(golden.bytes);
    }
}

/* Every variant of a format's pool kernel over the bags of the file. */
static void check_pooled(const struct golden *golden, enum rk_row_format format, int weighted)
{
    char name[40], sum_name[40];
    snprintf(name, sizeof name, "%s.rows", rk_row_format_name(format));
    snprintf(sum_name, sizeof sum_name, "%s.%s", rk_row_format_name(format), weighted ? "weighted_sum" : "sum");
    const unsigned char *rows = tensor(golden, name);
    const float *expected = tensor(golden, sum_name), *all_weights = tensor(golden, "weights");
    const int64_t *indices = tensor(golden, "indices"), *offsets = tensor(golden, "offsets");
    const size_t dim = golden->dim, row_bytes = rk_row_bytes(format, (uint32_t)dim);
    float *out = malloc(dim * sizeof *out);
    for (size_t bag = 0; bag < golden->bags; bag++) {
        const size_t count = (size_t)(offsets[bag + 1] - offsets[bag]);
        const void **addresses = malloc((count + 1) * sizeof *addresses);
        float *weights = malloc((count + 1) * sizeof *weights), largest = 0.0f;
        for (size_t i = 0; i < count; i++) {
            addresses[i] = rows + (size_t)indices[(size_t)offsets[bag] + i] * row_bytes;
            weights[i] = weighted ? float_at(all_weights, (size_t)offsets[bag] + i) : 1.0f;
            rk_row_traits(format)->decode(addresses[i], dim, out);
            for (size_t k = 0; k < dim; k++)
                largest = fmaxf(largest, fabsf(weights[i] * out[k]));
        }
        size_t count_variants, tried = 0;
        const struct rk_kernel_variant *variants = rk_kernel_variants(&count_variants);
        for (const struct rk_kernel_variant *v = variants; v < variants + count_variants; v++) {
            if (v->slot != offsetof(struct rk_kernels, pool) + (size_t)format * sizeof(rk_pool_fn *) ||
                !rk_isa_usable(v->isa))
                continue;
            tried++;
            ((rk_pool_fn *)v->function)(addresses, weighted ? weights : NULL, count, dim, false, out);
            for (size_t k = 0; k < dim; k++)
                cr_assert_leq(fabsf(out[k] - float_at(expected, bag * dim + k)), 1e-6f * largest * (float)count,
                              "%s %s, dim %zu, bag %zu, element %zu: %.9g, expected %.9g", sum_name,
                              rk_isa_name(v->isa), dim, bag, k, (double)out[k],
                              (double)float_at(expected, bag * dim + k));
        }
        cr_assert_geq(tried, 1);
        free(addresses);
        free(weights);
    }
    free(out);
}

Test(rows_golden, pooled_sums_are_those_of_pytorch)
{
    for (size_t d = 0; d < COUNT(dims); d++) {
        struct golden golden = golden_open(dims[d]);
        for (size_t f = 0; f < COUNT(formats); f++) {
            check_pooled(&golden, formats[f], 0);
            check_pooled(&golden, formats[f], 1);
        }
        free(golden.bytes);
    }
}
