/* What counts is memory of the process's own that is resident, as the kernel sees it (/proc/self/statm), less what
 * jemalloc holds for later and would use again. Mapped files do not count: the kernel can drop them. Huge pages set
 * aside (hugetlb) are not among it either.
 *
 * Looking takes a system call, so it is done once in LOOK_US or LOOK_BYTES. Any thread; two that look at the same time
 * do no harm. */
#include "server/memory_limit.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_US    10000u
#define LOOK_BYTES (4u << 20)

int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes)
    __attribute__((weak)); /* jemalloc's; a sanitizer's allocator has none */

static uint64_t read_number(const char *path)
{
    uint64_t number = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%" SCNu64, &number) != 1) /* "max" */
        number = 0;
    fclose(file);
    return number;
}

/* The process's group in the unified hierarchy, "/" for the root; false: there is none. */
static bool find_group(char *group, size_t capacity)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        found = strncmp(line, "0::/", 4) == 0 && strlen(line) - 3 < capacity;
        if (found)
            memcpy(group, line + 3, strlen(line) - 2);
    }
    if (file != NULL)
        fclose(file);
    return found;
}

/* The least limit of the group and of those around it; 0: none has one. */
static uint64_t group_limit(void)
{
    char group[1024], path[1100];
    uint64_t least = 0;
    if (find_group(group, sizeof group))
        for (;;) {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
            const uint64_t limit = read_number(path);
            if (limit > 0 && (least == 0 || limit < least))
                least = limit;
            char *slash = strrchr(group, '/');
            if (slash == NULL)
                break;
            *slash = '\0';
        }
    return least;
}

void rk_memory_limit_init(struct rk_memory_limit *limit, uint64_t limit_mib)
{
    *limit = (struct rk_memory_limit){.statm_fd = -1};
    limit->limit_bytes = limit_mib > 0 ? limit_mib << 20 : group_limit() / 10 * 9;
    if (limit->limit_bytes > 0)
        limit->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
}

void rk_memory_limit_deinit(struct rk_memory_limit *limit)
{
    if (limit->limit_bytes > 0 && limit->statm_fd >= 0)
        close(limit->statm_fd);
}

static uint64_t resident_bytes(int fd)
{
    char text[128];
    const ssize_t length = pread(fd, text, sizeof text - 1, 0);
    uint64_t resident, shared;
    text[length > 0 ? length : 0] = '\0';
    if (sscanf(text, "%*u %" SCNu64 " %" SCNu64, &resident, &shared) != 2 || resident < shared)
        return 0;
    return (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t jemalloc_bytes(const char *name)
{
    size_t value = 0, value_bytes = sizeof value;
    return mallctl(name, &value, &value_bytes, NULL, 0) == 0 ? value : 0;
}

/* Held by jemalloc, in no use. */
static uint64_t spare_bytes(void)
{
    if (mallctl == NULL)
        return 0;
    uint64_t epoch = 1; /* statistics are refreshed by writing it */
    size_t epoch_bytes = sizeof epoch;
    mallctl("epoch", &epoch, &epoch_bytes, &epoch, epoch_bytes);
    const uint64_t resident = jemalloc_bytes("stats.resident"), active = jemalloc_bytes("stats.active");
    return resident > active ? resident - active : 0;
}

static bool look(const struct rk_memory_limit *limit)
{
    const uint64_t resident = resident_bytes(limit->statm_fd);
    return resident > limit->limit_bytes && resident - limit->limit_bytes > spare_bytes();
}

bool rk_memory_limit_reached(struct rk_memory_limit *limit, size_t bytes, uint64_t now_us)
{
    if (limit->limit_bytes == 0)
        return false;
    const uint64_t since = atomic_fetch_add_explicit(&limit->since_bytes, bytes, memory_order_relaxed) + bytes;
    const uint64_t looked_us = atomic_load_explicit(&limit->looked_us, memory_order_relaxed);
    if (since >= LOOK_BYTES || now_us - looked_us >= LOOK_US) {
        atomic_store_explicit(&limit->looked_us, now_us, memory_order_relaxed);
        atomic_store_explicit(&limit->since_bytes, 0, memory_order_relaxed);
        atomic_store_explicit(&limit->full, look(limit), memory_order_relaxed);
    }
    return atomic_load_explicit(&limit->full, memory_order_relaxed);
}
