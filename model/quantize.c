/* Quantising: a spec in new formats, a draft whose tensors are read through conversions, and the packer that import
 * uses too. The source's golden requests become the new package's, scored anew. One thread. */
#include "model/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/draft.h"
#include "model/golden.h"
#include "model/model_open.h"
#include "model/quantize_rows.h"
#include "model/quantize_towers.h"

struct quantizing {
    const struct rk_model *model;
    const struct rk_quantize_options *options;
    const struct rk_model_spec *from;
    struct rk_draft draft;
    struct rk_row_conversion *conversions; /* [num_tables] */
    unsigned char *image;                  /* the new weights file */
    struct rk_arena *arena;
    struct rk_error *error;
};

static enum rk_status out_of_memory(struct quantizing *q)
{
    return rk_error_set(q->error, RK_NO_MEMORY, "out of memory for quantising model '%s'", q->from->name);
}

/* ---- the draft ---- */

static enum rk_status cut_table(struct quantizing *q, uint32_t t, struct rk_table_spec *to)
{
    const struct rk_table_spec *from = &q->from->tables[t];
    const bool same_rows = rk_table_spec_stored_rows(from) == rk_table_spec_stored_rows(to);
    if (same_rows && q->options->cut == NULL) {
        struct rk_shard_spec *shards = rk_arena_array(q->arena, from->num_shards, sizeof *shards);
        if (shards == NULL)
            return out_of_memory(q);
        memcpy(shards, from->shards, from->num_shards * sizeof *shards);
        to->shards = shards;
        return RK_OK;
    }
    static const struct rk_shard_limits limits = {.max_rows = UINT64_MAX, .max_bytes = RK_SHARD_BYTES};
    return rk_draft_cut_shards(to, t, q->options->cut != NULL ? q->options->cut : &limits, q->arena, q->error);
}

static enum rk_status draft_table(struct quantizing *q, uint32_t t, struct rk_table_spec *to)
{
    const struct rk_table_spec *from = &q->from->tables[t];
    const struct rk_table_plan *plan = rk_plan_table(q->options->plan, from->name);
    struct rk_row_conversion *conversion = &q->conversions[t];
    *to = *from;
    *conversion = (struct rk_row_conversion){
        .table = rk_model_table(q->model, t),
        .from = from,
        .to = to,
        .stream = rk_row_stream_begin(rk_model_table(q->model, t)),
        .progress = q->options->progress,
        .progress_context = q->options->progress_context,
        .values = rk_arena_array(q->arena, from->embedding_dim, sizeof(float)),
        .decoded = rk_arena_array(q->arena, from->embedding_dim, sizeof(float)),
        .sum = rk_arena_array(q->arena, from->embedding_dim, sizeof(double)),
    };
    if (conversion->values == NULL || conversion->decoded == NULL || conversion->sum == NULL)
        return out_of_memory(q);
    if (plan != NULL && plan->has_format)
        to->format = plan->format;
    uint64_t kept = 0;
    for (size_t r = 0; plan != NULL && plan->pruned && r < plan->num_kept; r++)
        kept += plan->kept[r].count;
    if (plan != NULL && plan->pruned && kept < from->num_embeddings) {
        if (from->kept.file != NULL)
            return rk_error_set(q->error, RK_INVALID, "table '%.128s' is pruned already: prune the whole model instead",
                                from->name);
        static const struct rk_row_range nothing;
        conversion->kept = plan->kept != NULL ? plan->kept : &nothing;
        conversion->num_kept = plan->num_kept;
        to->kept = (struct rk_kept_spec){.file = rk_arena_printf(q->arena, "table-%03u.kept", t), .num_rows = kept};
        if (to->kept.file == NULL)
            return out_of_memory(q);
    }
    return cut_table(q, t, to);
}

/* Tensors: the towers' in the order of the weights file, then one per table. */
static enum rk_status draft_tensors(struct quantizing *q)
{
    struct rk_draft *draft = &q->draft;
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t num_towers = rk_model_spec_tensors(&draft->spec, uses);
    draft->num_tensors = num_towers + draft->spec.num_tables;
    draft->tensors = rk_arena_array(q->arena, draft->num_tensors, sizeof *draft->tensors);
    if (draft->tensors == NULL)
        return out_of_memory(q);
    for (size_t i = 0; i < num_towers; i++)
        draft->tensors[i] = (struct rk_draft_tensor){
            .rows = uses[i].tensor->rows,
            .columns = uses[i].tensor->columns,
            .place = (struct rk_tensor_spec *)uses[i].tensor,
            .format = uses[i].format,
        };
    for (uint32_t t = 0; t < draft->spec.num_tables; t++)
        draft->tensors[num_towers + t] = (struct rk_draft_tensor){
            .rows = rk_table_spec_stored_rows(&draft->tables[t]),
            .columns = draft->tables[t].embedding_dim,
            .table = t,
            .layout = RK_LAYOUT_ROWS,
        };
    return RK_OK;
}

