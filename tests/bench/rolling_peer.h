/* A peer to measure against: bags of rows added as FBGEMM's generated code does it, one row after the other with the
 * sums in registers, while the row 16 ahead is prefetched with the non-temporal hint. */
#ifndef RANKD_TESTS_BENCH_ROLLING_PEER_H
#define RANKD_TESTS_BENCH_ROLLING_PEER_H

#include <stddef.h>
#include <stdint.h>

#include "quant/rows.h"

/* Sums bags of `bag` rows of 128 elements each, for count ids in all, into out[2][128] by turns. */
typedef void rolling_peer_fn(const unsigned char *table, const int64_t *ids, size_t count, size_t bag, float *out);

/* NULL where there is none: for other formats and widths, and machines without AVX-512. */
rolling_peer_fn *rolling_peer(enum rk_row_format format, uint32_t dim);

#endif
