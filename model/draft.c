/* From names to places. Tensors are looked up in an array sorted by name; each tower tensor gets the next multiple of
 * 64 bytes in the weights file, in the order in which the engine reads them; each table is cut into shards.
 * Works on plain data; one thread. */
#include "model/draft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/nearest.h"
#include "model/package.h"
#include "quant/base/checked.h"

static enum rk_status no_memory_for_shards(const struct rk_table_spec *table, struct rk_error *error)
{
    return rk_error_set(error, RK_NO_MEMORY, "out of memory for the shards of table '%.128s'", table->name);
}

enum rk_status rk_draft_cut_shards(struct rk_table_spec *table, uint32_t t, const struct rk_shard_limits *limits,
                                   struct rk_arena *arena, struct rk_error *error)
{
    const uint64_t num_rows = rk_table_spec_stored_rows(table),
                   row_bytes = rk_row_bytes(table->format, table->embedding_dim);
    uint64_t shard_rows = limits->max_bytes / row_bytes;
    if (shard_rows > limits->max_rows)
        shard_rows = limits->max_rows;
    if (shard_rows == 0)
        shard_rows = 1;
    const uint64_t count = (num_rows - 1) / shard_rows + 1;
    if (count > RK_MAX_SHARDS)
        return rk_error_set(
            error, RK_INVALID,
            "table '%.128s' would be cut into %llu shards, at most %u are possible: raise the shard limit", table->name,
            (unsigned long long)count, RK_MAX_SHARDS);
    struct rk_shard_spec *shards = rk_arena_array(arena, count, sizeof *shards);
    if (shards == NULL)
        return no_memory_for_shards(table, error);
    for (uint64_t s = 0; s < count; s++) {
        const uint64_t first = s * shard_rows, left = num_rows - first;
        shards[s] = (struct rk_shard_spec){
            .file = rk_arena_printf(arena, "table-%03u.shard-%04u.rows", t, (unsigned)s),
            .first_row = first,
            .num_rows = left < shard_rows ? left : shard_rows,
        };
        if (shards[s].file == NULL)
            return no_memory_for_shards(table, error);
    }
    table->shards = shards;
    table->num_shards = (uint32_t)count;
    return RK_OK;
}

struct drafting {
    const struct rk_config *config;
    const char *config_file, *weights_file;
    const struct rk_tensor **by_name; /* sorted */
    size_t num_names;
    struct rk_arena *arena;
    struct rk_draft *draft;
    struct rk_error *error;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const struct rk_tensor *const *)a)->name, (*(const struct rk_tensor *const *)b)->name);
}

static enum rk_status out_of_memory(const struct drafting *d)
{
    return rk_error_set(d->error, RK_NO_MEMORY, "%s: the model does not fit into memory", d->config_file);
}

static const struct rk_tensor *find(const struct drafting *d, const char *name)
{
    struct rk_tensor wanted = {.name = name};
    const struct rk_tensor *key = &wanted;
    const struct rk_tensor **found = bsearch(&key, d->by_name, d->num_names, sizeof key, compare_names);
    return found != NULL ? *found : NULL;
}

static enum rk_status missing(const struct drafting *d, const char *field, const char *name)
{
    const char *nearest[3];
    const char **names = malloc((d->num_names + 1) * sizeof *names);
    size_t count = 0;
    if (names != NULL) {
        for (size_t i = 0; i < d->num_names; i++)
            names[i] = d->by_name[i]->name;
        count = rk_nearest_names(name, names, d->num_names, nearest, 3);
        free(names);
    }
    char alike[360] = "";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof alike; i++) {
        int length =
            snprintf(alike + used, sizeof alike - used, "%s'%.100s'", i == 0 ? "; similar names: " : ", ", nearest[i]);
        used += length > 0 ? (size_t)length : 0;
    }
    return rk_error_set(d->error, RK_INVALID, "%s: %s needs tensor '%.128s', which %s does not have%s", d->config_file,
                        field, name, d->weights_file, alike);
}

