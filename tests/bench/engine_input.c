/* Batches for benchmarks of the engine, and the loops that are timed. One thread, but for bench_run and bench_pin. */
#include "tests/bench/engine_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/columns.h"
#include "model/jsonl.h"
#include "quant/gram.h"
#include "tests/bench/probes.h"

enum { MAX_CANDIDATES = 1 << 17, AHEAD = 24, BURST = 128, LINE = 64, LOOKUP_ROWS = 128, FEW_ROWS = 16 };

static struct rk_arena arena; /* everything that lives until the end */

void *bench_array(size_t count, size_t bytes)
{
    if (arena.chunk_bytes == 0)
        rk_arena_init(&arena, 1 << 20);
    void *memory = rk_arena_array(&arena, count, bytes);
    if (memory == NULL)
        bench_fail("out of memory", NULL);
    return memory;
}

struct rk_model *bench_model(const char *path, bool huge_pages)
{
    const struct rk_row_options rows = {.memory = RK_ROWS_HUGE_PAGES, .limits = {.num_shards = 1}};
    const struct rk_model_open_options options = {.rows = huge_pages ? &rows : NULL};
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    if (rk_model_open(path, &options, &model, &error) != RK_OK)
        bench_fail("model", &error);
    return model;
}

/* ---- requests ---- */

struct sources {
    struct rk_request *requests;
    size_t count, capacity;
    uint64_t num_candidates;
};

static void read_requests(const char *path, const struct rk_model_spec *spec, struct sources *sources)
{
    struct rk_error error = {0};
    struct rk_jsonl_reader *reader = NULL;
    if (rk_jsonl_open(path, &reader, &error) != RK_OK)
        bench_fail("requests", &error);
    const char *line;
    size_t length;
    uint64_t number;
    while (rk_jsonl_next(reader, &line, &length, &number, &error) == RK_OK && line != NULL &&
           sources->num_candidates < MAX_CANDIDATES) {
        if (sources->count == sources->capacity) {
            sources->capacity = sources->capacity > 0 ? 2 * sources->capacity : 64;
            sources->requests = realloc(sources->requests, sources->capacity * sizeof *sources->requests);
            if (sources->requests == NULL)
                bench_fail("out of memory", NULL);
        }
        struct rk_named_request named;
        struct rk_request *request = &sources->requests[sources->count];
        char *copy = bench_array(length + 1, 1);
        memcpy(copy, line, length);
        if (rk_jsonl_parse(copy, length, &arena, &named, &error) != RK_OK ||
            rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, &named, &arena, request, &error) != RK_OK) {
            rk_error_prefix(&error, "%s:%llu", path, (unsigned long long)number);
            break;
        }
        sources->count++;
        sources->num_candidates += request->num_candidates;
    }
    rk_jsonl_close(reader);
    if (error.status != RK_OK)
        bench_fail("requests", &error);
    if (sources->count == 0)
        bench_fail("the requests file has no requests", NULL);
}

/* ---- batches ---- */

/* A walk over all candidates of all requests, round and round. */
struct walk {
    const struct sources *sources;
    size_t request;
    uint32_t candidate;
};

static void step(struct walk *walk)
{
    if (++walk->candidate < walk->sources->requests[walk->request].num_candidates)
        return;
    walk->candidate = 0;
    walk->request = (walk->request + 1) % walk->sources->count;
}

static struct rk_bags join_bags(const struct rk_model_spec *spec, uint32_t feature, uint32_t size, struct walk walk)
{
    uint32_t *offsets = bench_array(size + 1u, sizeof *offsets);
    struct walk again = walk;
    for (uint32_t c = 0; c < size; c++, step(&again)) {
        const uint32_t *from = walk.sources->requests[again.request].bags[feature].offsets + again.candidate;
        offsets[c + 1] = offsets[c] + from[1] - from[0];
    }
    int64_t *ids = bench_array(offsets[size], sizeof *ids);
    float *weights = spec->features[feature].weighted ? bench_array(offsets[size], sizeof *weights) : NULL;
    for (uint32_t c = 0; c < size; c++, step(&walk)) {
        const struct rk_bags *from = &walk.sources->requests[walk.request].bags[feature];
        const uint32_t first = from->offsets[walk.candidate], count = offsets[c + 1] - offsets[c];
        memcpy(ids + offsets[c], from->ids + first, count * sizeof *ids);
        if (weights != NULL && count > 0)
            memcpy(weights + offsets[c], from->weights + first, count * sizeof *weights);
    }
    return (struct rk_bags){.ids = ids, .weights = weights, .offsets = offsets};
}

