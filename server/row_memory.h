/* The rows of all models in this process's memory: from options to what models are opened with, and what came of it. */
#ifndef RANKD_SERVER_ROW_MEMORY_H
#define RANKD_SERVER_ROW_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "model/model.h"
#include "server/options.h"

struct rk_registry;

/* What the options ask for; without a number of shards, one per NUMA node. */
struct rk_row_options rk_row_options_of(const struct rk_options *options);

/* What lies on one shard. */
struct rk_shard_report {
    int node;        /* that it prefers; -1: any */
    uint32_t tables; /* that it holds rows of */
    uint64_t bytes;
    double reads; /* its fraction of all cache lines that requests are expected to read */
};
struct rk_shard_report rk_row_memory_report(const struct rk_registry *registry, uint32_t shard);

/* Says where the rows lie: a table for --check, lines of the log when serving begins. The log warns when the kernel
 * gave fewer huge pages than rows need. */
void rk_row_memory_print(const struct rk_registry *registry, FILE *stream);
void rk_row_memory_log(const struct rk_registry *registry);

#endif