static enum rk_status draft_model(struct quantizing *q, const struct rk_input_ranges *ranges)
{
    struct rk_draft *draft = &q->draft;
    draft->spec = *q->from;
    draft->tables = rk_arena_array(q->arena, (size_t)q->from->num_tables + 1, sizeof *draft->tables);
    q->conversions = rk_arena_array(q->arena, (size_t)q->from->num_tables + 1, sizeof *q->conversions);
    if (draft->tables == NULL || q->conversions == NULL)
        return out_of_memory(q);
    draft->spec.tables = draft->tables;
    draft->spec.weights_file = RK_PACKAGE_WEIGHTS;
    if (q->options->calibration != NULL)
        draft->spec.calibration = q->options->calibration;
    enum rk_status status = rk_quantize_layers(q->options->plan, ranges, q->arena, &draft->spec, q->error);
    for (uint32_t t = 0; status == RK_OK && t < q->from->num_tables; t++)
        status = draft_table(q, t, &draft->tables[t]);
    if (status == RK_OK)
        status = rk_model_spec_check(&draft->spec, q->error);
    return status == RK_OK ? draft_tensors(q) : status;
}

/* ---- what the packer asks for ---- */

static enum rk_status read_towers(void *context, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count,
                                  void *elements, struct rk_error *error)
{
    (void)error;
    const struct quantizing *q = context;
    const size_t element_bytes = rk_dense_element_bytes(tensor->format);
    memcpy(elements, q->image + tensor->place->offset + first * element_bytes, count * element_bytes);
    return RK_OK;
}

static enum rk_status read_rows(void *context, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count,
                                void *rows, struct rk_error *error)
{
    struct quantizing *q = context;
    return rk_row_conversion_read(&q->conversions[tensor->table], first, count, rows, error);
}

static enum rk_status write_kept(void *context, uint32_t table, struct rk_package_writer *writer,
                                 struct rk_error *error)
{
    struct quantizing *q = context;
    return rk_row_conversion_write_kept(&q->conversions[table], writer, error);
}

/* ---- golden requests ---- */

struct golden {
    struct rk_named_request *requests;
    struct rk_named_scores *scores; /* the source's */
    size_t count;
};

static enum rk_status read_golden_file(struct quantizing *q, const struct rk_file_ref *ref, bool scores,
                                       struct golden *golden)
{
    char *path = rk_arena_printf(q->arena, "%s/%s", q->options->model_dir, ref->file);
    struct rk_jsonl_reader *reader = NULL;
    if (path == NULL)
        return out_of_memory(q);
    enum rk_status status = rk_jsonl_open(path, &reader, q->error);
    size_t count = 0, capacity = 0;
    while (status == RK_OK) {
        const char *line;
        size_t length;
        uint64_t number;
        status = rk_jsonl_next(reader, &line, &length, &number, q->error);
        if (status != RK_OK || line == NULL)
            break;
        if (count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 16;
            const size_t bytes = scores ? sizeof *golden->scores : sizeof *golden->requests;
            void *more = rk_arena_array(q->arena, capacity, bytes);
            if (more == NULL) {
                status = out_of_memory(q);
                break;
            }
            if (count > 0)
                memcpy(more, scores ? (void *)golden->scores : (void *)golden->requests, count * bytes);
            if (scores)
                golden->scores = more;
            else
                golden->requests = more;
        }
        status = scores ? rk_jsonl_parse_scores(line, length, q->arena, &golden->scores[count], q->error)
                        : rk_jsonl_parse(line, length, q->arena, &golden->requests[count], q->error);
        count++;
    }
    rk_jsonl_close(reader);
    if (status == RK_OK && scores && count != golden->count)
        status =
            rk_error_set(q->error, RK_CORRUPT, "%s has %zu lines for %zu golden requests", path, count, golden->count);
    golden->count = count;
    return status;
}

