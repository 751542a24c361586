/* From a spec to shards: tables and lists of kept rows become the planner's items, its placement becomes memory. Used
 * by the thread that opens a model. */
#include "model/model_shards.h"

#include <stdlib.h>

#include "embeddings/memory.h"

/* ---- items ---- */

uint32_t rk_model_kept_item(const struct rk_model_spec *spec, uint32_t table)
{
    uint32_t item = spec->num_tables;
    for (uint32_t t = 0; t < table; t++)
        item += spec->tables[t].kept.file != NULL;
    return item;
}

uint32_t rk_model_item_table(const struct rk_model_spec *spec, uint32_t item)
{
    uint32_t table = 0;
    if (item < spec->num_tables)
        return item;
    while (spec->tables[table].kept.file == NULL || rk_model_kept_item(spec, table) != item)
        table++;
    return table;
}

/* Rows of each table that a request reads. */
static void count_reads(const struct rk_model_spec *spec, const struct rk_row_traffic *traffic, double *reads)
{
    const double candidates = traffic->candidates > 0 ? traffic->candidates : RK_USUAL_CANDIDATES;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_feature_spec *feature = &spec->features[f];
        const double ids = traffic->ids_per_bag != NULL ? traffic->ids_per_bag[f] : 1;
        reads[feature->table] += feature->side == RK_SIDE_CONTEXT ? ids : ids * candidates;
    }
}

/* items[2 * num_tables] with names in the arena; returns their number, 0 when memory ran out. */
static uint32_t list_items(const struct rk_model_spec *spec, const double *reads, struct rk_arena *arena,
                           struct rk_placement_item *items)
{
    uint32_t count = spec->num_tables;
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_table_spec *table = &spec->tables[t];
        const uint64_t rows = rk_table_spec_stored_rows(table),
                       row_bytes = rk_row_bytes(table->format, table->embedding_dim);
        items[t] =
            (struct rk_placement_item){.name = table->name, .rows = rows, .row_bytes = row_bytes, .reads = reads[t]};
        if (table->kept.file == NULL)
            continue;
        const char *name = rk_arena_printf(arena, "%s, which rows are kept", table->name);
        if (name == NULL)
            return 0;
        /* One row, because it stays in one piece; a lookup reads one line of it, not all. */
        const uint64_t bytes = rk_table_spec_bytes(table) - rows * row_bytes;
        items[count++] = (struct rk_placement_item){.name = name,
                                                    .rows = 1,
                                                    .row_bytes = bytes,
                                                    .reads = reads[t] / rk_row_lines(bytes)};
    }
    return count;
}

enum rk_status rk_model_plan_rows(const struct rk_model_spec *spec, const struct rk_row_traffic *traffic,
                                  const struct rk_placement_limits *limits, struct rk_placement *placement,
                                  struct rk_error *error)
{
    struct rk_arena arena;
    rk_arena_init(&arena, 1u << 12);
    double *reads = rk_arena_array(&arena, spec->num_tables, sizeof *reads);
    struct rk_placement_item *items = rk_arena_array(&arena, 2 * (size_t)spec->num_tables, sizeof *items);
    uint32_t num_items = 0;
    if (reads != NULL && items != NULL) {
        count_reads(spec, traffic, reads);
        num_items = list_items(spec, reads, &arena, items);
    }
    const enum rk_status status =
        num_items < spec->num_tables
            ? rk_error_set(error, RK_NO_MEMORY, "out of memory while placing %u tables", spec->num_tables)
            : rk_placement_plan(items, num_items, limits, placement, error);
    rk_arena_deinit(&arena);
    return status;
}

/* ---- shards ---- */

static enum rk_status check_memory(const struct rk_placement *placement, struct rk_error *error)
{
    uint64_t bytes = 0;
    for (uint32_t s = 0; s < placement->num_shards; s++)
        bytes += placement->shards[s].bytes;
    const uint64_t available = rk_memory_available();
    if (bytes <= available)
        return RK_OK;
    return rk_error_set(error, RK_EXHAUSTED,
                        "its rows take %.1f GiB of memory, where %.1f GiB are available; read them from mapped files "
                        "instead, make them smaller (rankpack quantize), or use a machine with more memory",
                        (double)bytes * 0x1p-30, (double)available * 0x1p-30);
}

enum rk_status rk_model_shards_init(struct rk_model_shards *shards, const struct rk_model_spec *spec,
                                    const struct rk_placement_limits *limits, struct rk_error *error)
{
    const struct rk_row_traffic usual = {0};
    uint32_t nodes[RK_MAX_MEMORY_NODES];
    const uint32_t num_nodes = rk_memory_nodes(nodes);
    *shards = (struct rk_model_shards){0};
    enum rk_status status = rk_model_plan_rows(spec, &usual, limits, &shards->placement, error);
    if (status == RK_OK)
        status = check_memory(&shards->placement, error);
    if (status == RK_OK) {
        shards->shards = calloc(limits->num_shards, sizeof(struct rk_shard *));
        if (shards->shards == NULL)
            status = rk_error_set(error, RK_NO_MEMORY, "out of memory for %u shards", limits->num_shards);
    }
    for (uint32_t s = 0; status == RK_OK && s < limits->num_shards; s++)
        status = rk_shard_create(shards->placement.shards[s].bytes, num_nodes > 1 ? (int)nodes[s % num_nodes] : -1,
                                 &shards->shards[s], error);
    if (status != RK_OK)
        rk_model_shards_deinit(shards);
    return status;
}

void rk_model_shards_deinit(struct rk_model_shards *shards)
{
    for (uint32_t s = 0; shards->shards != NULL && s < shards->placement.num_shards; s++)
        rk_shard_destroy(shards->shards[s]);
    free(shards->shards);
    rk_placement_deinit(&shards->placement);
    *shards = (struct rk_model_shards){0};
}