static struct rk_request join_request(const struct rk_model_spec *spec, uint32_t size, const struct walk *walk)
{
    const struct rk_request *first = &walk->sources->requests[walk->request];
    const uint32_t width = spec->num_candidate_dense;
    float *dense = bench_array((size_t)size * width, sizeof *dense);
    struct walk at = *walk;
    for (uint32_t c = 0; width > 0 && c < size; c++, step(&at))
        memcpy(dense + (size_t)c * width,
               at.sources->requests[at.request].candidate_dense + (size_t)at.candidate * width, width * sizeof *dense);
    struct rk_bags *bags = bench_array(spec->num_features, sizeof *bags);
    for (uint32_t f = 0; f < spec->num_features; f++)
        bags[f] = spec->features[f].side == RK_SIDE_CONTEXT ? first->bags[f] : join_bags(spec, f, size, *walk);
    return (struct rk_request){.num_candidates = size,
                               .context_dense = first->context_dense,
                               .candidate_dense = dense,
                               .bags = bags};
}

static uint32_t num_bags(const struct rk_model_spec *spec, uint32_t feature, const struct rk_request *request)
{
    return spec->features[feature].side == RK_SIDE_CONTEXT ? 1 : request->num_candidates;
}

static void list_rows(const struct rk_model *model, struct bench_batch *batch)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    size_t most = 0;
    for (uint32_t f = 0; f < spec->num_features; f++)
        most += batch->request.bags[f].offsets[num_bags(spec, f, &batch->request)];
    batch->rows = bench_array(most, sizeof *batch->rows);
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_table *table = rk_model_table(model, spec->features[f].table);
        const struct rk_table_spec *of = &spec->tables[spec->features[f].table];
        const uint32_t bytes = (uint32_t)rk_row_bytes(of->format, of->embedding_dim);
        const struct rk_bags *bags = &batch->request.bags[f];
        for (uint32_t i = 0; i < bags->offsets[num_bags(spec, f, &batch->request)]; i++) {
            batch->rows[batch->num_rows++] =
                (struct bench_row){rk_table_row(table, rk_kernels_get(), bags->ids[i]), bytes};
            batch->row_bytes += bytes;
            batch->elements += of->embedding_dim;
        }
    }
}

struct bench_batches bench_batches(const struct rk_model *model, const char *requests, uint32_t size, size_t most)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    struct sources sources = {0};
    read_requests(requests, spec, &sources);
    uint64_t count = sources.num_candidates / size;
    count = count < 1 ? 1 : count > most ? most : count;
    struct bench_batches batches = {.model = model,
                                    .size = size,
                                    .list = bench_array(count, sizeof *batches.list),
                                    .count = count,
                                    .logits = bench_array((size_t)size * spec->num_heads, sizeof(float))};
    struct walk walk = {.sources = &sources};
    for (uint64_t b = 0; b < count; b++) {
        const uint32_t left = sources.requests[walk.request].num_candidates - walk.candidate;
        if (left < size &&
            walk.candidate > 0) /* what is left of this request would not fill a batch; a whole one might */
            walk = (struct walk){&sources, (walk.request + 1) % sources.count, 0};
        batches.list[b].request = join_request(spec, size, &walk);
        list_rows(model, &batches.list[b]);
        for (uint32_t c = 0; c < size; c++)
            step(&walk);
    }
    free(sources.requests);
    return batches;
}

struct bench_batches bench_without_ids(const struct bench_batches *batches)
{
    const uint32_t num_features = rk_model_spec_of(batches->model)->num_features;
    struct bench_batches empty = *batches;
    uint32_t *offsets = bench_array(batches->size + 1u, sizeof *offsets);
    empty.list = bench_array(batches->count, sizeof *empty.list);
    for (size_t b = 0; b < batches->count; b++) {
        struct rk_bags *bags = bench_array(num_features, sizeof *bags);
        for (uint32_t f = 0; f < num_features; f++) {
            bags[f] = batches->list[b].request.bags[f];
            bags[f].offsets = offsets;
        }
        empty.list[b].request = batches->list[b].request;
        empty.list[b].request.bags = bags;
    }
    return empty;
}

