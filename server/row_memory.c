/* Where rows lie, for people. Runs in main, before and after models are loaded. */
#include "server/row_memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "embeddings/memory.h"
#include "model/model_shards.h"
#include "server/log.h"
#include "server/registry.h"

#define ENOUGH_HUGE_PAGES 0.9 /* of the rows' bytes */

struct rk_row_options rk_row_options_of(const struct rk_options *options)
{
    uint32_t nodes[RK_MAX_MEMORY_NODES];
    return (struct rk_row_options){.memory = (enum rk_row_memory)options->row_memory,
                                   .lock = options->lock_memory,
                                   .limits = {.num_shards = options->shards > 0 ? (uint32_t)options->shards
                                                                                : rk_memory_nodes(nodes),
                                              .capacity_bytes = options->shard_capacity_mib << 20}};
}

struct rk_shard_report rk_row_memory_report(const struct rk_registry *registry, uint32_t shard)
{
    struct rk_shard_report report = {.node = -1, .bytes = registry->shards[shard].bytes};
    double load = 0;
    for (uint32_t s = 0; s < registry->rows.limits.num_shards; s++)
        load += registry->shards[s].load;
    report.reads = load > 0 ? registry->shards[shard].load / load : 0;
    for (uint32_t m = 0; m < registry->num_models; m++) {
        const struct rk_model_shards *shards = rk_model_shards_of(registry->models[m].model);
        for (size_t p = 0; p < shards->placement.num_pieces; p++)
            report.tables += shards->placement.pieces[p].shard == shard &&
                             shards->placement.pieces[p].item < registry->models[m].spec->num_tables;
        if (rk_shard_node(shards->shards[shard]) >= 0)
            report.node = rk_shard_node(shards->shards[shard]);
    }
    return report;
}

static bool is_copied(const struct rk_registry *registry)
{
    return registry->rows.memory == RK_ROWS_HUGE_PAGES;
}

static const char *node_name(int node, char text[16])
{
    snprintf(text, 16, node < 0 ? "any" : "%d", node);
    return text;
}

void rk_row_memory_print(const struct rk_registry *registry, FILE *stream)
{
    const char *locked = registry->rows.lock ? ", locked" : "";
    if (!is_copied(registry)) {
        fprintf(stream, "\nrows are read from the mapped files%s\n", locked);
        return;
    }
    fprintf(stream, "\nrows are copied into huge pages%s\n%-8s %6s %8s %14s %8s\n", locked, "SHARD", "NODE", "TABLES",
            "BYTES", "READS");
    for (uint32_t s = 0; s < registry->rows.limits.num_shards; s++) {
        const struct rk_shard_report report = rk_row_memory_report(registry, s);
        char node[16];
        fprintf(stream, "%-8u %6s %8u %14" PRIu64 " %7.0f%%\n", s, node_name(report.node, node), report.tables,
                report.bytes, 100 * report.reads);
    }
}

/* Bytes of this process in huge pages; UINT64_MAX when the kernel does not say. */
static uint64_t huge_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    char line[256];
    uint64_t bytes = UINT64_MAX;
    static const char key[] = "AnonHugePages:";
    while (file != NULL && bytes == UINT64_MAX && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, sizeof key - 1) == 0)
            bytes = strtoull(line + sizeof key - 1, NULL, 10) << 10;
    if (file != NULL)
        fclose(file);
    return bytes;
}

void rk_row_memory_log(const struct rk_registry *registry)
{
    const char *locked = registry->rows.lock ? ", locked" : "";
    if (!is_copied(registry)) {
        rk_log(RK_LOG_INFO, "rows are read from the mapped files%s", locked);
        return;
    }
    uint64_t bytes = 0;
    for (uint32_t s = 0; s < registry->rows.limits.num_shards; s++) {
        const struct rk_shard_report report = rk_row_memory_report(registry, s);
        char node[16];
        bytes += report.bytes;
        rk_log(RK_LOG_INFO, "shard=%u node=%s tables=%u in huge pages%s: %.1f MiB, %.0f%% of all reads", s,
               node_name(report.node, node), report.tables, locked, (double)report.bytes * 0x1p-20, 100 * report.reads);
    }
    const uint64_t huge = huge_bytes();
    if ((double)huge < ENOUGH_HUGE_PAGES * (double)bytes)
        rk_log(RK_LOG_WARN,
               "the kernel gave huge pages for %.1f of %.1f MiB of rows: lookups are slower than they could be; see "
               "/sys/kernel/mm/transparent_hugepage/enabled, or free memory and restart",
               (double)huge * 0x1p-20, (double)bytes * 0x1p-20);
}
