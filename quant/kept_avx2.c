/* Where the rows of a pruned table lie, for machines that count bits in one instruction, as all with AVX2 do. Every
 * word of the block is counted under a mask: ids are random, and branches on them would be mispredicted. */
#ifdef __AVX2__

#include "quant/kernels_list.h"

void rk_kept_rows_avx2(const uint64_t (*blocks)[8], uint64_t num_kept, const int64_t *ids, size_t count, uint64_t *rows)
{
    for (size_t i = 0; i < count; i++) {
        const uint64_t *block = blocks[(uint64_t)ids[i] / 448];
        const uint64_t bit = (uint64_t)ids[i] % 448, word = 1 + bit / 64, mask = UINT64_C(1) << bit % 64;
        uint64_t row = block[0] + (uint64_t)__builtin_popcountll(block[word] & (mask - 1));
        for (uint64_t w = 1; w < 7; w++)
            row += (uint64_t)__builtin_popcountll(block[w] & -(uint64_t)(w < word));
        row = block[word] & mask ? row : num_kept;
        rows[i] = row < num_kept ? row : num_kept;
    }
}

#else
typedef int rk_kept_avx2_not_built; /* a translation unit may not be empty */
#endif
