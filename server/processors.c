/* Reading the affinity mask. Masks are sized for the largest machines, not for glibc's 1024 processors. */
#include "server/processors.h"

#include <sched.h>
#include <stdbool.h>
#include <string.h>

#define MAX_SETS   16
#define MASK_BYTES (MAX_SETS * sizeof(cpu_set_t))
#define MAX_NUMBER (MAX_SETS * CPU_SETSIZE)

static bool read_mask(cpu_set_t mask[MAX_SETS])
{
    memset(mask, 0, MASK_BYTES);
    return sched_getaffinity(0, MASK_BYTES, mask) == 0 && CPU_COUNT_S(MASK_BYTES, mask) > 0;
}

uint32_t rk_processors_count(void)
{
    cpu_set_t mask[MAX_SETS];
    return read_mask(mask) ? (uint32_t)CPU_COUNT_S(MASK_BYTES, mask) : 1;
}

enum rk_status rk_processors_pin(pthread_attr_t *attributes, uint32_t index, uint32_t *processor,
                                 struct rk_error *error)
{
    cpu_set_t mask[MAX_SETS], one[MAX_SETS];
    if (!read_mask(mask))
        return rk_error_set(error, RK_IO, "failed to read which processors there are: %m");
    uint32_t skip = index % (uint32_t)CPU_COUNT_S(MASK_BYTES, mask), number = 0;
    while (!CPU_ISSET_S(number, MASK_BYTES, mask) || skip-- > 0)
        number++;
    memset(one, 0, sizeof one);
    CPU_SET_S(number, MASK_BYTES, one);
    *processor = number;
    const int code = pthread_attr_setaffinity_np(attributes, MASK_BYTES, one);
    if (code != 0)
        return rk_error_set(error, RK_INVALID, "failed to choose processor %u: %s", number, strerror(code));
    return RK_OK;
}