static const char *shape_text(const struct rk_tensor *tensor, char *buffer, size_t size)
{
    size_t used = (size_t)snprintf(buffer, size, "[");
    for (uint32_t i = 0; i < tensor->rank && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s%llu", i > 0 ? ", " : "",
                                 (unsigned long long)tensor->shape[i]);
    if (used < size)
        snprintf(buffer + used, size - used, "]");
    return buffer;
}

/* Finds a tensor with `rank` dimensions. */
static enum rk_status find_tensor(const struct drafting *d, const char *field, const char *name, uint32_t rank,
                                  const struct rk_tensor **tensor)
{
    char shape[200];
    *tensor = find(d, name);
    if (*tensor == NULL)
        return missing(d, field, name);
    if ((*tensor)->rank != rank)
        return rk_error_set(d->error, RK_INVALID, "%s: tensor '%.128s' (%s) has shape %s, must have %u dimension%s",
                            d->weights_file, name, field, shape_text(*tensor, shape, sizeof shape), rank,
                            rank == 1 ? "" : "s");
    return RK_OK;
}

static enum rk_status find_float(const struct drafting *d, const char *field, const char *name, uint32_t rank,
                                 const struct rk_tensor **tensor)
{
    enum rk_status status = find_tensor(d, field, name, rank, tensor);
    if (status == RK_OK && !rk_dtype_is_float((*tensor)->dtype))
        return rk_error_set(d->error, RK_UNSUPPORTED,
                            "%s: tensor '%.128s' (%s) has dtype %.32s; only F32, F64, F16 and BF16 can be imported%s",
                            d->weights_file, name, field, (*tensor)->dtype_name,
                            (*tensor)->dtype == RK_DTYPE_U8 ? "; a table of packed rows needs its format" : "");
    return status;
}

static enum rk_status wrong_shape(const struct drafting *d, const char *field, const struct rk_tensor *tensor,
                                  const char *expected)
{
    char shape[200];
    return rk_error_set(d->error, RK_INVALID, "%s: tensor '%.128s' (%s) has shape %s, must be %s", d->weights_file,
                        tensor->name, field, shape_text(tensor, shape, sizeof shape), expected);
}

/* Gives a tower tensor its shape and the next place in the weights file. */
static enum rk_status place_tower(struct drafting *d, const char *field, const struct rk_tensor *tensor,
                                  struct rk_tensor_spec *place)
{
    uint64_t rows = tensor->rank == 1 ? 1 : tensor->shape[0], columns = tensor->shape[tensor->rank - 1], offset;
    if (rows == 0 || columns == 0 || rows > RK_MAX_WIDTH || columns > RK_MAX_WIDTH)
        return wrong_shape(d, field, tensor, "from 1 to 1048576 wide in every dimension");
    struct rk_model_spec *spec = &d->draft->spec;
    if (!rk_checked_align(spec->weights_bytes, RK_WEIGHTS_ALIGNMENT, &offset) ||
        !rk_checked_add(offset, rows * columns * sizeof(float), &spec->weights_bytes))
        return rk_error_set(d->error, RK_INVALID, "%s: %s: the towers' weights pass 64 bits", d->config_file, field);
    *place = (struct rk_tensor_spec){.rows = (uint32_t)rows, .columns = (uint32_t)columns, .offset = offset};
    d->draft->tensors[d->draft->num_tensors++] =
        (struct rk_draft_tensor){.source = tensor, .rows = rows, .columns = columns, .place = place};
    return RK_OK;
}

static enum rk_status draft_tensor(struct drafting *d, const char *field, const char *name, uint32_t rank,
                                   struct rk_tensor_spec *place)
{
    const struct rk_tensor *tensor;
    if (name == NULL)
        return out_of_memory(d);
    enum rk_status status = find_float(d, field, name, rank, &tensor);
    return status == RK_OK ? place_tower(d, field, tensor, place) : status;
}

