/* The table of row formats. Encoders and decoders live in rows_*.c, one family a file. */
#include "quant/rows.h"

#include <string.h>

static void encode_f32(const float *values, size_t dim, void *row)
{
    memcpy(row, values, dim * sizeof *values);
}

static void decode_f32(const void *row, size_t dim, float *values)
{
    memcpy(values, row, dim * sizeof *values);
}

static double exact(const float *values, size_t dim)
{
    (void)values;
    (void)dim;
    return 0.0;
}

static const struct rk_row_traits formats[RK_ROW_FORMAT_COUNT] = {
    [RK_ROWS_F32] = {"fp32", "float32", 32, 0, 0, encode_f32, decode_f32, exact},
    [RK_ROWS_F16] = {.name = "fp16", .bits = 16},
    [RK_ROWS_BF16] = {.name = "bf16", .bits = 16},
    [RK_ROWS_INT8] = {.name = "int8", .bits = 8, .tail_bytes = 8},
    [RK_ROWS_INT4] = {.name = "int4", .bits = 4, .tail_bytes = 4},
    [RK_ROWS_INT2] = {.name = "int2", .bits = 2, .tail_bytes = 4},
    [RK_ROWS_FP8_E4M3] = {.name = "fp8_e4m3", .bits = 8, .tail_bytes = 4},
    [RK_ROWS_FP8_E5M2] = {.name = "fp8_e5m2", .bits = 8, .tail_bytes = 4},
    [RK_ROWS_MXFP8_E4M3] = {.name = "mxfp8_e4m3", .bits = 8, .block = 32},
    [RK_ROWS_MXFP8_E5M2] = {.name = "mxfp8_e5m2", .bits = 8, .block = 32},
    [RK_ROWS_MXFP6_E2M3] = {.name = "mxfp6_e2m3", .bits = 6, .block = 32},
    [RK_ROWS_MXFP6_E3M2] = {.name = "mxfp6_e3m2", .bits = 6, .block = 32},
    [RK_ROWS_MXFP4_E2M1] = {.name = "mxfp4_e2m1", .bits = 4, .block = 32},
    [RK_ROWS_MXINT8] = {.name = "mxint8", .bits = 8, .block = 32},
};

const struct rk_row_traits *rk_row_traits(enum rk_row_format format)
{
    return &formats[format];
}

const char *rk_row_format_name(enum rk_row_format format)
{
    return (unsigned)format < RK_ROW_FORMAT_COUNT ? formats[format].name : "unknown";
}

bool rk_row_format_parse(const char *name, enum rk_row_format *format)
{
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        if (strcmp(name, formats[f].name) == 0) {
            *format = (enum rk_row_format)f;
            return true;
        }
    return false;
}

uint64_t rk_row_bytes(enum rk_row_format format, uint32_t dim)
{
    const struct rk_row_traits *traits = &formats[format];
    const uint64_t elements = ((uint64_t)dim * traits->bits + 7) / 8;
    const uint64_t scales = traits->block > 0 ? ((uint64_t)dim + traits->block - 1) / traits->block : 0;
    return elements + scales + traits->tail_bytes;
}
