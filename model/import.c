/* The importer reads config.json, maps the checkpoint, drafts the model, gathers golden requests, and hands all of it
 * to the packer, which pulls the tensors through read_tensor() chunk by chunk. One thread. */
#include "model/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config_json.h"
#include "model/traffic.h"

#define GOLDEN_SEED       20260u
#define GOLDEN_CANDIDATES 5u

struct importing {
    const struct rk_import_options *options;
    struct rk_safetensors *weights;
    struct rk_arena arena;
    struct rk_draft draft;
    struct rk_named_request *golden;
    struct rk_named_scores *scores;
    size_t num_golden;
};

static enum rk_status read_tensor(void *context, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count,
                                  void *elements, struct rk_error *error)
{
    float *values = elements;
    const struct importing *import = context;
    uint64_t done = rk_tensor_read(tensor->source, first, count, values);
    if (rk_safetensors_damaged(import->weights))
        return rk_error_set(error, RK_IO, "%s was truncated or became unreadable while it was read",
                            import->options->weights);
    if (done == count)
        return RK_OK;
    uint64_t at = first + done;
    return rk_error_set(error, RK_INVALID,
                        "%s: tensor '%.128s' holds %g at [%llu, %llu]; every weight must be a finite float32",
                        import->options->weights, tensor->source->name, (double)values[done],
                        (unsigned long long)(at / tensor->columns), (unsigned long long)(at % tensor->columns));
}

static enum rk_status read_rows(void *context, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count,
                                void *rows, struct rk_error *error)
{
    const struct importing *import = context;
    const struct rk_table_spec *table = &import->draft.tables[tensor->table];
    const struct rk_packed_rows packed = {.format = table->format,
                                          .layout = tensor->layout,
                                          .dim = table->embedding_dim,
                                          .source_bytes = tensor->source->bytes / tensor->rows};
    uint64_t done =
        rk_packed_rows_convert(&packed, (const char *)tensor->source->data + first * packed.source_bytes, count, rows);
    if (rk_safetensors_damaged(import->weights))
        return rk_error_set(error, RK_IO, "%s was truncated or became unreadable while it was read",
                            import->options->weights);
    if (done == count)
        return RK_OK;
    return rk_error_set(error, RK_INVALID,
                        "%s: row %llu of table '%.128s' (tensor '%.128s', %s) decodes to numbers that are not finite",
                        import->options->weights, (unsigned long long)(first + done), table->name, tensor->source->name,
                        rk_row_format_name(table->format));
}