struct bench_batches bench_few_ids(const struct bench_batches *batches)
{
    const struct rk_model_spec *spec = rk_model_spec_of(batches->model);
    struct bench_batches few = *batches;
    few.list = bench_array(batches->count, sizeof *few.list);
    for (size_t b = 0; b < batches->count; b++) {
        const struct rk_request *request = &batches->list[b].request;
        struct rk_bags *bags = bench_array(spec->num_features, sizeof *bags);
        for (uint32_t f = 0; f < spec->num_features; f++) {
            const uint32_t count = request->bags[f].offsets[num_bags(spec, f, request)];
            int64_t *ids = bench_array(count, sizeof *ids);
            for (uint32_t i = 0; i < count; i++)
                ids[i] = request->bags[f].ids[i] % FEW_ROWS;
            bags[f] = request->bags[f];
            bags[f].ids = ids;
        }
        few.list[b].request = *request;
        few.list[b].request.bags = bags;
    }
    return few;
}

/* ---- what is timed ---- */

typedef void work_fn(void *context, struct bench_batch *batch, struct bench_batches *batches);

static double repeat(work_fn *work, void *context, struct bench_batches *batches, double seconds)
{
    uint64_t runs = 0;
    const double start = now_s();
    double spent;
    do {
        work(context, &batches->list[batches->next], batches);
        batches->next = (batches->next + 1) % batches->count;
        runs++;
        spent = now_s() - start;
    } while (spent < seconds);
    return 1e6 * spent / (double)runs;
}

static void run_engine(void *engine, struct bench_batch *batch, struct bench_batches *batches)
{
    const struct rk_slice slice = {&batch->request, 0, batches->size, batches->logits};
    if (rk_engine_run(engine, &slice, 1, NULL) != RK_OK)
        bench_fail("the engine failed: the model's files were damaged", NULL);
}

double bench_run(struct rk_engine *engine, struct bench_batches *batches, double seconds)
{
    return repeat(run_engine, engine, batches, seconds);
}

struct costed {
    struct rk_engine *engine;
    struct rk_run_cost sum;
};

static void run_costed(void *context, struct bench_batch *batch, struct bench_batches *batches)
{
    struct costed *costed = context;
    struct rk_run_cost cost;
    const struct rk_slice slice = {&batch->request, 0, batches->size, batches->logits};
    if (rk_engine_run(costed->engine, &slice, 1, &cost) != RK_OK)
        bench_fail("the engine failed: the model's files were damaged", NULL);
    costed->sum.lookup_ns += cost.lookup_ns;
    costed->sum.interaction_ns += cost.interaction_ns;
    costed->sum.towers_ns += cost.towers_ns;
    costed->sum.rest_ns += cost.rest_ns;
}

struct bench_cost bench_cost(struct rk_engine *engine, struct bench_batches *batches, double seconds)
{
    struct costed costed = {.engine = engine};
    const double spent_us = repeat(run_costed, &costed, batches, seconds);
    const struct rk_run_cost *sum = &costed.sum;
    /* The engine's clock went on while other programs had the core. */
    const double us = spent_us / (double)(sum->lookup_ns + sum->interaction_ns + sum->towers_ns + sum->rest_ns);
    return (struct bench_cost){us * (double)costed.sum.lookup_ns, us * (double)costed.sum.interaction_ns,
                               us * (double)costed.sum.towers_ns, us * (double)costed.sum.rest_ns};
}

static volatile uint32_t touched;

static void prefetch(const struct bench_row *row, int hint)
{
    const unsigned char *first = (const unsigned char *)((uintptr_t)row->address / LINE * LINE);
    for (const unsigned char *line = first; line < row->address + row->bytes; line += LINE)
        if (hint == 0)
            __builtin_prefetch(line, 0, 3);
        else
            __builtin_prefetch(line, 0, 2);
}

static uint32_t read_lines(const struct bench_row *row)
{
    uint32_t sum = *row->address;
    for (uintptr_t line = (uintptr_t)row->address / LINE * LINE + LINE; line < (uintptr_t)row->address + row->bytes;
         line += LINE)
        sum += *(const unsigned char *)line;
    return sum;
}

static void touch_rolling(void *context, struct bench_batch *batch, struct bench_batches *batches)
{
    (void)context;
    (void)batches;
    uint32_t sum = 0;
    for (size_t r = 0; r < batch->num_rows; r++) {
        if (r + AHEAD < batch->num_rows)
            prefetch(&batch->rows[r + AHEAD], 0);
        sum += read_lines(&batch->rows[r]);
    }
    touched = sum;
}

static void touch_bursts(void *context, struct bench_batch *batch, struct bench_batches *batches)
{
    (void)context;
    (void)batches;
    uint32_t sum = 0;
    for (size_t r = 0; r < batch->num_rows; r += BURST) {
        const size_t from = r == 0 ? 0 : r + BURST, end = r + 2 * BURST;
        for (size_t ahead = from; ahead < end && ahead < batch->num_rows; ahead++)
            prefetch(&batch->rows[ahead], 2);
        for (size_t at = r; at < r + BURST && at < batch->num_rows; at++)
            sum += read_lines(&batch->rows[at]);
    }
    touched = sum;
}

