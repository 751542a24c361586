/* The engine: slices of requests in, logits out.
 *
 * The candidates of all slices, one after the other, go through in tiles of a fixed number of rows, so that scratch
 * memory is bounded and activations stay in cache. A tile is cut into segments, one per request that takes part. What
 * depends on the context alone is computed once per request, and carried along by a request that goes on in the next
 * tile. Per tile:
 *
 *   1. context features, once per request      -> context   [segments][context_stride]
 *   2. candidate features                      -> candidate [rows][candidate_stride]
 *   3. bottom MLP, once per request when no candidate brings dense values -> its column in one of the two
 *   4. interaction                             -> top_in    [rows], in the format of the top MLP's first layer
 *   5. top MLP                                 -> logits    [rows][heads], then out to the slices
 *
 * Where a layer reads both sides, its context's part runs once per request, and the candidates' rows go on from what it
 * gave (model/context_part.h).
 *
 * Each number is one fixed chain of operations, wherever its row lies in a tile and whatever else is in it.
 *
 * All of it lies in one block of memory taken by rk_engine_create(). An engine belongs to one thread at a time; the
 * model beneath is shared and read-only. */
#include "model/engine.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/context_part.h"
#include "model/interaction.h"
#include "model/scratch.h"
#include "model/tower.h"

/* Rows of a tile: enough to read the weights of a layer seldom, few enough for activations to stay in the second-level
 * cache. Where rows are so wide that scratch would pass the budget, there are fewer. */
#define TILE_ROWS     128u
#define SCRATCH_BYTES ((size_t)64 << 20)

/* Rows asked for before they are summed, and from how many on a list looks after itself. */
enum { AHEAD_ROWS = 64, LONG_ROWS = 16 };

struct rk_engine {
    const struct rk_model *model;
    const struct rk_model_spec *spec;
    const struct rk_kernels *kernels;
    struct rk_model_widths widths;
    struct rk_interaction *interaction;
    struct rk_tower bottom, top;
    struct rk_context_part bottom_context, top_context;
    uint32_t max_batch, tile_rows;
    bool prefetches; /* not all tables stay in the cache by themselves */
    uint32_t context_stride, candidate_stride;
    struct rk_engine_counters counters;
    struct rk_observer observer;
    struct rk_run_cost *cost; /* of the run that is going on, when somebody asked */
    uint64_t marked_ns;       /* until when it is accounted for */

    unsigned char *memory; /* everything below, and the scratch of towers and interaction */
    float *dense, *context, *candidate, *logits;
    struct rk_matrix bottom_in, top_in;
    struct rk_segment *segments;
    uint32_t *segment_of;   /* [rows] */
    struct rk_slice *parts; /* parts[s]: the candidates of segment s and where their logits go */
};

/* ---- memory ---- */

/* Bytes of everything for tiles of `rows`, and the places in `base` when there is one. */
static size_t cut_memory(struct rk_engine *engine, uint32_t rows, unsigned char *base)
{
    struct rk_scratch scratch = {.base = base};
    engine->dense = rk_scratch_cut(&scratch, (size_t)rows * engine->widths.dense, sizeof(float));
    engine->context = rk_scratch_cut(&scratch, (size_t)rows * engine->context_stride, sizeof(float));
    engine->candidate = rk_scratch_cut(&scratch, (size_t)rows * engine->candidate_stride, sizeof(float));
    engine->top_in = rk_scratch_cut_matrix(&scratch, rows, rk_linear_row_bytes(engine->top.layers[0]));
    engine->logits = rk_scratch_cut(&scratch, (size_t)rows * engine->spec->num_heads, sizeof(float));
    engine->segments = rk_scratch_cut(&scratch, rows, sizeof *engine->segments);
    engine->segment_of = rk_scratch_cut(&scratch, rows, sizeof *engine->segment_of);
    engine->parts = rk_scratch_cut(&scratch, rows, sizeof *engine->parts);
    /* The interaction relies on zeros in its padding; the towers on nothing, so both may have the same memory. */
    rk_interaction_cut(engine->interaction, rows, &scratch);
    rk_context_part_cut(&engine->bottom_context, rows, &scratch);
    rk_context_part_cut(&engine->top_context, rows, &scratch);
    struct rk_scratch bottom = scratch, top = scratch;
    if (engine->bottom.num_layers > 0) {
        engine->bottom_in = rk_scratch_cut_matrix(&bottom, rows, rk_linear_row_bytes(engine->bottom.layers[0]));
        rk_tower_cut(&engine->bottom, rows, &bottom);
    }
    rk_tower_cut(&engine->top, rows, &top);
    return bottom.end > top.end ? bottom.end : top.end;
}

