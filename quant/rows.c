/* The table of row formats. Encoders and decoders live in rows_*.c, one family a file. */
#include "quant/rows.h"
#include "quant/rows_codecs.h"

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

#define CODEC(name) rk_row_encode_##name, rk_row_decode_##name, rk_row_bound_##name

static const struct rk_row_traits formats[RK_ROW_FORMAT_COUNT] = {
    [RK_ROWS_F32] = {"fp32", "float32", 32, 0, 0, encode_f32, decode_f32, exact},
    [RK_ROWS_F16] = {"fp16", "IEEE float16", 16, 0, 0, CODEC(f16)},
    [RK_ROWS_BF16] = {"bf16", "bfloat16", 16, 0, 0, CODEC(bf16)},
    [RK_ROWS_INT8] = {"int8", "8-bit integers, float32 scale and bias per row", 8, 8, 0, CODEC(int8)},
    [RK_ROWS_INT4] = {"int4", "4-bit integers, float16 scale and bias per row", 4, 4, 0, CODEC(int4)},
    [RK_ROWS_INT2] = {"int2", "2-bit integers, float16 scale and bias per row", 2, 4, 0, CODEC(int2)},
    [RK_ROWS_FP8_E4M3] = {"fp8_e4m3", "OCP FP8 E4M3, float32 scale per row", 8, 4, 0, CODEC(fp8_e4m3)},
    [RK_ROWS_FP8_E5M2] = {"fp8_e5m2", "OCP FP8 E5M2, float32 scale per row", 8, 4, 0, CODEC(fp8_e5m2)},
    [RK_ROWS_MXFP8_E4M3] = {"mxfp8_e4m3", "OCP MXFP8 E4M3, E8M0 scale per 32 elements", 8, 0, 32, CODEC(mxfp8_e4m3)},
    [RK_ROWS_MXFP8_E5M2] = {"mxfp8_e5m2", "OCP MXFP8 E5M2, E8M0 scale per 32 elements", 8, 0, 32, CODEC(mxfp8_e5m2)},
    [RK_ROWS_MXFP6_E2M3] = {"mxfp6_e2m3", "OCP MXFP6 E2M3, E8M0 scale per 32 elements", 6, 0, 32, CODEC(mxfp6_e2m3)},
    [RK_ROWS_MXFP6_E3M2] = {"mxfp6_e3m2", "OCP MXFP6 E3M2, E8M0 scale per 32 elements", 6, 0, 32, CODEC(mxfp6_e3m2)},
    [RK_ROWS_MXFP4_E2M1] = {"mxfp4_e2m1", "OCP MXFP4 E2M1, E8M0 scale per 32 elements", 4, 0, 32, CODEC(mxfp4_e2m1)},
    [RK_ROWS_MXINT8] = {"mxint8", "OCP MXINT8, E8M0 scale per 32 elements", 8, 0, 32, CODEC(mxint8)},
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
