/* Input ranges of a model's layers, seen while its engine scores a sample. */
#include <math.h>
#include <stdlib.h>

#include "model/engine.h"
#include "model/jsonl.h"
#include "model/quantize_towers.h"

enum { BATCH = 256 };

struct watching {
    struct rk_input_ranges *ranges;
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
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
    for (uint32_t r = 0; r < rows; r++, values += stride)
        for (uint32_t c = 0; c < columns; c++) {
            range->low = fminf(range->low, values[c]);
            range->high = fmaxf(range->high, values[c]);
        }
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
    struct rk_arena arena;
    rk_arena_init(&arena, 1u << 20);
    *ranges = (struct rk_input_ranges){0};
    watching.num_layers = rk_model_spec_layers(spec, watching.uses);
    enum rk_status status = rk_engine_create(model, BATCH, &engine, error);
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
    return status;
}