double bench_gather(struct bench_batches *batches, double seconds)
{
    const double rolling = repeat(touch_rolling, NULL, batches, seconds / 2),
                 bursts = repeat(touch_bursts, NULL, batches, seconds / 2);
    return rolling < bursts ? rolling : bursts;
}

static void look_up(void *out, struct bench_batch *batch, struct bench_batches *batches)
{
    const struct rk_model_spec *spec = rk_model_spec_of(batches->model);
    for (uint32_t first = 0; first < batches->size; first += LOOKUP_ROWS)
        for (uint32_t f = 0; f < spec->num_features; f++) {
            const struct rk_feature_spec *feature = &spec->features[f];
            const struct rk_bags *bags = &batch->request.bags[f];
            const uint32_t left = batches->size - first;
            struct rk_bag_list list = {.ids = bags->ids,
                                       .weights = bags->weights,
                                       .offsets = bags->offsets + first,
                                       .num_bags = left < LOOKUP_ROWS ? left : LOOKUP_ROWS,
                                       .mean = feature->pooling == RK_POOLING_MEAN};
            if (feature->side == RK_SIDE_CONTEXT) {
                list.offsets = bags->offsets;
                list.num_bags = first == 0;
            }
            rk_table_pool(rk_model_table(batches->model, feature->table), rk_kernels_get(), &list, out,
                          spec->tables[feature->table].embedding_dim);
        }
}

double bench_lookup(struct bench_batches *batches, double seconds)
{
    static float *out;
    static size_t floats;
    const struct rk_model_spec *spec = rk_model_spec_of(batches->model);
    uint32_t widest = 0;
    for (uint32_t t = 0; t < spec->num_tables; t++)
        widest = spec->tables[t].embedding_dim > widest ? spec->tables[t].embedding_dim : widest;
    if (floats < (size_t)widest * LOOKUP_ROWS) {
        floats = (size_t)widest * LOOKUP_ROWS;
        out = bench_array(floats, sizeof *out);
    }
    return repeat(look_up, out, batches, seconds);
}

/* ---- what must be computed ---- */

static double element_bytes(enum rk_dense_format format)
{
    return (double)rk_dense_element_bytes(format);
}

static void need_layers(const struct rk_model_spec *spec, struct bench_work *work)
{
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    const size_t count = rk_model_spec_layers(spec, uses);
    for (size_t u = 0; u < count; u++) {
        const struct rk_linear_spec *layer = uses[u].layer;
        const bool cross = uses[u].stage == RK_STAGE_CROSS_V || uses[u].stage == RK_STAGE_CROSS_W,
                   once = uses[u].stage == RK_STAGE_BOTTOM && spec->num_candidate_dense == 0;
        const double columns = layer->weight.columns, rows = layer->weight.rows,
                     shared = once ? columns : rk_layer_columns(spec, &uses[u], NULL);
        struct bench_stage *stage = cross ? &work->interaction : &work->towers;
        stage->request.macs[layer->format] += shared * rows;
        stage->candidate.macs[layer->format] += (columns - shared) * rows;
        stage->request.bytes += columns * rows * element_bytes(layer->format);
    }
}

static void need_dots(const struct rk_model_spec *spec, struct bench_work *work)
{
    if (spec->interaction.op != RK_INTERACTION_DOT)
        return;
    uint32_t ranks[RK_MAX_FEATURES + 1];
    const struct rk_model_widths widths = rk_model_spec_widths(spec);
    const uint32_t context = rk_vector_ranks(spec, ranks);
    const double dim = rk_vector_dim(spec, 0), shared = (double)rk_gram_elements(context, spec->interaction.self),
                 all = (double)(widths.top_in - widths.bottom_out);
    const enum rk_dense_format format = spec->interaction.format;
    struct bench_stage *stage = &work->interaction;
    stage->request.macs[format] += dim * shared;
    stage->candidate.macs[format] += dim * (all - shared);
    stage->request.bytes += dim * context * element_bytes(format);
    stage->candidate.bytes += dim * (widths.num_vectors - context) * element_bytes(format);
}

struct bench_work bench_work(const struct rk_model_spec *spec)
{
    struct bench_work work = {0};
    need_layers(spec, &work);
    need_dots(spec, &work);
    return work;
}
