/* Selection with a heap: positions[0..k) is a heap whose root is the worst of the best so far; what beats the root
 * takes its place. Taking the roots off one by one then leaves the heap sorted, best first. */
#include "server/top_k.h"

#include <stdbool.h>

static bool worse(const double *scores, uint32_t a, uint32_t b)
{
    return scores[a] < scores[b] || (!(scores[b] < scores[a]) && a > b); /* equal ones: the later is the worse */
}

static void sink(const double *scores, uint32_t *heap, uint32_t count, uint32_t at)
{
    uint32_t moving = heap[at];
    for (uint32_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && worse(scores, heap[child + 1], heap[child]))
            child++;
        if (!worse(scores, heap[child], moving))
            break;
        heap[at] = heap[child];
    }
    heap[at] = moving;
}

void rk_top_k(const double *scores, uint32_t count, uint32_t k, uint32_t *positions)
{
    if (k == 0)
        return;
    for (uint32_t i = 0; i < k; i++)
        positions[i] = i;
    for (uint32_t i = k / 2; i-- > 0;)
        sink(scores, positions, k, i);
    for (uint32_t i = k; i < count; i++) {
        if (worse(scores, positions[0], i)) {
            positions[0] = i;
            sink(scores, positions, k, 0);
        }
    }
    for (uint32_t left = k - 1; left > 0; left--) {
        uint32_t worst = positions[0];
        positions[0] = positions[left];
        positions[left] = worst;
        sink(scores, positions, left, 0);
    }
}
