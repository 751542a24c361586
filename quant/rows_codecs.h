/* Between the table of row formats (rows.c) and the families that it lists (rows_*.c): three functions per format, with
 * the contracts of struct rk_row_traits. */
#ifndef RANKD_QUANT_ROWS_CODECS_H
#define RANKD_QUANT_ROWS_CODECS_H

#include <stddef.h>

#define RK_ROW_CODEC_DECLARE(name)                                                                                     \
    void rk_row_encode_##name(const float *values, size_t dim, void *row);                                             \
    void rk_row_decode_##name(const void *row, size_t dim, float *values);                                             \
    double rk_row_bound_##name(const float *values, size_t dim)

RK_ROW_CODEC_DECLARE(f16);
RK_ROW_CODEC_DECLARE(bf16);
RK_ROW_CODEC_DECLARE(int8);
RK_ROW_CODEC_DECLARE(int4);
RK_ROW_CODEC_DECLARE(int2);
RK_ROW_CODEC_DECLARE(fp8_e4m3);
RK_ROW_CODEC_DECLARE(fp8_e5m2);
RK_ROW_CODEC_DECLARE(mxfp8_e4m3);
RK_ROW_CODEC_DECLARE(mxfp8_e5m2);
RK_ROW_CODEC_DECLARE(mxfp6_e2m3);
RK_ROW_CODEC_DECLARE(mxfp6_e3m2);
RK_ROW_CODEC_DECLARE(mxfp4_e2m1);
RK_ROW_CODEC_DECLARE(mxint8);

#endif
