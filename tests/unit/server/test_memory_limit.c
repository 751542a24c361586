/* The limit on memory, against memory that is really taken and given back. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/memory_limit.h"

#define MIB     ((size_t)1 << 20)
#define TAKEN   (256 * MIB)
#define NOW_US  1000000000u
#define LATE_US 1000000u /* far more than between two looks */

/* Of this process's own, as the kernel counts. */
static size_t resident_bytes(void)
{
    unsigned long resident = 0, shared = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    cr_assert(file != NULL && fscanf(file, "%*u %lu %lu", &resident, &shared) == 2);
    fclose(file);
    return (resident - shared) * (size_t)sysconf(_SC_PAGESIZE);
}

static void *take(size_t bytes)
{
    void *taken = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(taken != MAP_FAILED);
    memset(taken, 1, bytes);
    return taken;
}

Test(memory_limit, is_reached_while_too_much_is_taken)
{
    struct rk_memory_limit limit;
    rk_memory_limit_init(&limit, (resident_bytes() + TAKEN / 2) / MIB);
    cr_expect(!rk_memory_limit_reached(&limit, 1, NOW_US));
    void *taken = take(TAKEN);
    cr_expect(rk_memory_limit_reached(&limit, 1, NOW_US + LATE_US));
    munmap(taken, TAKEN);
    cr_expect(!rk_memory_limit_reached(&limit, 1, NOW_US + 2 * LATE_US));
    rk_memory_limit_deinit(&limit);
}

Test(memory_limit, is_looked_at_again_when_much_has_come_in_though_no_time_passed)
{
    struct rk_memory_limit limit;
    rk_memory_limit_init(&limit, (resident_bytes() + TAKEN / 2) / MIB);
    cr_expect(!rk_memory_limit_reached(&limit, 1, NOW_US));
    void *taken = take(TAKEN);
    cr_expect(!rk_memory_limit_reached(&limit, 1, NOW_US + 1), "it looks for every byte");
    bool reached = false;
    for (size_t came = 0; came <= 16 * MIB && !reached; came += MIB)
        reached = rk_memory_limit_reached(&limit, MIB, NOW_US + 1);
    cr_expect(reached);
    munmap(taken, TAKEN);
    rk_memory_limit_deinit(&limit);
}

Test(memory_limit, files_that_are_mapped_are_not_counted)
{
    char path[] = "/tmp/rankd-memory-XXXXXX";
    const int fd = mkstemp(path);
    cr_assert(fd >= 0 && unlink(path) == 0 && ftruncate(fd, (off_t)TAKEN) == 0);
    struct rk_memory_limit limit;
    rk_memory_limit_init(&limit, (resident_bytes() + TAKEN / 2) / MIB);
    void *file = mmap(NULL, TAKEN, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    cr_assert(file != MAP_FAILED);
    cr_expect(!rk_memory_limit_reached(&limit, 1, NOW_US));
    munmap(file, TAKEN);
    close(fd);
    rk_memory_limit_deinit(&limit);
}
