/* Input ranges of a model's layers, seen while its engine scores a sample. */
#include <math.h>
#include <stdlib.h>

#include "model/engine.h"
#include "model/interaction.h"
#include "model/jsonl.h"
#include "model/quantize_towers.h"

enum { BATCH = 256 };

struct watching {
    struct rk_input_ranges *ranges;
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    const float *gains[RK_MAX_LAYER_USES]; /* in the engine's order of columns; NULL: ones */
    size_t num_layers;
};

static void see(void *context, enum rk_stage stage, uint32_t index, const float *values, uint32_t rows,
                uint32_t columns, size_t stride)
{
    struct watching *watching = context;
    size_t layer = 0;
    while (layer < watching->num_layers &&
           (watching->uses[layer].stage != stage || watching->uses[layer].index != index))
        layer++;
    if (layer == watching->num_layers)
        return;
    struct rk_input_range *range = &watching->ranges->layers[layer];
    const float *gains = watching->gains[layer];
    for (uint32_t r = 0; r < rows; r++, values += stride)
        for (uint32_t c = 0; c < columns; c++) {
            const float value = gains != NULL ? values[c] * gains[c] : values[c];
            range->low = fminf(range->low, value);
            range->high = fmaxf(range->high, value);
        }
}

static enum rk_status find_gains(struct watching *watching, const struct rk_model *model, struct rk_arena *arena,
                                 struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    const uint32_t top_in = rk_model_spec_widths(spec).top_in;
    uint32_t *order = rk_arena_array(arena, top_in, sizeof *order);
    if (order == NULL)
        goto no_memory;
    rk_interaction_order(spec, order);
    for (size_t l = 0; l < watching->num_layers; l++) {
        const struct rk_layer_use *use = &watching->uses[l];
        const struct rk_tensor_spec *weight = &use->layer->weight;
        if (!rk_layer_takes_gains(use) || use->layer->format != RK_DENSE_F32)
            continue;
        float *gains = rk_arena_array(arena, weight->columns, sizeof *gains);
        float *ordered = rk_arena_array(arena, weight->columns, sizeof *ordered);
        if (gains == NULL || ordered == NULL)
            goto no_memory;
        rk_layer_gains((const float *)((const unsigned char *)rk_model_weights(model) + weight->offset), weight->rows,
                       weight->columns, gains);
        for (uint32_t c = 0; c < weight->columns; c++)
            ordered[c] = gains[use->stage == RK_STAGE_TOP ? order[c] : c];
        watching->gains[l] = ordered;
    }
    return RK_OK;
no_memory:
    return rk_error_set(error, RK_NO_MEMORY, "out of memory for calibration");
}

static enum rk_status score_line(struct rk_engine *engine, const struct rk_model_spec *spec, const char *line,
                                 size_t length, struct rk_arena *arena, uint64_t *num_candidates,
                                 struct rk_error *error)
{
    struct rk_named_request named;
    struct rk_request request;
    rk_arena_reset(arena, SIZE_MAX);
    enum rk_status status = rk_jsonl_parse(line, length, arena, &named, error);
    if (status == RK_OK)
        status = rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, &named, arena, &request, error);
    if (status != RK_OK)
        return status;
    float *logits = rk_arena_array(arena, (size_t)request.num_candidates * spec->num_heads, sizeof *logits);
    if (logits == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for scores");
    *num_candidates += request.num_candidates;
    status = rk_engine_score(engine, &request, logits);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "the model's files were damaged while it ran");
}

enum rk_status rk_input_ranges_read(const struct rk_model *model, const char *requests, struct rk_input_ranges *ranges,
                                    struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    struct watching watching = {.ranges = ranges};
    struct rk_engine *engine = NULL;
    struct rk_jsonl_reader *reader = NULL;
    struct rk_arena arena, lasting;
    rk_arena_init(&arena, 1u << 20);
    rk_arena_init(&lasting, 1u << 16);
    *ranges = (struct rk_input_ranges){0};
    watching.num_layers = rk_model_spec_layers(spec, watching.uses);
    enum rk_status status = find_gains(&watching, model, &lasting, error);
    if (status == RK_OK)
        status = rk_engine_create(model, BATCH, &engine, error);
    if (status == RK_OK) {
        status = rk_engine_observe(engine, see, &watching);
        if (status != RK_OK)
            rk_error_set(error, status, "only a model with fp32 towers can be calibrated");
    }
    if (status == RK_OK)
        status = rk_jsonl_open(requests, &reader, error);
    while (status == RK_OK) {
        const char *line;
        size_t length;
        uint64_t number;
        status = rk_jsonl_next(reader, &line, &length, &number, error);
        if (status != RK_OK || line == NULL)
            break;
        status = score_line(engine, spec, line, length, &arena, &ranges->num_candidates, error);
        if (status != RK_OK)
            rk_error_prefix(error, "%s:%llu", requests, (unsigned long long)number);
    }
    if (status == RK_OK && ranges->num_candidates == 0)
        status = rk_error_set(error, RK_INVALID, "%s: there are no candidates to calibrate with", requests);
    /* A layer that reads nothing but zeros: any range does. */
    for (size_t l = 0; l < watching.num_layers; l++)
        if (ranges->layers[l].low == ranges->layers[l].high)
            ranges->layers[l].high = 1.0f;
    rk_jsonl_close(reader);
    rk_engine_destroy(engine);
    rk_arena_deinit(&arena);
    rk_arena_deinit(&lasting);
    return status;
}
