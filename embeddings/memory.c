/* The system's memory, through /sys, /proc and plain system calls (libnuma would add nothing but a dependency). Any
 * thread. */
#include "embeddings/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The first line of a file, or where `key` is given what follows it in the line that begins with it. */
static bool read_line(const char *path, const char *key, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool found = false;
    while (!found && fgets(text, (int)size, file) != NULL) {
        found = strncmp(text, key, strlen(key)) == 0;
        if (found)
            memmove(text, text + strlen(key), strlen(text + strlen(key)) + 1);
    }
    fclose(file);
    return found;
}

uint32_t rk_memory_parse_nodes(const char *list, uint32_t nodes[RK_MAX_MEMORY_NODES])
{
    uint32_t count = 0;
    while (*list >= '0' && *list <= '9') {
        char *end;
        const unsigned long first = strtoul(list, &end, 10);
        unsigned long last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long node = first; node <= last && node < RK_MAX_MEMORY_NODES && count < RK_MAX_MEMORY_NODES;
             node++)
            nodes[count++] = (uint32_t)node;
        list = *end == ',' ? end + 1 : end;
    }
    return *list == '\0' || *list == '\n' ? count : 0;
}

uint32_t rk_memory_nodes(uint32_t nodes[RK_MAX_MEMORY_NODES])
{
    char list[256];
    uint32_t count = 0;
    if (read_line("/sys/devices/system/node/has_memory", "", list, sizeof list))
        count = rk_memory_parse_nodes(list, nodes);
    if (count > 0)
        return count;
    nodes[0] = 0;
    return 1;
}

bool rk_memory_prefer_node(void *data, uint64_t bytes, uint32_t node)
{
    /* Preferred rather than bound: on a full node, slower memory is better than being killed. */
    const unsigned long mask = 1ul << node % RK_MAX_MEMORY_NODES;
    return node < RK_MAX_MEMORY_NODES &&
           syscall(SYS_mbind, data, bytes, MPOL_PREFERRED, &mask, 8 * sizeof mask + 1, 0) == 0;
}

enum rk_status rk_memory_lock(const void *data, uint64_t bytes, struct rk_error *error)
{
    if (bytes == 0 || mlock2(data, bytes, 0) == 0) /* mlock, which sanitizers make do nothing */
        return RK_OK;
    const int code = errno;
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY)
        return rk_error_set(error, RK_NO_MEMORY, "failed to lock %" PRIu64 " MiB in memory: %s", (bytes >> 20) + 1,
                            strerror(code));
    return rk_error_set(
        error, RK_EXHAUSTED,
        "failed to lock %" PRIu64 " MiB in memory: %s; the process may lock %" PRIu64
        " KiB (RLIMIT_MEMLOCK): set LimitMEMLOCK=infinity in its systemd unit, or `ulimit -l unlimited`",
        (bytes >> 20) + 1, strerror(code), (uint64_t)limit.rlim_cur >> 10);
}

uint64_t rk_memory_available(void)
{
    char text[256];
    uint64_t available = UINT64_MAX;
    if (read_line("/proc/meminfo", "MemAvailable:", text, sizeof text))
        available = strtoull(text, NULL, 10) << 10;
    /* In a container this is the container's own group. */
    if (read_line("/sys/fs/cgroup/memory.max", "", text, sizeof text) && text[0] >= '0' && text[0] <= '9') {
        const uint64_t most = strtoull(text, NULL, 10);
        available = most < available ? most : available;
    }
    return available;
}
