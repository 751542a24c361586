/* Input ranges of a model's int8 layers, from a sample that its engine scores twice: to see how far the inputs of each
 * layer reach, and to count them in a histogram, for which the range with the smallest squared error is chosen. One
 * thread. */
#include <math.h>
#include <string.h>

#include "model/columns.h"
#include "model/engine.h"
#include "model/jsonl.h"
#include "model/quantize_towers.h"

enum {
    BATCH = 256,
    BINS = 4096, /* of a layer's histogram, from the lowest input to the highest */
    CUTS = 64,   /* how many lower and how many higher ends are tried */
};

struct watched_layer {
    struct rk_layer_use use;
    const float *gains; /* in the engine's order of columns; NULL: ones */
    struct rk_input_range seen;
    uint64_t *counts; /* [BINS] of inputs other than 0, which every range holds exactly; NULL: the ends are sought */
};

struct watching {
    struct watched_layer layers[RK_MAX_LAYER_USES];
    size_t num_layers;
};

static void see(void *context, enum rk_stage stage, uint32_t index, uint32_t first_column, const float *values,
                uint32_t rows, uint32_t columns, size_t stride)
{
    struct watching *watching = context;
    struct watched_layer *layer = watching->layers, *end = layer + watching->num_layers;
    while (layer < end && (layer->use.stage != stage || layer->use.index != index))
        layer++;
    if (layer == end)
        return;
    struct rk_input_range *seen = &layer->seen;
    const float bins_per_unit = (float)BINS / (seen->high - seen->low);
    for (uint32_t r = 0; r < rows; r++, values += stride)
        for (uint32_t c = 0; c < columns; c++) {
            const float value = layer->gains != NULL ? values[c] * layer->gains[first_column + c] : values[c];
            if (layer->counts == NULL) {
                seen->low = fminf(seen->low, value);
                seen->high = fmaxf(seen->high, value);
            } else if (value != 0.0f) {
                const float bin = fmaxf(0.0f, (value - seen->low) * bins_per_unit);
                layer->counts[bin < BINS ? (size_t)bin : BINS - 1]++;
            }
        }
}

/* The sum of squared errors when what was seen is rounded to the 256 steps of [low, high], and clipped to them; each
 * input taken at the middle of its bin. */
static double error_of(const struct watched_layer *layer, double low, double high)
{
    const double width = ((double)layer->seen.high - layer->seen.low) / BINS, step = (high - low) / 255;
    const double lowest = -rint(-low / step), highest = 255 + lowest, steps_per_unit = 1 / step;
    double sum = 0;
    for (int b = 0; b < BINS; b++) {
        const double value = layer->seen.low + (b + 0.5) * width;
        const double error = value - step * fmin(fmax(rint(value * steps_per_unit), lowest), highest);
        sum += (double)layer->counts[b] * (error * error);
    }
    return sum;
}

/* A few inputs far out would make the steps coarse for all the others. */
static struct rk_input_range choose_range(const struct watched_layer *layer)
{
    struct rk_input_range best = layer->seen;
    double least = error_of(layer, best.low, best.high);
    for (int l = layer->seen.low < 0 ? 1 : CUTS; l <= CUTS; l++)
        for (int h = layer->seen.high > 0 ? 1 : CUTS; h <= CUTS; h++) {
            const struct rk_input_range range = {layer->seen.low * (float)l / CUTS, layer->seen.high * (float)h / CUTS};
            const double error = range.low < range.high ? error_of(layer, range.low, range.high) : least;
            if (error < least) {
                least = error;
                best = range;
            }
        }
    return best;
}

static enum rk_status find_gains(struct watching *watching, const struct rk_model *model, struct rk_arena *arena,
                                 struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    for (size_t l = 0; l < watching->num_layers; l++) {
        const struct rk_layer_use *use = &watching->layers[l].use;
        const struct rk_tensor_spec *weight = &use->layer->weight;
        if (!rk_layer_takes_gains(use) || use->layer->format != RK_DENSE_F32)
            continue;
        uint32_t *order = rk_arena_array(arena, weight->columns, sizeof *order);
        float *gains = rk_arena_array(arena, weight->columns, sizeof *gains);
        float *ordered = rk_arena_array(arena, weight->columns, sizeof *ordered);
        if (order == NULL || gains == NULL || ordered == NULL)
            goto no_memory;
        rk_layer_gains((const float *)((const unsigned char *)rk_model_weights(model) + weight->offset), weight->rows,
                       weight->columns, gains);
        rk_layer_columns(spec, use, order);
        for (uint32_t c = 0; c < weight->columns; c++)
            ordered[c] = gains[order[c]];
        watching->layers[l].gains = ordered;
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

/* Shows the engine's layers to `watching` while it scores the file. */
static enum rk_status score_file(struct watching *watching, const struct rk_model *model, const char *requests,
                                 uint64_t *num_candidates, struct rk_error *error)
{
    struct rk_engine *engine = NULL;
    struct rk_jsonl_reader *reader = NULL;
    struct rk_arena arena;
    rk_arena_init(&arena, 1u << 20);
    *num_candidates = 0;
    enum rk_status status = rk_engine_create(model, BATCH, &engine, error);
    if (status == RK_OK) {
        status = rk_engine_observe(engine, see, watching);
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
        status = score_line(engine, rk_model_spec_of(model), line, length, &arena, num_candidates, error);
        if (status != RK_OK)
            rk_error_prefix(error, "%s:%llu", requests, (unsigned long long)number);
    }
    if (status == RK_OK && *num_candidates == 0)
        status = rk_error_set(error, RK_INVALID, "%s: there are no candidates to calibrate with", requests);
    rk_jsonl_close(reader);
    rk_engine_destroy(engine);
    rk_arena_deinit(&arena);
    return status;
}

enum rk_status rk_input_ranges_read(const struct rk_model *model, const char *requests, struct rk_input_ranges *ranges,
                                    struct rk_error *error)
{
    struct watching watching = {0};
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    struct rk_arena arena;
    *ranges = (struct rk_input_ranges){0};
    if (strcmp(requests, "-") == 0)
        return rk_error_set(error, RK_INVALID, "calibration reads its requests twice: put them into a file");
    rk_arena_init(&arena, 1u << 16);
    watching.num_layers = rk_model_spec_layers(rk_model_spec_of(model), uses);
    for (size_t l = 0; l < watching.num_layers; l++)
        watching.layers[l].use = uses[l];
    enum rk_status status = find_gains(&watching, model, &arena, error);
    if (status == RK_OK)
        status = score_file(&watching, model, requests, &ranges->num_candidates, error);
    for (size_t l = 0; status == RK_OK && l < watching.num_layers; l++) {
        struct watched_layer *layer = &watching.layers[l];
        if (layer->seen.low == layer->seen.high) /* nothing but zeros: any range does */
            layer->seen.high = 1.0f;
        if (!isfinite(layer->seen.low) || !isfinite(layer->seen.high))
            status = rk_error_set(error, RK_INVALID,
                                  "%s: a layer reads numbers beyond the range of float32 while it is scored", requests);
        layer->counts = rk_arena_array(&arena, BINS, sizeof *layer->counts);
        if (status == RK_OK && layer->counts == NULL)
            status = rk_error_set(error, RK_NO_MEMORY, "out of memory for calibration");
    }
    if (status == RK_OK)
        status = score_file(&watching, model, requests, &ranges->num_candidates, error);
    for (size_t l = 0; status == RK_OK && l < watching.num_layers; l++)
        ranges->layers[l] = choose_range(&watching.layers[l]);
    rk_arena_deinit(&arena);
    return status;
}
