/* A whole backend, as plain as it can be: every candidate alone, in double precision, by the formulas of
 * model/FORMAT.md. It shows what a plug-in is made of, and tests use it as one.
 *
 * Layers are decoded when a model is loaded; rows are read where they are. A runner is scratch memory for one
 * candidate. It computes on the calling thread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/backend.h"

struct rk_device {
    const struct rk_backend_host *host;
};

struct layer {
    const struct rk_linear_spec *spec;
    float *weights; /* [out][in] */
    const float *bias, *gain;
};

struct rk_loaded {
    const struct rk_backend_host *host;
    const struct rk_model *model;
    const struct rk_model_spec *spec;
    struct layer *bottom, *top, *cross_v, *cross_w;
    uint32_t widest; /* of all vectors that are ever made */
};

struct rk_runner {
    const struct rk_loaded *loaded;
    uint32_t max_batch;
    float *row;                          /* [widest] */
    double *x0, *x, *rounded, *turns[2]; /* [widest] each */
    bool *of_context;                    /* [widest]: of what the next layer reads, what the context alone decides */
    bool asked;                          /* what a run costs */
    struct rk_run_cost cost;
    uint64_t mark_ns; /* until when it is accounted for */
};

/* ---- the device ---- */

static const struct rk_capabilities can = {
    .row_formats = (1u << RK_ROW_FORMAT_COUNT) - 1,
    .dense_formats = (1u << RK_DENSE_FORMAT_COUNT) - 1,
    .interactions = 1u << RK_INTERACTION_DOT | 1u << RK_INTERACTION_CAT | 1u << RK_INTERACTION_DCN_V2,
    .error = {[RK_DENSE_F32] = {1e-6, 1e-5}, [RK_DENSE_BF16] = {1e-5, 0.5}, [RK_DENSE_INT8] = {1e-5, 0.5}},
    .in_place = true,
};

static enum rk_status open_device(const struct rk_backend_host *host, const char *options, struct rk_device **device,
                                  struct rk_error *error)
{
    if (options[0] != '\0')
        return host->error_set(error, RK_INVALID, "backend plain takes no options; '%.100s' was given", options);
    *device = malloc(sizeof **device);
    if (*device == NULL)
        return host->error_set(error, RK_NO_MEMORY, "out of memory");
    (*device)->host = host;
    return RK_OK;
}

static void close_device(struct rk_device *device)
{
    free(device);
}

static const char *describe(const struct rk_device *device)
{
    (void)device;
    return "plain (double precision, one candidate at a time)";
}

static const struct rk_capabilities *capabilities(const struct rk_device *device)
{
    (void)device;
    return &can;
}

/* ---- a loaded model ---- */

static void widen(struct rk_loaded *loaded, uint32_t width)
{
    if (width > loaded->widest)
        loaded->widest = width;
}

static bool decode_layer(struct rk_loaded *loaded, const struct rk_linear_spec *spec, struct layer *layer)
{
    const unsigned char *file = loaded->host->model_weights(loaded->model);
    const uint32_t out = spec->weight.rows, in = spec->weight.columns;
    *layer = (struct layer){.spec = spec, .weights = malloc((size_t)out * in * sizeof(float))};
    if (layer->weights == NULL)
        return false;
    loaded->host->decode_dense(spec->format, file + spec->weight.offset, (const float *)(file + spec->scale.offset),
                               out, in, layer->weights);
    if (spec->bias.rows > 0)
        layer->bias = (const float *)(file + spec->bias.offset);
    if (spec->gain.rows > 0)
        layer->gain = (const float *)(file + spec->gain.offset);
    widen(loaded, in);
    widen(loaded, out);
    return true;
}

static bool decode_mlp(struct rk_loaded *loaded, const struct rk_mlp_spec *mlp, struct layer *layers)
{
    bool fine = layers != NULL;
    for (uint32_t l = 0; fine && l < mlp->num_layers; l++)
        fine = decode_layer(loaded, &mlp->layers[l], &layers[l]);
    return fine;
}