/* The new package's scores of its golden requests beside the source's. */
static enum rk_status compare_golden(struct quantizing *q, const struct golden *golden,
                                     struct rk_quantize_result *result)
{
    struct golden made = {.count = golden->count};
    const struct rk_file_ref scores = {.file = RK_PACKAGE_SCORES};
    const struct rk_quantize_options *options = q->options;
    const struct rk_quantize_options written = {.model_dir = options->output};
    q->options = &written;
    const enum rk_status status = read_golden_file(q, &scores, true, &made);
    q->options = options;
    for (size_t i = 0; status == RK_OK && i < made.count; i++)
        for (size_t l = 0; l < (size_t)made.scores[i].num_candidates * made.scores[i].num_heads; l++)
            result->largest_golden_error =
                fmax(result->largest_golden_error, fabs(made.scores[i].logits[l] - golden->scores[i].logits[l]));
    result->num_golden = (uint32_t)golden->count;
    return status;
}

/* ---- all of it ---- */

static enum rk_status calibrate(struct quantizing *q, struct rk_input_ranges **ranges)
{
    const struct rk_part_plan *parts = q->options->plan->parts;
    bool int8 = false;
    for (int p = 0; p < RK_PART_COUNT; p++)
        int8 |= parts[p].has_format && parts[p].format == RK_DENSE_INT8 &&
                (p != RK_PART_INTERACTION || q->from->interaction.op == RK_INTERACTION_DCN_V2);
    if (!int8)
        return rk_error_set(q->error, RK_INVALID,
                            "there is nothing to calibrate with %s: the plan makes no int8 layers",
                            q->options->calibrate);
    *ranges = rk_arena_alloc(q->arena, sizeof **ranges);
    return *ranges != NULL ? rk_input_ranges_read(q->model, q->options->calibrate, *ranges, q->error)
                           : out_of_memory(q);
}

static void conclude(const struct quantizing *q, struct rk_quantize_result *result)
{
    result->bytes_before = rk_model_bytes(q->model);
    result->bytes_after = q->draft.spec.weights_bytes;
    for (uint32_t t = 0; t < q->from->num_tables; t++) {
        const struct rk_row_conversion *c = &q->conversions[t];
        result->tables[t] = (struct rk_quantized_table){
            .rows = c->from->num_embeddings,
            .kept = c->to->kept.file != NULL ? c->to->kept.num_rows : c->to->num_embeddings,
            .from = c->from->format,
            .to = c->to->format,
            .bytes_before = rk_table_spec_bytes(c->from),
            .bytes_after = rk_table_spec_bytes(c->to),
            .largest_error = c->largest_error,
            .mean_error = c->num_elements > 0 ? c->error_sum / (double)c->num_elements : 0.0,
        };
        result->bytes_after += result->tables[t].bytes_after;
    }
}

enum rk_status rk_quantize(const struct rk_model *model, const struct rk_quantize_options *options,
                           struct rk_arena *arena, struct rk_quantize_result *result, struct rk_error *error)
{
    struct rk_error local = {0};
    struct quantizing q = {
        .model = model, .options = options, .from = rk_model_spec_of(model), .arena = arena, .error = &local};
    const struct rk_manifest *manifest = rk_model_manifest(model);
    struct golden golden = {0};
    struct rk_input_ranges *ranges = NULL;
    *result = (struct rk_quantize_result){0};
    result->tables = rk_arena_array(arena, (size_t)q.from->num_tables + 1, sizeof *result->tables);
    enum rk_status status = result->tables != NULL ? RK_OK : out_of_memory(&q);
    if (status == RK_OK)
        status = rk_plan_check(options->plan, q.from, &local);
    if (status == RK_OK)
        status = read_golden_file(&q, &manifest->golden_requests, false, &golden);
    if (status == RK_OK)
        status = read_golden_file(&q, &manifest->golden_scores, true, &golden);
    if (status == RK_OK && options->calibrate != NULL) {
        status = calibrate(&q, &ranges);
        result->calibrated_rows = status == RK_OK ? ranges->num_candidates : 0;
    }
    if (status == RK_OK)
        status = draft_model(&q, ranges);
    if (status == RK_OK)
        status = rk_quantize_weights(model, &q.draft.spec, &q.image, &local);
    if (status == RK_OK) {
        const struct rk_pack_job job = {
            .output = options->output,
            .draft = &q.draft,
            .read = read_towers,
            .read_rows = read_rows,
            .write_kept = write_kept,
            .read_context = &q,
            .progress = options->progress,
            .progress_context = options->progress_context,
            .golden = golden.requests,
            .num_golden = golden.count,
        };
        status = rk_pack(&job, &local);
    }
    if (status == RK_OK) {
        conclude(&q, result);
        status = compare_golden(&q, &golden, result);
    }
    free(q.image);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}
