/* What the system says about its memory, and what it is asked for: nodes, locked pages, what is left. */
#ifndef RANKD_EMBEDDINGS_MEMORY_H
#define RANKD_EMBEDDINGS_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/base/status.h"

#define RK_MAX_MEMORY_NODES 64u

/* The NUMA nodes that have memory: fills nodes[] with their numbers, ascending, and returns how many there are; 1 (node
 * 0) where the system does not say. */
uint32_t rk_memory_nodes(uint32_t nodes[RK_MAX_MEMORY_NODES]);

/* The same from a list as the kernel writes it, "0-1,4"; 0 when it is none. Numbers from RK_MAX_MEMORY_NODES up are
 * left out. */
uint32_t rk_memory_parse_nodes(const char *list, uint32_t nodes[RK_MAX_MEMORY_NODES]);

/* Pages of this range that are touched first from now on lie on `node` as long as it has free ones. False when the
 * kernel refuses (it does in many containers); the range then lies wherever it is touched from. */
bool rk_memory_prefer_node(void *data, uint64_t bytes, uint32_t node);

/* Keeps these pages in memory, bringing them there if they are not. RK_EXHAUSTED or RK_NO_MEMORY: the text names the
 * limit in the way and how to lift it. */
enum rk_status rk_memory_lock(const void *data, uint64_t bytes, struct rk_error *error);

/* Bytes that this process can still take without pushing others out: what the system has available, or less where a
 * control group limits it. UINT64_MAX where nobody says. */
uint64_t rk_memory_available(void);

#endif