static void free_layers(struct layer *layers, uint32_t num_layers)
{
    for (uint32_t l = 0; layers != NULL && l < num_layers; l++)
        free(layers[l].weights);
    free(layers);
}

static void unload(struct rk_loaded *loaded)
{
    if (loaded == NULL)
        return;
    free_layers(loaded->bottom, loaded->spec->bottom.num_layers);
    free_layers(loaded->top, loaded->spec->top.num_layers);
    free_layers(loaded->cross_v, loaded->spec->interaction.num_cross);
    free_layers(loaded->cross_w, loaded->spec->interaction.num_cross);
    free(loaded);
}

static enum rk_status load(struct rk_device *device, const struct rk_model *model,
                           const struct rk_load_options *options, struct rk_loaded **result, struct rk_error *error)
{
    const struct rk_backend_host *host = device->host;
    const struct rk_model_spec *spec = host->model_spec(model);
    struct rk_loaded *loaded = calloc(1, sizeof *loaded);
    if (loaded == NULL)
        return host->error_set(error, RK_NO_MEMORY, "out of memory");
    *loaded = (struct rk_loaded){.host = host, .model = model, .spec = spec};
    loaded->bottom = calloc((size_t)spec->bottom.num_layers + 1, sizeof(struct layer));
    loaded->top = calloc((size_t)spec->top.num_layers + 1, sizeof(struct layer));
    loaded->cross_v = calloc((size_t)spec->interaction.num_cross + 1, sizeof(struct layer));
    loaded->cross_w = calloc((size_t)spec->interaction.num_cross + 1, sizeof(struct layer));
    bool fine = decode_mlp(loaded, &spec->bottom, loaded->bottom) && decode_mlp(loaded, &spec->top, loaded->top) &&
                loaded->cross_v != NULL && loaded->cross_w != NULL;
    for (uint32_t k = 0; fine && k < spec->interaction.num_cross; k++)
        fine = decode_layer(loaded, &spec->interaction.cross[k].v, &loaded->cross_v[k]) &&
               decode_layer(loaded, &spec->interaction.cross[k].w, &loaded->cross_w[k]);
    if (!fine) {
        unload(loaded);
        return host->error_set(error, RK_NO_MEMORY, "out of memory for the layers of model '%s'", spec->name);
    }
    uint32_t pooled = spec->num_context_dense + spec->num_candidate_dense;
    if (spec->bottom.num_layers > 0)
        pooled += spec->bottom.layers[spec->bottom.num_layers - 1].weight.rows;
    for (uint32_t f = 0; f < spec->num_features; f++)
        pooled += spec->tables[spec->features[f].table].embedding_dim;
    widen(loaded, pooled);
    if (options != NULL && options->progress != NULL)
        options->progress(options->progress_context, "decoding layers", spec->weights_bytes, spec->weights_bytes);
    *result = loaded;
    return RK_OK;
}

/* ---- a runner ---- */

static void destroy(struct rk_runner *runner)
{
    if (runner == NULL)
        return;
    free(runner->x0);
    free(runner->row);
    free(runner->of_context);
    free(runner);
}

static enum rk_status create(struct rk_loaded *loaded, uint32_t max_batch, struct rk_runner **result,
                             struct rk_error *error)
{
    const size_t widest = loaded->widest;
    if (max_batch == 0)
        return loaded->host->error_set(error, RK_INVALID, "a runner's batch limit is 0; it must be at least 1");
    struct rk_runner *runner = calloc(1, sizeof *runner);
    if (runner != NULL) {
        runner->x0 = calloc(5 * widest, sizeof(double));
        runner->row = calloc(widest, sizeof(float));
        runner->of_context = calloc(widest, sizeof(bool));
    }
    if (runner == NULL || runner->x0 == NULL || runner->row == NULL || runner->of_context == NULL) {
        destroy(runner);
        return loaded->host->error_set(error, RK_NO_MEMORY, "out of memory for a runner");
    }
    runner->loaded = loaded;
    runner->max_batch = max_batch;
    runner->x = runner->x0 + widest;
    runner->rounded = runner->x + widest;
    runner->turns[0] = runner->rounded + widest;
    runner->turns[1] = runner->turns[0] + widest;
    *result = runner;
    return RK_OK;
}

