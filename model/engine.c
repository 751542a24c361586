/* The engine: slices of requests in, logits out.
 *
 * The candidates of all slices, one after the other, go through in tiles of a fixed number of rows, so that scratch
 * memory is bounded and activations stay in cache. A tile is cut into segments, one per request that takes part. Per
 * tile:
 *
 *   1. context features, once per segment      -> context   [segments][context_width]
 *   2. candidate features                      -> candidate [rows][candidate_width]
 *   3. bottom MLP, once per segment when no candidate brings dense values -> its column in one of the two
 *   4. interaction                             -> top_in    [rows][top_in]
 *   5. top MLP                                 -> logits    [rows][heads], then out to the slices
 *
 * All of it lies in one block of memory taken by rk_engine_create(). An engine belongs to one thread at a time; the
 * model beneath is shared and read-only. */
#include "model/engine.h"

#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/interaction.h"
#include "model/tower.h"

/* Rows of a tile. sgemm copies a layer's weights into its own order at every call, which many rows make up for (a DLRM
 * with layers of 1024 x 1024 reaches 83% of sgemm's peak with 128 rows to a tile, 93% with 512); where rows are so wide
 * that scratch would pass the budget, there are fewer. */
#define TILE_ROWS     512u
#define SCRATCH_BYTES ((size_t)64 << 20)
#define ALIGNMENT     64u

struct rk_engine {
    const struct rk_model *model;
    const struct rk_model_spec *spec;
    const struct rk_kernels *kernels;
    struct rk_model_widths widths;
    struct rk_interaction *interaction;
    struct rk_tower bottom, top;
    uint32_t max_batch, tile_rows;
    uint32_t context_width, candidate_width;
    struct rk_engine_counters counters;
    struct rk_observer observer;

    unsigned char *memory; /* everything below */
    float *dense, *context, *candidate, *top_in, *scratch, *logits;
    struct rk_segment *segments;
    struct rk_slice *parts; /* parts[s]: the candidates of segment s and where their logits go */
};

static pthread_once_t blas_once = PTHREAD_ONCE_INIT;

static void keep_blas_single(void)
{
    openblas_set_num_threads(1); /* the workers are ours */
}

/* ---- memory ---- */

