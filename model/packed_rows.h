/* Rows that a checkpoint brings ready-made: which bytes it has for a row, and how they become those of quant/rows.h. */
#ifndef RANKD_MODEL_PACKED_ROWS_H
#define RANKD_MODEL_PACKED_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/rows.h"

enum rk_row_layout {
    RK_LAYOUT_NUMBERS, /* not packed: numbers that are read as float32 */
    RK_LAYOUT_ROWS,    /* as quant/rows.h says; for int8, int4 and int2 that is PyTorch's layout, scale and bias last */
    RK_LAYOUT_FBGEMM,  /* int8, int4, int2: float16 scale, float16 bias, elements, padding: FBGEMM's inference layout */
};

/* The most padding that a row may end in. */
#define RK_LAYOUT_MAX_PADDING 127u

struct rk_packed_rows {
    enum rk_row_format format; /* fp16, bf16, int8, int4 or int2 */
    enum rk_row_layout layout; /* not RK_LAYOUT_NUMBERS */
    uint32_t dim;
    uint64_t source_bytes; /* of one row, padding included */
};

/* Bytes of one row in the checkpoint, without padding. */
uint64_t rk_packed_row_bytes(enum rk_row_format format, enum rk_row_layout layout, uint32_t dim);

/* rows[count], packed as quant/rows.h says, from source[count]. Returns the number of rows converted before the first
 * that has a number, or can decode to one, that is not finite (count: none has). */
uint64_t rk_packed_rows_convert(const struct rk_packed_rows *packed, const void *source, uint64_t count, void *rows);

#endif