/* ---- formulas ---- */

static double to_bf16(double value)
{
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u; /* to nearest, ties to even */
    memcpy(&narrow, &bits, sizeof narrow);
    return (double)narrow;
}

/* A layer's inputs as its format has them, those of one side: where of_context[i] is `side`. */
static void round_side(const struct layer *layer, const double *x, const bool *of_context, bool side, double *rounded)
{
    const struct rk_linear_spec *spec = layer->spec;
    float low = spec->calibrated ? spec->low : 0.0f, high = spec->calibrated ? spec->high : 0.0f;
    for (uint32_t i = 0; i < spec->weight.columns; i++) {
        if (of_context[i] != side)
            continue;
        rounded[i] = x[i] * (layer->gain != NULL ? (double)layer->gain[i] : 1.0);
        if (spec->format == RK_DENSE_BF16)
            rounded[i] = to_bf16(rounded[i]);
        if (!spec->calibrated) {
            low = fminf(low, (float)rounded[i]);
            high = fmaxf(high, (float)rounded[i]);
        }
    }
    const float scale = high / 255.0f - low / 255.0f, zero = scale > 0.0f ? rintf(-low / scale) : 0.0f;
    for (uint32_t i = 0; spec->format == RK_DENSE_INT8 && i < spec->weight.columns; i++) {
        if (of_context[i] != side)
            continue;
        const float byte = scale > 0.0f ? fminf(255.0f, fmaxf(0.0f, rintf((float)rounded[i] / scale) + zero)) : 0.0f;
        rounded[i] = isnan(rounded[i]) ? rounded[i] : (double)scale * (double)(byte - zero);
    }
}

/* y = W x + b; y may be x. What y depends on is both sides' from then on. */
static void multiply(struct rk_runner *runner, const struct layer *layer, const double *x, double *y)
{
    const uint32_t in = layer->spec->weight.columns, out = layer->spec->weight.rows;
    for (int side = 0; side < 2; side++)
        round_side(layer, x, runner->of_context, side, runner->rounded);
    memset(runner->of_context, false, runner->loaded->widest);
    for (uint32_t o = 0; o < out; o++) {
        double sum = 0.0;
        for (uint32_t i = 0; i < in; i++)
            sum += (double)layer->weights[(size_t)o * in + i] * runner->rounded[i];
        y[o] = sum + (layer->bias != NULL ? (double)layer->bias[o] : 0.0);
    }
}

/* x[] through the layers, in place. */
static void run_mlp(struct rk_runner *runner, const struct layer *layers, uint32_t num_layers, bool relu_last,
                    double *x)
{
    for (uint32_t l = 0; l < num_layers; l++) {
        multiply(runner, &layers[l], x, x);
        for (uint32_t o = 0; (relu_last || l + 1 < num_layers) && o < layers[l].spec->weight.rows; o++)
            x[o] = x[o] < 0.0 ? 0.0 : x[o];
    }
}

static void pool(struct rk_runner *runner, const struct rk_request *request, uint32_t f, uint32_t candidate, double *to)
{
    const struct rk_loaded *loaded = runner->loaded;
    const struct rk_feature_spec *feature = &loaded->spec->features[f];
    const struct rk_table_spec *table = &loaded->spec->tables[feature->table];
    const struct rk_bags *bags = &request->bags[f];
    const uint32_t bag = feature->side == RK_SIDE_CONTEXT ? 0 : candidate;
    const uint32_t first = bags->offsets[bag], end = bags->offsets[bag + 1];
    memset(to, 0, table->embedding_dim * sizeof *to);
    for (uint32_t i = first; i < end; i++) {
        const double weight = bags->weights != NULL ? (double)bags->weights[i] : 1.0;
        loaded->host->decode_row(table->format,
                                 loaded->host->model_row(loaded->model, feature->table, (uint64_t)bags->ids[i]),
                                 table->embedding_dim, runner->row);
        for (uint32_t d = 0; d < table->embedding_dim; d++)
            to[d] += weight * (double)runner->row[d];
    }
    for (uint32_t d = 0; feature->pooling == RK_POOLING_MEAN && end > first && d < table->embedding_dim; d++)
        to[d] /= end - first;
}