enum rk_status rk_import_make_golden(const struct rk_model_spec *spec, uint32_t count, struct rk_arena *arena,
                                     struct rk_named_request **requests, struct rk_error *error)
{
    const struct rk_traffic_options traffic = {.num_candidates = GOLDEN_CANDIDATES};
    struct rk_random random = {.state = GOLDEN_SEED};
    struct rk_named_request *list = rk_arena_array(arena, count, sizeof *list);
    if (list == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for golden requests");
    enum rk_status status = RK_OK;
    for (uint32_t i = 0; status == RK_OK && i < count; i++)
        status = rk_traffic_request(spec, &traffic, &random, i, arena, &list[i], error);
    *requests = list;
    return status;
}

/* Reads up to num_golden lines of a file, each with `parse`, into an array of items of item_bytes in the arena. */
static enum rk_status read_lines(struct importing *import, const char *path,
                                 enum rk_status (*parse)(const char *line, size_t length, struct rk_arena *arena,
                                                         void *item, struct rk_error *error),
                                 size_t item_bytes, void **items, size_t *count, struct rk_error *error)
{
    struct rk_jsonl_reader *reader = NULL;
    uint32_t most = import->options->num_golden;
    char *list = rk_arena_array(&import->arena, most, item_bytes);
    if (list == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", path);
    enum rk_status status = rk_jsonl_open(path, &reader, error);
    *count = 0;
    while (status == RK_OK && *count < most) {
        const char *line;
        size_t length;
        uint64_t number;
        status = rk_jsonl_next(reader, &line, &length, &number, error);
        if (status != RK_OK || line == NULL)
            break;
        status = parse(line, length, &import->arena, list + *count * item_bytes, error);
        if (status != RK_OK)
            rk_error_prefix(error, "%s:%llu", path, (unsigned long long)number);
        ++*count;
    }
    rk_jsonl_close(reader);
    *items = list;
    return status;
}

static enum rk_status parse_request(const char *line, size_t length, struct rk_arena *arena, void *item,
                                    struct rk_error *error)
{
    return rk_jsonl_parse(line, length, arena, item, error);
}

static enum rk_status parse_scores(const char *line, size_t length, struct rk_arena *arena, void *item,
                                   struct rk_error *error)
{
    return rk_jsonl_parse_scores(line, length, arena, item, error);
}

static enum rk_status gather_golden(struct importing *import, const struct rk_model_spec *spec, struct rk_error *error)
{
    const struct rk_import_options *options = import->options;
    if (options->num_golden == 0)
        return rk_error_set(error, RK_INVALID, "a package needs at least one golden request");
    if (options->golden_requests == NULL) {
        if (options->golden_scores != NULL)
            return rk_error_set(error, RK_INVALID, "golden scores need the golden requests that they belong to");
        import->num_golden = options->num_golden;
        return rk_import_make_golden(spec, options->num_golden, &import->arena, &import->golden, error);
    }
    void *items = NULL;
    enum rk_status status = read_lines(import, options->golden_requests, parse_request, sizeof *import->golden, &items,
                                       &import->num_golden, error);
    if (status != RK_OK)
        return status;
    import->golden = items;
    if (import->num_golden == 0)
        return rk_error_set(error, RK_INVALID, "%s has no request", options->golden_requests);
    if (options->golden_scores == NULL)
        return RK_OK;
    size_t num_scores = 0;
    status =
        read_lines(import, options->golden_scores, parse_scores, sizeof *import->scores, &items, &num_scores, error);
    if (status != RK_OK)
        return status;
    import->scores = items;
    if (num_scores < import->num_golden)
        return rk_error_set(error, RK_INVALID, "%s has scores for %zu of the %zu golden requests",
                            options->golden_scores, num_scores, import->num_golden);
    for (size_t i = 0; i < import->num_golden; i++)
        if (strcmp(import->scores[i].id, import->golden[i].id) != 0)
            return rk_error_set(error, RK_INVALID, "%s: line %zu has id '%.64s' where %s has '%.64s'",
                                options->golden_scores, i + 1, import->scores[i].id, options->golden_requests,
                                import->golden[i].id);
    return RK_OK;
}

static void warn_unused(const struct importing *import, const struct rk_draft *draft, const struct rk_tensor *tensors,
                        size_t num_tensors)
{
    bool *used = rk_arena_array((struct rk_arena *)&import->arena, num_tensors, sizeof *used);
    if (import->options->warn == NULL || used == NULL)
        return;
    for (size_t i = 0; i < draft->num_tensors; i++)
        used[draft->tensors[i].source - tensors] = true;
    const char *example = NULL;
    size_t count = 0;
    for (size_t i = 0; i < num_tensors; i++) {
        if (used[i])
            continue;
        count++;
        if (example == NULL)
            example = tensors[i].name;
    }
    char text[400];
    if (count == 0)
        return;
    snprintf(text, sizeof text, "%zu tensor%s of %.128s %s not used by %.64s, for example '%.128s'", count,
             count == 1 ? "" : "s", import->options->weights, count == 1 ? "is" : "are", import->options->config,
             example);
    import->options->warn(import->options->context, text);
}

static void warn_padding(const struct importing *import)
{
    for (size_t i = 0; i < import->draft.num_tensors && import->options->warn != NULL; i++) {
        const struct rk_draft_tensor *tensor = &import->draft.tensors[i];
        if (tensor->layout != RK_LAYOUT_FBGEMM)
            continue;
        const struct rk_table_spec *table = &import->draft.tables[tensor->table];
        uint64_t padding =
            tensor->source->shape[1] - rk_packed_row_bytes(table->format, tensor->layout, table->embedding_dim);
        char text[400];
        snprintf(text, sizeof text, "%llu byte%s of padding behind each row of table '%.128s' left out",
                 (unsigned long long)padding, padding == 1 ? "" : "s", table->name);
        if (padding > 0)
            import->options->warn(import->options->context, text);
    }
}

enum rk_status rk_import(const struct rk_import_options *options, struct rk_error *error)
{
    struct importing import = {.options = options};
    struct rk_error local = {0};
    struct rk_config config;
    rk_arena_init(&import.arena, 1u << 20);
    enum rk_status status = rk_config_read(options->config, &import.arena, &config, &local);
    if (status == RK_OK)
        status = rk_safetensors_open(options->weights, &import.weights, &local);
    if (status != RK_OK)
        goto done;
    size_t num_tensors;
    const struct rk_tensor *tensors = rk_safetensors_tensors(import.weights, &num_tensors);
    status = rk_draft_create(&config, options->config, tensors, num_tensors, options->weights, &options->shards,
                             &import.arena, &import.draft, &local);
    if (status == RK_OK)
        status = gather_golden(&import, &import.draft.spec, &local);
    if (status != RK_OK)
        goto done;
    warn_unused(&import, &import.draft, tensors, num_tensors);
    warn_padding(&import);
    const struct rk_pack_job job = {
        .output = options->output,
        .draft = &import.draft,
        .read = read_tensor,
        .read_rows = read_rows,
        .read_context = &import,
        .progress = options->progress,
        .progress_context = options->context,
        .golden = import.golden,
        .num_golden = import.num_golden,
        .golden_scores = import.scores,
    };
    status = rk_pack(&job, &local);
done:
    rk_safetensors_close(import.weights);
    rk_arena_deinit(&import.arena);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}