static enum rk_status draft_mlp(struct drafting *d, const char *which, const char *const *names, uint32_t count,
                                struct rk_mlp_spec *mlp)
{
    struct rk_linear_spec *layers = rk_arena_array(d->arena, count, sizeof *layers);
    if (layers == NULL)
        return out_of_memory(d);
    for (uint32_t i = 0; i < count; i++) {
        char field[32], expected[48];
        snprintf(field, sizeof field, "%s[%u]", which, i);
        enum rk_status status =
            draft_tensor(d, field, rk_arena_printf(d->arena, "%s.weight", names[i]), 2, &layers[i].weight);
        if (status == RK_OK)
            status = draft_tensor(d, field, rk_arena_printf(d->arena, "%s.bias", names[i]), 1, &layers[i].bias);
        if (status != RK_OK)
            return status;
        if (layers[i].bias.columns != layers[i].weight.rows) {
            snprintf(expected, sizeof expected, "[%u] like the rows of its weight", layers[i].weight.rows);
            return wrong_shape(d, field, d->draft->tensors[d->draft->num_tensors - 1].source, expected);
        }
    }
    *mlp = (struct rk_mlp_spec){.layers = layers, .num_layers = count};
    return RK_OK;
}

static enum rk_status draft_cross(struct drafting *d)
{
    struct rk_interaction_spec *interaction = &d->draft->spec.interaction;
    struct rk_cross_spec *cross = rk_arena_array(d->arena, interaction->num_cross, sizeof *cross);
    if (cross == NULL)
        return out_of_memory(d);
    for (uint32_t k = 0; k < interaction->num_cross; k++) {
        const struct {
            const char *part;
            uint32_t rank;
            struct rk_tensor_spec *place;
        } parts[] = {{"V_kernels", 2, &cross[k].v.weight},
                     {"W_kernels", 2, &cross[k].w.weight},
                     {"bias", 1, &cross[k].w.bias}};
        for (size_t p = 0; p < 3; p++) {
            char field[64];
            snprintf(field, sizeof field, "interaction layer %u", k);
            const char *name = rk_arena_printf(d->arena, "%s.%s.%u", d->config->cross, parts[p].part, k);
            enum rk_status status = draft_tensor(d, field, name, parts[p].rank, parts[p].place);
            if (status != RK_OK)
                return status;
        }
    }
    interaction->cross = cross;
    return RK_OK;
}

/* Finds the tensor that holds a table's rows: numbers, or rows of the table's format ready-made. */
static enum rk_status find_rows(const struct drafting *d, const char *field, const char *name,
                                const struct rk_table_spec *table, enum rk_row_layout layout,
                                const struct rk_tensor **tensor)
{
    char expected[160];
    const bool bytes = rk_row_traits(table->format)->tail_bytes > 0;
    uint64_t columns = bytes ? rk_packed_row_bytes(table->format, layout, table->embedding_dim) : table->embedding_dim;
    uint64_t padding = layout == RK_LAYOUT_FBGEMM ? RK_LAYOUT_MAX_PADDING : 0;
    enum rk_status status =
        layout == RK_LAYOUT_NUMBERS ? find_float(d, field, name, 2, tensor) : find_tensor(d, field, name, 2, tensor);
    if (status != RK_OK)
        return status;
    static const enum rk_dtype packed_dtypes[] = {
        [RK_ROWS_F16] = RK_DTYPE_F16, [RK_ROWS_BF16] = RK_DTYPE_BF16, [RK_ROWS_INT8] = RK_DTYPE_U8,
        [RK_ROWS_INT4] = RK_DTYPE_U8, [RK_ROWS_INT2] = RK_DTYPE_U8,
    };
    if (layout != RK_LAYOUT_NUMBERS && (*tensor)->dtype != packed_dtypes[table->format])
        return rk_error_set(d->error, RK_UNSUPPORTED,
                            "%s: tensor '%.128s' (%s) has dtype %.32s; format '%s' is for rows that are %s already: "
                            "leave it out and convert the package later",
                            d->weights_file, name, field, (*tensor)->dtype_name, rk_row_format_name(table->format),
                            bytes ? "packed as U8" : "of this type");
    const uint64_t *shape = (*tensor)->shape;
    if (shape[0] == table->num_embeddings && shape[1] >= columns && shape[1] - columns <= padding)
        return RK_OK;
    if (bytes)
        snprintf(expected, sizeof expected, "[%llu, %llu%s] by rows of %s and the bytes of a row of %s with dim %u",
                 (unsigned long long)table->num_embeddings, (unsigned long long)columns,
                 padding > 0 ? " and some padding" : "", d->config_file, rk_row_format_name(table->format),
                 table->embedding_dim);
    else
        snprintf(expected, sizeof expected, "[%llu, %u] by rows and dim of %s",
                 (unsigned long long)table->num_embeddings, table->embedding_dim, d->config_file);
    return wrong_shape(d, field, *tensor, expected);
}