/* Every feature's vector, one behind the other; returns how many numbers they are. */
static uint32_t pool_features(struct rk_runner *runner, const struct rk_request *request, uint32_t candidate,
                              double *to)
{
    const struct rk_model_spec *spec = runner->loaded->spec;
    uint32_t width = 0;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        pool(runner, request, f, candidate, to + width);
        width += spec->tables[spec->features[f].table].embedding_dim;
    }
    return width;
}

/* x0 = the bottom MLP's output; returns how many numbers that is. */
static uint32_t run_bottom(struct rk_runner *runner, const struct rk_request *request, uint32_t candidate)
{
    const struct rk_model_spec *spec = runner->loaded->spec;
    double *x = runner->turns[0];
    uint32_t width = 0;
    for (uint32_t i = 0; i < spec->num_context_dense; i++)
        x[width++] = (double)request->context_dense[i];
    for (uint32_t i = 0; i < spec->num_candidate_dense; i++)
        x[width++] = (double)request->candidate_dense[(size_t)candidate * spec->num_candidate_dense + i];
    memset(runner->of_context, true, spec->num_context_dense);
    run_mlp(runner, runner->loaded->bottom, spec->bottom.num_layers, true, x);
    if (spec->bottom.num_layers > 0)
        width = spec->bottom.layers[spec->bottom.num_layers - 1].weight.rows;
    memcpy(runner->x0, x, width * sizeof *x);
    return width;
}

static void round_vector(enum rk_dense_format format, double *vector, uint32_t dim)
{
    float most = 0.0f;
    for (uint32_t d = 0; d < dim; d++)
        most = fmaxf(most, fabsf((float)vector[d]));
    const float scale = most / 127.0f;
    for (uint32_t d = 0; d < dim; d++)
        if (format == RK_DENSE_BF16)
            vector[d] = to_bf16(vector[d]);
        else if (format == RK_DENSE_INT8 && scale > 0.0f)
            vector[d] = (double)scale * (double)rintf((float)vector[d] / scale);
}

static bool is_of_context(const struct rk_model_spec *spec, bool has_x, uint32_t vector)
{
    return has_x && vector == 0 ? spec->num_candidate_dense == 0
                                : spec->features[vector - has_x].side == RK_SIDE_CONTEXT;
}

/* Of x0. */
static void mark_vectors(struct rk_runner *runner, uint32_t x_width)
{
    const struct rk_model_spec *spec = runner->loaded->spec;
    bool *mark = runner->of_context;
    for (uint32_t v = 0; v < spec->num_features + (x_width > 0); v++) {
        const uint32_t dim =
            x_width > 0 && v == 0 ? x_width : spec->tables[spec->features[v - (x_width > 0)].table].embedding_dim;
        memset(mark, is_of_context(spec, x_width > 0, v), dim);
        mark += dim;
    }
}

/* All vectors of x0 have the same dim. */
static void run_dot(struct rk_runner *runner, uint32_t x_width, uint32_t width)
{
    const struct rk_model_spec *spec = runner->loaded->spec;
    const uint32_t num_vectors = spec->num_features + (x_width > 0), dim = width / num_vectors;
    double *z = runner->x + x_width;
    memcpy(runner->x, runner->x0, x_width * sizeof *z);
    for (uint32_t v = 0; v < num_vectors; v++)
        round_vector(spec->interaction.format, runner->x0 + (size_t)v * dim, dim);
    for (uint32_t i = 0; i < num_vectors; i++)
        for (uint32_t j = 0; j < num_vectors; j++) {
            const bool wanted = i == j                                     ? spec->interaction.self
                                : spec->interaction.pairs == RK_PAIRS_TRIL ? j < i
                                                                           : j > i;
            if (!wanted)
                continue;
            runner->of_context[z - runner->x] =
                is_of_context(spec, x_width > 0, i) && is_of_context(spec, x_width > 0, j);
            *z = 0.0;
            for (uint32_t d = 0; d < dim; d++)
                *z += runner->x0[i * dim + d] * runner->x0[j * dim + d];
            z++;
        }
}

