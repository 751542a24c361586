/* How much memory the process may take, and whether it does: past it new work is refused, before the kernel kills. */
#ifndef RANKD_SERVER_MEMORY_LIMIT_H
#define RANKD_SERVER_MEMORY_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_memory_limit {
    uint64_t limit_bytes; /* 0: none */
    int statm_fd;
    _Atomic uint64_t looked_us, since_bytes; /* when memory was last looked at; what has come in since then */
    atomic_bool full;                        /* it was too much then */
};

/* limit_mib 0: nine tenths of what the control group allows, if it has a limit; else none. Any thread may use it
 * afterwards, where it lies. */
void rk_memory_limit_init(struct rk_memory_limit *limit, uint64_t limit_mib);
void rk_memory_limit_deinit(struct rk_memory_limit *limit);

/* Is the process at its limit? `bytes` have come in; looks at memory when much has since it last did, or time. */
bool rk_memory_limit_reached(struct rk_memory_limit *limit, size_t bytes, uint64_t now_us);

#endif
