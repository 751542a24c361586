/* Where the rows of a pruned table lie, the specification. */
#include "quant/kernels_list.h"

void rk_kept_rows_scalar(const uint64_t (*blocks)[8], uint64_t num_kept, const int64_t *ids, size_t count,
                         uint64_t *rows)
{
    for (size_t i = 0; i < count; i++) {
        const uint64_t *block = blocks[(uint64_t)ids[i] / 448];
        const uint64_t bit = (uint64_t)ids[i] % 448, word = 1 + bit / 64, mask = UINT64_C(1) << bit % 64;
        uint64_t row = num_kept;
        if (block[word] & mask) {
            row = block[0] + (uint64_t)__builtin_popcountll(block[word] & (mask - 1));
            for (uint64_t w = 1; w < word; w++)
                row += (uint64_t)__builtin_popcountll(block[w]);
        }
        rows[i] = row < num_kept ? row : num_kept;
    }
}