static enum rk_status draft_tables(struct drafting *d, const struct rk_shard_limits *limits)
{
    const struct rk_config *config = d->config;
    uint32_t count = config->spec.num_tables;
    d->draft->tables = rk_arena_array(d->arena, count, sizeof *d->draft->tables);
    if (d->draft->tables == NULL)
        return out_of_memory(d);
    d->draft->spec.tables = d->draft->tables;
    for (uint32_t t = 0; t < count; t++) {
        char field[32];
        snprintf(field, sizeof field, "tables[%u]", t);
        d->draft->tables[t] = config->tables[t];
        const struct rk_table_spec *table = &d->draft->tables[t];
        const struct rk_tensor *tensor;
        enum rk_status status = find_rows(d, field, config->table_tensors[t], table, config->table_layouts[t], &tensor);
        if (status == RK_OK)
            status = rk_draft_cut_shards(&d->draft->tables[t], t, limits, d->arena, d->error);
        if (status != RK_OK)
            return status;
        d->draft->tensors[d->draft->num_tensors++] = (struct rk_draft_tensor){.source = tensor,
                                                                              .rows = table->num_embeddings,
                                                                              .columns = table->embedding_dim,
                                                                              .table = t,
                                                                              .layout = config->table_layouts[t]};
    }
    return RK_OK;
}

enum rk_status rk_draft_create(const struct rk_config *config, const char *config_file, const struct rk_tensor *tensors,
                               size_t num_tensors, const char *weights_file, const struct rk_shard_limits *limits,
                               struct rk_arena *arena, struct rk_draft *draft, struct rk_error *error)
{
    struct drafting d = {.config = config,
                         .config_file = config_file,
                         .weights_file = weights_file,
                         .num_names = num_tensors,
                         .arena = arena,
                         .draft = draft,
                         .error = error};
    *draft = (struct rk_draft){.spec = config->spec};
    draft->spec.weights_file = RK_PACKAGE_WEIGHTS;
    draft->spec.weights_bytes = 0;
    size_t most = 2 * (size_t)(config->num_bottom + config->num_top) + 3 * (size_t)config->spec.interaction.num_cross +
                  config->spec.num_tables;
    d.by_name = rk_arena_array(arena, num_tensors + 1, sizeof *d.by_name);
    draft->tensors = rk_arena_array(arena, most, sizeof *draft->tensors);
    if (d.by_name == NULL || draft->tensors == NULL)
        return out_of_memory(&d);
    for (size_t i = 0; i < num_tensors; i++)
        d.by_name[i] = &tensors[i];
    qsort(d.by_name, num_tensors, sizeof *d.by_name, compare_names);

    enum rk_status status = draft_mlp(&d, "bottom_mlp", config->bottom, config->num_bottom, &draft->spec.bottom);
    if (status == RK_OK)
        status = draft_cross(&d);
    if (status == RK_OK)
        status = draft_mlp(&d, "top_mlp", config->top, config->num_top, &draft->spec.top);
    if (status == RK_OK)
        status = draft_tables(&d, limits);
    if (status != RK_OK)
        return status;
    struct rk_error local = {0};
    if (rk_model_spec_check(&draft->spec, &local) != RK_OK)
        return rk_error_set(error, local.status, "%s: %s", config_file, local.text);
    return RK_OK;
}