static size_t take(size_t *end, size_t count, size_t element_bytes)
{
    size_t begin = *end;
    *end = (begin + count * element_bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    return begin;
}

static size_t scratch_floats(const struct rk_engine *engine)
{
    size_t most = rk_interaction_scratch_floats(engine->interaction);
    const size_t bottom = rk_tower_scratch_floats(&engine->spec->bottom),
                 top = rk_tower_scratch_floats(&engine->spec->top);
    most = most > bottom ? most : bottom;
    return most > top ? most : top;
}

/* Widths are at most RK_MAX_WIDTH, so a row has less than 2^24 floats and no size here comes near overflow. */
static enum rk_status allocate(struct rk_engine *engine, struct rk_error *error)
{
    const struct rk_model_widths *w = &engine->widths;
    const size_t scratch = scratch_floats(engine);
    const size_t row_floats =
        w->dense + engine->context_width + engine->candidate_width + w->top_in + scratch + engine->spec->num_heads;
    size_t rows = SCRATCH_BYTES / (row_floats * sizeof(float));
    rows = rows > TILE_ROWS ? TILE_ROWS : rows > 0 ? rows : 1;
    engine->tile_rows = rows < engine->max_batch ? (uint32_t)rows : engine->max_batch;
    rows = engine->tile_rows;

    size_t end = 0;
    const size_t dense = take(&end, rows * w->dense, sizeof(float));
    const size_t context = take(&end, rows * engine->context_width, sizeof(float));
    const size_t candidate = take(&end, rows * engine->candidate_width, sizeof(float));
    const size_t top_in = take(&end, rows * w->top_in, sizeof(float));
    const size_t scratch_at = take(&end, rows * scratch, sizeof(float));
    const size_t logits = take(&end, rows * engine->spec->num_heads, sizeof(float));
    const size_t segments = take(&end, rows, sizeof *engine->segments);
    const size_t parts = take(&end, rows, sizeof *engine->parts);
    engine->memory = aligned_alloc(ALIGNMENT, end);
    if (engine->memory == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory: an engine for model '%s' needs %zu bytes of scratch",
                            engine->spec->name, end);
    memset(engine->memory, 0, end); /* the pages are there before the first request */
    engine->dense = (float *)(engine->memory + dense);
    engine->context = (float *)(engine->memory + context);
    engine->candidate = (float *)(engine->memory + candidate);
    engine->top_in = (float *)(engine->memory + top_in);
    engine->scratch = (float *)(engine->memory + scratch_at);
    engine->logits = (float *)(engine->memory + logits);
    engine->segments = (struct rk_segment *)(engine->memory + segments);
    engine->parts = (struct rk_slice *)(engine->memory + parts);
    return RK_OK;
}

enum rk_status rk_engine_create(const struct rk_model *model, uint32_t max_batch, struct rk_engine **engine,
                                struct rk_error *error)
{
    if (max_batch == 0)
        return rk_error_set(error, RK_INVALID, "an engine's batch limit is 0; it must be at least 1");
    pthread_once(&blas_once, keep_blas_single);
    struct rk_engine *created = calloc(1, sizeof *created);
    if (created == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory while creating an engine");
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    created->model = model;
    created->spec = spec;
    created->kernels = rk_kernels_get();
    created->widths = rk_model_spec_widths(spec);
    created->bottom = (struct rk_tower){&spec->bottom, rk_model_weights(model), RK_STAGE_BOTTOM, true};
    created->top = (struct rk_tower){&spec->top, rk_model_weights(model), RK_STAGE_TOP, false};
    created->max_batch = max_batch;
    enum rk_status status =
        rk_interaction_create(spec, rk_model_weights(model), created->kernels, &created->interaction, error);
    if (status == RK_OK) {
        created->context_width = rk_interaction_context_width(created->interaction);
        created->candidate_width = rk_interaction_candidate_width(created->interaction);
        status = allocate(created, error);
    }
    if (status != RK_OK) {
        rk_engine_destroy(created);
        return status;
    }
    *engine = created;
    return RK_OK;
}

void rk_engine_destroy(struct rk_engine *engine)
{
    if (engine == NULL)
        return;
    rk_interaction_destroy(engine->interaction);
    free(engine->memory);
    free(engine);
}

/* ---- one tile ---- */

/* Bags of rows [first, first + count) of one side. */
static void pool_feature(struct rk_engine *engine, uint32_t feature, const struct rk_bags *bags, uint32_t first,
                         uint32_t count, float *out, size_t out_stride)
{
    const struct rk_feature_spec *spec = &engine->spec->features[feature];
    const struct rk_bag_list list = {
        .ids = bags->ids,
        .weights = bags->weights,
        .offsets = bags->offsets + first,
        .num_bags = count,
        .mean = spec->pooling == RK_POOLING_MEAN,
    };
    rk_table_pool(rk_model_table(engine->model, spec->table), engine->kernels, &list, out, out_stride);
    engine->counters.lookups += count;
    engine->counters.rows += list.offsets[count] - list.offsets[0];
}

/* first_segment: segments before it have their context already. */
static void pool_features(struct rk_engine *engine, const struct rk_tile *tile, uint32_t first_segment)
{
    for (uint32_t f = 0; f < engine->spec->num_features; f++) {
        const struct rk_vector *vector = rk_interaction_feature(engine->interaction, f);
        const bool context = vector->side == RK_SIDE_CONTEXT;
        for (uint32_t s = context ? first_segment : 0; s < tile->num_segments; s++) {
            const struct rk_slice *part = &engine->parts[s];
            if (context)
                pool_feature(engine, f, &part->request->bags[f], 0, 1,
                             tile->context + (size_t)s * engine->context_width + vector->column, engine->context_width);
            else
                pool_feature(engine, f, &part->request->bags[f], part->first, part->count,
                             tile->candidate + (size_t)tile->segments[s].first_row * engine->candidate_width +
                                 vector->column,
                             engine->candidate_width);
        }
    }
}

/* The bottom MLP's input: the context's dense values, then the candidate's. */
static void gather_dense(const struct rk_engine *engine, const struct rk_slice *part, uint32_t rows, float *to)
{
    const uint32_t context = engine->spec->num_context_dense, candidate = engine->spec->num_candidate_dense;
    for (uint32_t r = 0; r < rows; r++) {
        if (context > 0)
            memcpy(to, part->request->context_dense, context * sizeof *to);
        to += context;
        if (candidate > 0)
            memcpy(to, part->request->candidate_dense + ((size_t)part->first + r) * candidate, candidate * sizeof *to);
        to += candidate;
    }
}

static void run_bottom(struct rk_engine *engine, const struct rk_tile *tile, uint32_t first_segment)
{
    const struct rk_vector *x = rk_interaction_x(engine->interaction);
    if (x == NULL)
        return;
    const uint32_t width = engine->widths.dense;
    if (x->side == RK_SIDE_CONTEXT) {
        const uint32_t count = tile->num_segments - first_segment;
        for (uint32_t s = 0; s < count; s++)
            gather_dense(engine, &engine->parts[first_segment + s], 1, engine->dense + (size_t)s * width);
        if (count > 0)
            rk_tower_run(&engine->bottom, engine->dense, width, width, count, &engine->observer, engine->scratch,
                         tile->context + (size_t)first_segment * engine->context_width + x->column,
                         engine->context_width);
    } else {
        for (uint32_t s = 0; s < tile->num_segments; s++)
            gather_dense(engine, &engine->parts[s], tile->segments[s].num_rows,
                         engine->dense + (size_t)tile->segments[s].first_row * width);
        rk_tower_run(&engine->bottom, engine->dense, width, width, tile->num_rows, &engine->observer, engine->scratch,
                     tile->candidate + x->column, engine->candidate_width);
    }
}

static void run_tile(struct rk_engine *engine, const struct rk_tile *tile, uint32_t first_segment)
{
    const uint32_t num_heads = engine->spec->num_heads;
    pool_features(engine, tile, first_segment);
    run_bottom(engine, tile, first_segment);
    rk_interaction_run(engine->interaction, tile, &engine->observer, engine->scratch, engine->top_in);
    rk_tower_run(&engine->top, engine->top_in, engine->widths.top_in, engine->widths.top_in, tile->num_rows,
                 &engine->observer, engine->scratch, engine->logits, num_heads);
    for (uint32_t s = 0; s < tile->num_segments; s++)
        memcpy(engine->parts[s].logits, engine->logits + (size_t)tile->segments[s].first_row * num_heads,
               (size_t)engine->parts[s].count * num_heads * sizeof(float));
}

/* ---- batches ---- */

/* Where the walk over the slices stands. */
struct cursor {
    const struct rk_slice *slice, *end;
    uint32_t done; /* candidates of *slice */
};

static void skip_finished(struct cursor *cursor)
{
    while (cursor->slice < cursor->end && cursor->done == cursor->slice->count) {
        cursor->slice++;
        cursor->done = 0;
    }
}

static struct rk_tile next_tile(struct rk_engine *engine, struct cursor *cursor)
{
    struct rk_tile tile = {.segments = engine->segments, .context = engine->context, .candidate = engine->candidate};
    while (cursor->slice < cursor->end && tile.num_rows < engine->tile_rows) {
        const struct rk_slice *slice = cursor->slice;
        const uint32_t left = slice->count - cursor->done, room = engine->tile_rows - tile.num_rows;
        const uint32_t count = left < room ? left : room;
        engine->segments[tile.num_segments] = (struct rk_segment){tile.num_rows, count};
        engine->parts[tile.num_segments] = (struct rk_slice){
            .request = slice->request,
            .first = slice->first + cursor->done,
            .count = count,
            .logits = slice->logits + (size_t)cursor->done * engine->spec->num_heads,
        };
        tile.num_segments++;
        tile.num_rows += count;
        cursor->done += count;
        skip_finished(cursor);
    }
    return tile;
}

enum rk_status rk_engine_run(struct rk_engine *engine, const struct rk_slice *slices, uint32_t num_slices)
{
    uint64_t num_candidates = 0;
    for (uint32_t s = 0; s < num_slices; s++) {
        assert((uint64_t)slices[s].first + slices[s].count <= slices[s].request->num_candidates);
        num_candidates += slices[s].count;
    }
    if (num_candidates > engine->max_batch)
        return RK_INTERNAL;

    struct cursor cursor = {.slice = slices, .end = slices + num_slices};
    skip_finished(&cursor);
    uint32_t last_segment = 0;
    while (cursor.slice < cursor.end) {
        /* A request that goes on from the tile before brings its context along. */
        const uint32_t carried = cursor.done > 0;
        if (carried && last_segment > 0)
            memcpy(engine->context, engine->context + (size_t)last_segment * engine->context_width,
                   engine->context_width * sizeof(float));
        const struct rk_tile tile = next_tile(engine, &cursor);
        run_tile(engine, &tile, carried);
        last_segment = tile.num_segments - 1;
    }
    engine->counters.batches++;
    engine->counters.candidates += num_candidates;
    return rk_model_damaged(engine->model) ? RK_CORRUPT : RK_OK;
}

enum rk_status rk_engine_score(struct rk_engine *engine, const struct rk_request *request, float *logits)
{
    enum rk_status status = RK_OK;
    for (uint32_t first = 0, count; status == RK_OK && first < request->num_candidates; first += count) {
        count =
            request->num_candidates - first < engine->max_batch ? request->num_candidates - first : engine->max_batch;
        const struct rk_slice slice = {.request = request,
                                       .first = first,
                                       .count = count,
                                       .logits = logits + (size_t)first * engine->spec->num_heads};
        status = rk_engine_run(engine, &slice, 1);
    }
    return status;
}

enum rk_status rk_engine_observe(struct rk_engine *engine, rk_observe_fn *see, void *context)
{
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(engine->spec, layers);
    for (size_t l = 0; l < num_layers; l++)
        if (layers[l].layer->format != RK_DENSE_F32)
            return RK_UNSUPPORTED;
    engine->observer = (struct rk_observer){see, context};
    return RK_OK;
}

const struct rk_engine_counters *rk_engine_counters_of(const struct rk_engine *engine)
{
    return &engine->counters;
}

float rk_sigmoid(float logit)
{
    /* exp() only of what is not positive */
    const float e = expf(-fabsf(logit));
    return logit >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

static struct {
    pthread_once_t once;
    char text[2048];
} description = {.once = PTHREAD_ONCE_INIT};

static void describe(void)
{
    snprintf(description.text, sizeof description.text, "cpu: openblas %s, %s", openblas_get_corename(),
             rk_kernels_describe());
}

const char *rk_engine_describe(void)
{
    pthread_once(&description.once, describe);
    return description.text;
}