static enum rk_status allocate(struct rk_engine *engine, struct rk_error *error)
{
    const size_t most = SCRATCH_BYTES / cut_memory(engine, 1, NULL);
    const uint32_t rows = most > TILE_ROWS ? TILE_ROWS : most > 0 ? (uint32_t)most : 1;
    engine->tile_rows = rows < engine->max_batch ? rows : engine->max_batch;
    const size_t bytes = cut_memory(engine, engine->tile_rows, NULL);
    engine->memory = aligned_alloc(RK_SCRATCH_ALIGNMENT, bytes);
    if (engine->memory == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory: an engine for model '%s' needs %zu bytes of scratch",
                            engine->spec->name, bytes);
    memset(engine->memory, 0, bytes); /* padding is zero, and the pages are there before the first request */
    cut_memory(engine, engine->tile_rows, engine->memory);
    return RK_OK;
}

/* columns: what the spec's first layer reads. */
static struct rk_tower tower_of(const struct rk_towers *towers, enum rk_stage stage, uint32_t columns)
{
    const struct rk_linear *part = towers->context_part[stage];
    const uint32_t before = part != NULL ? rk_linear_columns(part) : 0;
    return (struct rk_tower){.layers = towers->layers[stage],
                             .num_layers = towers->num_layers[stage],
                             .stage = stage,
                             .relu_last = stage == RK_STAGE_BOTTOM,
                             .first_column = before,
                             .columns = columns - before};
}