static void run_cross(struct rk_runner *runner, uint32_t width)
{
    memcpy(runner->x, runner->x0, width * sizeof *runner->x);
    for (uint32_t k = 0; k < runner->loaded->spec->interaction.num_cross; k++) {
        multiply(runner, &runner->loaded->cross_v[k], runner->x, runner->turns[0]);
        multiply(runner, &runner->loaded->cross_w[k], runner->turns[0], runner->turns[1]);
        for (uint32_t i = 0; i < width; i++)
            runner->x[i] += runner->x0[i] * runner->turns[1][i];
    }
}

/* ---- a run ---- */

/* What was done since the last call belongs to *part, a member of runner->cost; if anybody asks. */
static void account(struct rk_runner *runner, uint64_t *part)
{
    struct timespec now;
    if (!runner->asked)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    *part += now_ns - runner->mark_ns;
    runner->mark_ns = now_ns;
}

static void begin_accounts(struct rk_runner *runner, const struct rk_run_cost *cost)
{
    runner->asked = cost != NULL;
    account(runner, &runner->cost.rest_ns);
    runner->cost = (struct rk_run_cost){0};
}

static void score(struct rk_runner *runner, const struct rk_request *request, uint32_t candidate, float *logits)
{
    const struct rk_model_spec *spec = runner->loaded->spec;
    const uint32_t x_width = run_bottom(runner, request, candidate);
    account(runner, &runner->cost.towers_ns);
    const uint32_t width = x_width + pool_features(runner, request, candidate, runner->x0 + x_width);
    account(runner, &runner->cost.lookup_ns);
    mark_vectors(runner, x_width);
    if (spec->interaction.op == RK_INTERACTION_DOT)
        run_dot(runner, x_width, width);
    else
        run_cross(runner, width); /* cat is a cross network without layers */
    account(runner, &runner->cost.interaction_ns);
    run_mlp(runner, runner->loaded->top, spec->top.num_layers, false, runner->x);
    for (uint32_t h = 0; h < spec->num_heads; h++)
        logits[h] = (float)runner->x[h];
    account(runner, &runner->cost.towers_ns);
}

static enum rk_status run(struct rk_runner *runner, const struct rk_slice *slices, uint32_t num_slices,
                          struct rk_run_cost *cost, struct rk_error *error)
{
    const struct rk_loaded *loaded = runner->loaded;
    uint64_t num_candidates = 0;
    begin_accounts(runner, cost);
    for (uint32_t s = 0; s < num_slices; s++)
        num_candidates += slices[s].count;
    if (num_candidates > runner->max_batch)
        return loaded->host->error_set(error, RK_INTERNAL, "a batch holds %llu candidates, the runner takes %u",
                                       (unsigned long long)num_candidates, runner->max_batch);
    for (uint32_t s = 0; s < num_slices; s++)
        for (uint32_t c = 0; c < slices[s].count; c++)
            score(runner, slices[s].request, slices[s].first + c,
                  slices[s].logits + (size_t)c * loaded->spec->num_heads);
    account(runner, &runner->cost.rest_ns);
    if (cost != NULL)
        *cost = runner->cost;
    if (loaded->host->model_damaged(loaded->model))
        return loaded->host->error_set(error, RK_CORRUPT, "files of model '%s' were damaged", loaded->spec->name);
    return RK_OK;
}

__attribute__((visibility("default"))) const struct rk_backend rankd_backend = {
    RK_BACKEND_COMPILED,   .name = "plain",      .open = open_device,
    .close = close_device, .describe = describe, .capabilities = capabilities,
    .load = load,          .unload = unload,     .create = create,
    .destroy = destroy,    .run = run,
};