enum rk_status rk_engine_create(const struct rk_model *model, uint32_t max_batch, struct rk_engine **engine,
                                struct rk_error *error)
{
    if (max_batch == 0)
        return rk_error_set(error, RK_INVALID, "an engine's batch limit is 0; it must be at least 1");
    struct rk_engine *created = calloc(1, sizeof *created);
    if (created == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory while creating an engine");
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    const struct rk_towers *towers = rk_model_towers(model);
    created->model = model;
    created->spec = spec;
    created->kernels = rk_kernels_get();
    created->widths = rk_model_spec_widths(spec);
    created->bottom = tower_of(towers, RK_STAGE_BOTTOM, created->widths.dense);
    created->top = tower_of(towers, RK_STAGE_TOP, created->widths.top_in);
    created->bottom_context =
        (struct rk_context_part){.linear = towers->context_part[RK_STAGE_BOTTOM], .stage = RK_STAGE_BOTTOM};
    created->top_context =
        (struct rk_context_part){.linear = towers->context_part[RK_STAGE_TOP], .stage = RK_STAGE_TOP};
    created->max_batch = max_batch;
    for (uint32_t t = 0; t < spec->num_tables; t++)
        created->prefetches |= rk_table_prefetches(rk_model_table(model, t));
    enum rk_status status = rk_interaction_create(spec, towers, &created->interaction, error);
    if (status == RK_OK) {
        created->context_stride = rk_interaction_context_stride(created->interaction);
        created->candidate_stride = rk_interaction_candidate_stride(created->interaction);
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

/* ---- what a run costs ---- */

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void begin_cost(struct rk_engine *engine, struct rk_run_cost *cost)
{
    engine->cost = cost;
    if (cost == NULL)
        return;
    *cost = (struct rk_run_cost){0};
    engine->marked_ns = clock_ns();
}

/* What was done since the last mark belongs to the member of struct rk_run_cost at `offset`. */
static void mark_cost(struct rk_engine *engine, size_t offset)
{
    if (engine->cost == NULL)
        return;
    const uint64_t now_ns = clock_ns();
    *(uint64_t *)((char *)engine->cost + offset) += now_ns - engine->marked_ns;
    engine->marked_ns = now_ns;
}
#define MARK_COST(engine, part) mark_cost(engine, offsetof(struct rk_run_cost, part))

/* ---- lookups ---- */

/* A tile's bag lists: of each feature in turn, one for every segment. */
struct lookups {
    const struct rk_engine *engine;
    const struct rk_tile *tile;
    uint32_t feature, segment; /* of the next one */
};

static struct lookups lookups_begin(const struct rk_engine *engine, const struct rk_tile *tile)
{
    struct lookups lookups = {.engine = engine, .tile = tile};
    if (engine->spec->num_features > 0 && engine->spec->features[0].side == RK_SIDE_CONTEXT)
        lookups.segment = tile->first_new;
    return lookups;
}

struct lookup {
    struct rk_bag_list bags;
    const struct rk_table *table;
    float *out;
    size_t out_stride;
};

/* False at the end. Bags of the context are looked up once per request. */
static bool lookups_next(struct lookups *lookups, struct lookup *lookup)
{
    const struct rk_engine *engine = lookups->engine;
    const struct rk_tile *tile = lookups->tile;
    const struct rk_feature_spec *features = engine->spec->features;
    while (lookups->feature < engine->spec->num_features && lookups->segment == tile->num_segments)
        if (++lookups->feature < engine->spec->num_features)
            lookups->segment = features[lookups->feature].side == RK_SIDE_CONTEXT ? tile->first_new : 0;
    if (lookups->feature == engine->spec->num_features)
        return false;
    const uint32_t f = lookups->feature, s = lookups->segment++;
    const struct rk_vector *vector = rk_interaction_feature(engine->interaction, f);
    const struct rk_slice *part = &engine->parts[s];
    const struct rk_bags *bags = &part->request->bags[f];
    const bool context = features[f].side == RK_SIDE_CONTEXT;
    lookup->bags = (struct rk_bag_list){.ids = bags->ids,
                                        .weights = bags->weights,
                                        .offsets = bags->offsets + (context ? 0 : part->first),
                                        .num_bags = context ? 1 : part->count,
                                        .mean = features[f].pooling == RK_POOLING_MEAN};
    lookup->table = rk_model_table(engine->model, features[f].table);
    lookup->out_stride = context ? engine->context_stride : engine->candidate_stride;
    lookup->out = (context ? tile->context + (size_t)s * engine->context_stride
                           : tile->candidate + (size_t)tile->segments[s].first_row * engine->candidate_stride) +
                  vector->column;
    return true;
}

static size_t rows_of(const struct rk_bag_list *bags)
{
    return bags->offsets[bags->num_bags] - bags->offsets[0];
}

/* A long list's rows are on their way while others of it are summed. Short ones, a context's or those of a small batch,
 * would be waited for one after the other: so the next ones' are asked for before. */
static void pool_features(struct rk_engine *engine, const struct rk_tile *tile)
{
    struct lookups at = lookups_begin(engine, tile), next = at;
    struct lookup lookup, coming;
    size_t ahead = 0; /* rows from `at` to `next` */
    bool more = engine->prefetches;
    while (lookups_next(&at, &lookup)) {
        for (size_t rows; ahead < AHEAD_ROWS && more && (more = lookups_next(&next, &coming)); ahead += rows) {
            rows = rows_of(&coming.bags);
            if (rows < LONG_ROWS)
                rk_table_prefetch(coming.table, engine->kernels, &coming.bags);
        }
        const size_t rows = rows_of(&lookup.bags);
        rk_table_pool(lookup.table, engine->kernels, &lookup.bags, lookup.out, lookup.out_stride);
        ahead -= rows < ahead ? rows : ahead;
        engine->counters.lookups += lookup.bags.num_bags;
        engine->counters.rows += rows;
    }
}

/* ---- one tile ---- */

/* Dense values of a segment's first `rows` candidates, the context's before the candidate's, rows `stride` apart;
 * without the context's where these are read by a part of their own. */
static void gather_dense(const struct rk_engine *engine, const struct rk_slice *part, uint32_t rows, float *to,
                         size_t stride)
{
    const uint32_t context = engine->bottom_context.linear == NULL ? engine->spec->num_context_dense : 0,
                   candidate = engine->spec->num_candidate_dense;
    for (uint32_t r = 0; r < rows; r++, to += stride) {
        if (context > 0)
            memcpy(to, part->request->context_dense, context * sizeof *to);
        if (candidate > 0)
            memcpy(to + context, part->request->candidate_dense + ((size_t)part->first + r) * candidate,
                   candidate * sizeof *to);
    }
}

/* Without layers, the dense values are x as they are. */
static void run_bottom(struct rk_engine *engine, const struct rk_tile *tile)
{
    const struct rk_vector *x = rk_interaction_x(engine->interaction);
    if (x == NULL)
        return;
    const bool once = x->side == RK_SIDE_CONTEXT; /* per segment */
    const size_t x_stride = once ? engine->context_stride : engine->candidate_stride;
    float *to = once ? tile->context + tile->first_new * x_stride + x->column : tile->candidate + x->column;
    const bool layers = engine->bottom.num_layers > 0;
    float *dense = layers ? engine->dense : to;
    const size_t stride = layers ? engine->widths.dense : x_stride;
    uint32_t rows = 0;
    for (uint32_t s = once ? tile->first_new : 0; s < tile->num_segments; s++) {
        const uint32_t count = once ? 1 : tile->segments[s].num_rows;
        gather_dense(engine, &engine->parts[s], count, dense + rows * stride, stride);
        rows += count;
    }
    if (!layers || rows == 0)
        return;
    for (uint32_t s = tile->first_new; s < tile->num_segments; s++)
        rk_context_part_set(&engine->bottom_context, s, engine->parts[s].request->context_dense);
    rk_context_part_run(&engine->bottom_context, tile, &engine->observer);
    rk_linear_input(engine->bottom.layers[0], dense, stride, rows, &engine->bottom_in);
    rk_context_part_begin(&engine->bottom_context, tile, &engine->bottom_in);
    rk_tower_run(&engine->bottom, &engine->bottom_in, rows, &engine->observer, to, x_stride);
}

static void run_tile(struct rk_engine *engine, const struct rk_tile *tile)
{
    const uint32_t num_heads = engine->spec->num_heads;
    pool_features(engine, tile);
    MARK_COST(engine, lookup_ns);
    run_bottom(engine, tile);
    MARK_COST(engine, towers_ns);
    rk_interaction_run(engine->interaction, tile, &engine->observer, &engine->top_context, &engine->top_in);
    MARK_COST(engine, interaction_ns);
    rk_context_part_run(&engine->top_context, tile, &engine->observer);
    rk_context_part_begin(&engine->top_context, tile, &engine->top_in);
    rk_tower_run(&engine->top, &engine->top_in, tile->num_rows, &engine->observer, engine->logits, num_heads);
    MARK_COST(engine, towers_ns);
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
    struct rk_tile tile = {.segments = engine->segments,
                           .segment_of = engine->segment_of,
                           .context = engine->context,
                           .candidate = engine->candidate};
    while (cursor->slice < cursor->end && tile.num_rows < engine->tile_rows) {
        const struct rk_slice *slice = cursor->slice;
        const uint32_t left = slice->count - cursor->done, room = engine->tile_rows - tile.num_rows;
        const uint32_t count = left < room ? left : room;
        engine->segments[tile.num_segments] = (struct rk_segment){tile.num_rows, count, slice->count};
        engine->parts[tile.num_segments] = (struct rk_slice){
            .request = slice->request,
            .first = slice->first + cursor->done,
            .count = count,
            .logits = slice->logits + (size_t)cursor->done * engine->spec->num_heads,
        };
        for (uint32_t row = tile.num_rows; row < tile.num_rows + count; row++)
            engine->segment_of[row] = tile.num_segments;
        tile.num_segments++;
        tile.num_rows += count;
        cursor->done += count;
        skip_finished(cursor);
    }
    return tile;
}

/* A request that goes on from the tile before, whose last one it was, brings along what its context gave. */
static void carry_context(struct rk_engine *engine, uint32_t last_segment)
{
    if (last_segment > 0)
        memcpy(engine->context, engine->context + (size_t)last_segment * engine->context_stride,
               engine->context_stride * sizeof(float));
    rk_context_part_carry(&engine->bottom_context, last_segment);
    rk_context_part_carry(&engine->top_context, last_segment);
    rk_interaction_carry(engine->interaction, last_segment);
}

enum rk_status rk_engine_run(struct rk_engine *engine, const struct rk_slice *slices, uint32_t num_slices,
                             struct rk_run_cost *cost)
{
    begin_cost(engine, cost);
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
        const bool goes_on = cursor.done > 0;
        if (goes_on)
            carry_context(engine, last_segment);
        struct rk_tile tile = next_tile(engine, &cursor);
        tile.first_new = goes_on;
        MARK_COST(engine, rest_ns);
        run_tile(engine, &tile);
        last_segment = tile.num_segments - 1;
    }
    engine->counters.batches++;
    engine->counters.candidates += num_candidates;
    MARK_COST(engine, rest_ns);
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
        status = rk_engine_run(engine, &slice, 1, NULL);
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

static struct {
    pthread_once_t once;
    char text[2048];
} description = {.once = PTHREAD_ONCE_INIT};

static void describe(void)
{
    snprintf(description.text, sizeof description.text, "cpu (%s)", rk_kernels_describe());
}

const char *rk_engine_describe(void)
{
    pthread_once(&description.once, describe);
    return description.text;
}
