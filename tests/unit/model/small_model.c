/* See small_model.h. */
#include "tests/unit/model/small_model.h"

#include <string.h>

static void *array(struct rk_model *model, size_t count, size_t bytes)
{
    void *memory = rk_arena_array(&model->arena, count, bytes);
    cr_assert_not_null(memory);
    return memory;
}

static const char **name_list(struct rk_model *model, const char *prefix, uint32_t count)
{
    const char **names = array(model, count, sizeof *names);
    for (uint32_t i = 0; i < count; i++)
        names[i] = rk_arena_printf(&model->arena, "%s%u", prefix, i);
    return names;
}

static struct rk_tensor_spec place(struct rk_model *model, uint32_t rows, uint32_t columns, enum rk_dense_format format)
{
    struct rk_tensor_spec tensor = {rows, columns, (model->spec.weights_bytes + 63) / 64 * 64};
    model->spec.weights_bytes = tensor.offset + (uint64_t)rows * columns * rk_dense_element_bytes(format);
    return tensor;
}

static struct rk_linear_spec place_layer(struct rk_model *model, uint32_t out, uint32_t in, bool bias,
                                         enum rk_dense_format format, bool calibrated, bool gains)
{
    struct rk_linear_spec layer = {.format = format};
    layer.weight = place(model, out, in, format);
    if (format == RK_DENSE_INT8) {
        layer.scale = place(model, 1, out, RK_DENSE_F32);
        if (gains)
            layer.gain = place(model, 1, in, RK_DENSE_F32);
        layer.calibrated = calibrated;
        layer.low = calibrated ? -4.0f : 0.0f;
        layer.high = calibrated ? 4.0f : 0.0f;
    }
    if (bias)
        layer.bias = place(model, 1, out, RK_DENSE_F32);
    return layer;
}

static struct rk_mlp_spec place_mlp(struct rk_model *model, struct rk_linear_spec *layers, const uint32_t *widths,
                                    uint32_t num_layers, uint32_t in, const enum rk_dense_format *formats,
                                    bool calibrated, bool gains)
{
    for (uint32_t l = 0; l < num_layers; l++) {
        layers[l] = place_layer(model, widths[l], in, true, formats[l], calibrated, gains);
        in = widths[l];
    }
    return (struct rk_mlp_spec){layers, num_layers};
}

static void describe_tables(struct rk_model *model, const struct small_shape *shape)
{
    for (uint32_t t = 0; t < shape->num_tables; t++) {
        const uint32_t num_shards = shape->tables[t].num_shards ? shape->tables[t].num_shards : 1;
        struct rk_shard_spec *shards = model->shards[t] = array(model, num_shards, sizeof *shards);
        uint64_t row = 0;
        for (uint32_t s = 0; s < num_shards; s++) {
            const uint64_t rows = shape->tables[t].rows / num_shards + (s < shape->tables[t].rows % num_shards);
            shards[s] = (struct rk_shard_spec){rk_arena_printf(&model->arena, "t%u.%u.rows", t, s), row, rows, 0};
            row += rows;
        }
        model->table_specs[t] = (struct rk_table_spec){
            .name = rk_arena_printf(&model->arena, "t%u", t),
            .num_embeddings = row,
            .embedding_dim = shape->tables[t].dim,
            .format = shape->tables[t].format,
            .out_of_range = shape->tables[t].out_of_range,
            .default_row = row - 1,
            .shards = shards,
            .num_shards = num_shards,
        };
    }
}

void small_model_describe(struct rk_model *model, const struct small_shape *shape)
{
    memset(model, 0, sizeof *model);
    rk_arena_init(&model->arena, 1 << 16);
    model->table_specs = array(model, shape->num_tables, sizeof *model->table_specs);
    model->features = array(model, shape->num_features, sizeof *model->features);
    model->bottom = array(model, shape->num_bottom, sizeof *model->bottom);
    model->top = array(model, shape->num_hidden + 1, sizeof *model->top);
    model->cross = array(model, shape->num_cross, sizeof *model->cross);
    model->heads = name_list(model, "head", shape->num_heads);
    model->context_dense = name_list(model, "c", shape->context_dense);
    model->candidate_dense = name_list(model, "d", shape->candidate_dense);
    describe_tables(model, shape);
    uint32_t bottom_out = shape->context_dense + shape->candidate_dense, pooled = 0;
    for (uint32_t f = 0; f < shape->num_features; f++) {
        model->features[f] = shape->features[f];
        model->features[f].name = rk_arena_printf(&model->arena, "f%u", f);
        pooled += shape->tables[shape->features[f].table].dim;
    }
    model->spec = (struct rk_model_spec){
        .name = "small",
        .context_dense = model->context_dense,
        .candidate_dense = model->candidate_dense,
        .num_context_dense = shape->context_dense,
        .num_candidate_dense = shape->candidate_dense,
        .tables = model->table_specs,
        .num_tables = shape->num_tables,
        .features = model->features,
        .num_features = shape->num_features,
        .heads = model->heads,
        .num_heads = shape->num_heads,
        .weights_file = "weights",
    };
    model->spec.bottom = place_mlp(model, model->bottom, shape->bottom, shape->num_bottom, bottom_out,
                                   shape->bottom_format, shape->calibrated, shape->gains);
    if (shape->num_bottom > 0)
        bottom_out = shape->bottom[shape->num_bottom - 1];
    const uint32_t n = shape->num_features + (bottom_out > 0);
    uint32_t width = bottom_out + pooled;
    if (shape->op == RK_INTERACTION_DOT)
        width = bottom_out + (shape->self ? n * (n + 1) / 2 : n * (n - 1) / 2);
    const bool cross = shape->op == RK_INTERACTION_DCN_V2;
    for (uint32_t k = 0; cross && k < shape->num_cross; k++) {
        const enum rk_dense_format format = shape->cross_format[k];
        model->cross[k].v = place_layer(model, shape->rank, width, false, format, shape->calibrated, false);
        model->cross[k].w = place_layer(model, width, shape->rank, true, format, shape->calibrated, false);
    }
    model->spec.interaction = (struct rk_interaction_spec){
        .op = shape->op,
        .pairs = shape->pairs,
        .self = shape->self,
        .format = shape->op == RK_INTERACTION_DOT ? shape->vector_format : RK_DENSE_F32,
        .cross = model->cross,
        .num_cross = cross ? shape->num_cross : 0,
        .rank = shape->rank,
    };
    uint32_t top[SMALL_MAX + 1];
    memcpy(top, shape->hidden, sizeof shape->hidden);
    top[shape->num_hidden] = shape->num_heads;
    model->spec.top = place_mlp(model, model->top, top, shape->num_hidden + 1, width, shape->top_format,
                                shape->calibrated, shape->gains);
}

/* Random values of about the size that keeps a layer's output near 1. */
static void fill_layer(struct rk_model *model, const struct rk_linear_spec *layer, struct random *random)
{
    const uint64_t count = (uint64_t)layer->weight.rows * layer->weight.columns;
    const float scale = 1.5f / __builtin_sqrtf((float)layer->weight.columns);
    float *values = malloc(count * sizeof *values), *bias = (float *)(model->weights + layer->bias.offset);
    for (uint64_t i = 0; i < count; i++)
        values[i] = scale * random_float(random);
    rk_dense_encode(layer->format, values, layer->weight.rows, layer->weight.columns,
                    model->weights + layer->weight.offset, (float *)(model->weights + layer->scale.offset));
    for (uint32_t i = 0; i < layer->bias.rows * layer->bias.columns; i++)
        bias[i] = 0.2f * random_float(random);
    for (uint32_t i = 0; i < layer->gain.rows * layer->gain.columns; i++)
        ((float *)(model->weights + layer->gain.offset))[i] = (float)random_between(random, 1, 8) / 4.0f;
    free(values);
}

/* Random rows, encoded into the shards and decoded for whoever wants to know what they are. */
static void fill_table(struct rk_model *model, uint32_t t, struct random *random)
{
    const struct rk_table_spec *table = &model->spec.tables[t];
    const struct rk_row_traits *traits = rk_row_traits(table->format);
    const uint64_t row_bytes = rk_row_bytes(table->format, table->embedding_dim);
    unsigned char *encoded = malloc(table->num_embeddings * row_bytes);
    model->rows[t] = malloc(table->num_embeddings * table->embedding_dim * sizeof(float));
    for (uint64_t r = 0; r < table->num_embeddings; r++) {
        float *values = model->rows[t] + r * table->embedding_dim;
        for (uint32_t d = 0; d < table->embedding_dim; d++)
            values[d] = random_float(random);
        traits->encode(values, table->embedding_dim, encoded + r * row_bytes);
        traits->decode(encoded + r * row_bytes, table->embedding_dim, values);
    }
    for (uint32_t s = 0; s < table->num_shards; s++)
        folder_write(&model->folder, table->shards[s].file, encoded + table->shards[s].first_row * row_bytes,
                     table->shards[s].num_rows * row_bytes);
    free(encoded);
}

void small_model_pack(struct rk_model *model)
{
    struct rk_error error = {0};
    rk_towers_destroy(model->towers);
    model->towers = NULL;
    cr_assert_eq(rk_towers_create(&model->spec, model->weights, &model->towers, &error), RK_OK, "%s", error.text);
}

void small_model_open(struct rk_model *model, struct random *random)
{
    const struct rk_model_spec *spec = &model->spec;
    struct rk_error error = {0};
    cr_assert_eq(rk_model_spec_check(spec, &error), RK_OK, "%s", error.text);
    model->folder = folder_create();
    model->opened = true;
    model->weights = aligned_alloc(64, (spec->weights_bytes + 63) / 64 * 64);
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    for (size_t l = 0; l < num_layers; l++)
        fill_layer(model, layers[l].layer, random);
    small_model_pack(model);
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        fill_table(model, t, random);
        cr_assert_eq(rk_table_open(&spec->tables[t], model->folder.fd, NULL, &model->tables[t], &error), RK_OK, "%s",
                     error.text);
    }
}

void small_model_close(struct rk_model *model)
{
    for (uint32_t t = 0; t < SMALL_MAX; t++) {
        rk_table_close(model->tables[t]);
        free(model->rows[t]);
    }
    rk_towers_destroy(model->towers);
    free(model->weights);
    if (model->opened)
        folder_destroy(&model->folder);
    rk_arena_deinit(&model->arena);
}

/* ---- what model.c offers to the engine ---- */

const struct rk_model_spec *rk_model_spec_of(const struct rk_model *model)
{
    return &model->spec;
}

const struct rk_table *rk_model_table(const struct rk_model *model, uint32_t table)
{
    return model->tables[table];
}

const void *rk_model_weights(const struct rk_model *model)
{
    return model->weights;
}

const struct rk_towers *rk_model_towers(const struct rk_model *model)
{
    return model->towers;
}

bool rk_model_damaged(const struct rk_model *model)
{
    return model->damaged;
}

/* ---- shapes ---- */

struct small_shape small_shape_random(struct random *random)
{
    struct small_shape shape = {
        .context_dense = random_below(random, 2) ? (uint32_t)random_between(random, 1, 6) : 0,
        .candidate_dense = random_below(random, 2) ? (uint32_t)random_between(random, 1, 6) : 0,
        .num_heads = (uint32_t)random_between(random, 1, 4),
        .op = (enum rk_interaction_op)random_below(random, 3),
        .pairs = (enum rk_pairs)random_below(random, 2),
        .self = random_below(random, 2),
        .num_tables = (uint32_t)random_between(random, 1, SMALL_MAX),
        .num_features = (uint32_t)random_between(random, 0, SMALL_MAX),
    };
    const bool dense = shape.context_dense + shape.candidate_dense > 0;
    const uint32_t dim = (uint32_t)random_between(random, 1, 40);
    for (uint32_t t = 0; t < shape.num_tables; t++) {
        shape.tables[t].rows = random_below(random, 4) ? (uint32_t)random_between(random, 4, 200) : 1;
        shape.tables[t].num_shards = shape.tables[t].rows >= 4 ? (uint32_t)random_between(random, 1, 4) : 1;
        shape.tables[t].dim = shape.op == RK_INTERACTION_DOT ? dim : (uint32_t)random_between(random, 1, 40);
    }
    for (uint32_t f = 0; f < shape.num_features; f++) {
        const uint64_t kind = random_below(random, 3);
        shape.features[f] = (struct rk_feature_spec){
            .table = (uint32_t)random_below(random, shape.num_tables),
            .side = (enum rk_side)random_below(random, 2),
            .pooling = kind == 1 ? RK_POOLING_MEAN : RK_POOLING_SUM,
            .weighted = kind == 2,
        };
    }
    if (dense) {
        shape.num_bottom = (uint32_t)random_between(random, 0, 3);
        for (uint32_t l = 0; l < shape.num_bottom; l++)
            shape.bottom[l] = (uint32_t)random_between(random, 1, 50);
        if (shape.op == RK_INTERACTION_DOT && shape.num_bottom == 0)
            shape.num_bottom = 1;
        if (shape.op == RK_INTERACTION_DOT)
            shape.bottom[shape.num_bottom - 1] = dim;
    }
    shape.num_hidden = (uint32_t)random_between(random, 0, 3);
    for (uint32_t l = 0; l < shape.num_hidden; l++)
        shape.hidden[l] = (uint32_t)random_between(random, 1, 60);
    shape.num_cross = (uint32_t)random_between(random, 1, 4);
    shape.rank = (uint32_t)random_between(random, 1, 12);
    /* The top MLP needs something to read. */
    if (!dense && shape.num_features == 0)
        shape.num_features = 1;
    if (!dense && shape.num_features == 1)
        shape.self = true;
    return shape;
}

void small_shape_quantise(struct small_shape *shape, struct random *random)
{
    for (int t = 0; t < SMALL_MAX; t++)
        shape->tables[t].format = (enum rk_row_format)random_below(random, RK_ROW_FORMAT_COUNT);
    for (int l = 0; l < SMALL_MAX; l++) {
        shape->bottom_format[l] = (enum rk_dense_format)random_below(random, RK_DENSE_FORMAT_COUNT);
        shape->cross_format[l] = (enum rk_dense_format)random_below(random, RK_DENSE_FORMAT_COUNT);
    }
    for (int l = 0; l <= SMALL_MAX; l++)
        shape->top_format[l] = (enum rk_dense_format)random_below(random, RK_DENSE_FORMAT_COUNT);
    shape->vector_format = (enum rk_dense_format)random_below(random, RK_DENSE_FORMAT_COUNT);
    shape->calibrated = random_below(random, 2);
    shape->gains = random_below(random, 2);
}

struct small_shape small_shape_typical(enum rk_interaction_op op)
{
    return (struct small_shape){
        .context_dense = 2,
        .candidate_dense = 3,
        .num_tables = 3,
        .tables = {{.rows = 100, .dim = 8, .num_shards = 3},
                   {.rows = 50, .dim = 8, .out_of_range = RK_OUT_OF_RANGE_MODULO},
                   {.rows = 20, .dim = 8, .out_of_range = RK_OUT_OF_RANGE_DEFAULT}},
        .num_features = 4,
        .features = {{.table = 0, .side = RK_SIDE_CONTEXT},
                     {.table = 0, .side = RK_SIDE_CANDIDATE},
                     {.table = 1, .side = RK_SIDE_CONTEXT, .weighted = true},
                     {.table = 2, .side = RK_SIDE_CANDIDATE, .pooling = RK_POOLING_MEAN}},
        .num_bottom = 2,
        .bottom = {16, 8},
        .num_hidden = 2,
        .hidden = {24, 12},
        .num_heads = 2,
        .op = op,
        .num_cross = 2,
        .rank = 4,
    };
}

/* ---- requests ---- */

static const float *random_floats(uint64_t count, struct random *random, struct rk_arena *arena)
{
    float *values = rk_arena_array(arena, count, sizeof *values);
    for (uint64_t i = 0; i < count; i++)
        values[i] = random_float(random);
    return values;
}

static struct rk_named_block random_block(const struct rk_model_spec *spec, enum rk_side side, uint32_t rows,
                                          uint32_t width, uint32_t fixed, struct random *random, struct rk_arena *arena)
{
    struct rk_named_bags *bags = rk_arena_array(arena, spec->num_features, sizeof *bags);
    uint32_t count = 0;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_feature_spec *feature = &spec->features[f];
        if (feature->side != side)
            continue;
        uint32_t *lengths = rk_arena_array(arena, rows, sizeof *lengths);
        uint64_t num_ids = 0;
        for (uint32_t r = 0; r < rows; r++)
            num_ids += lengths[r] = fixed != UINT32_MAX ? fixed : (uint32_t)random_below(random, 5);
        int64_t *ids = rk_arena_array(arena, num_ids, sizeof *ids);
        for (uint64_t i = 0; i < num_ids; i++)
            ids[i] = (int64_t)random_below(random, spec->tables[feature->table].num_embeddings);
        bags[count++] = (struct rk_named_bags){
            .name = feature->name,
            .name_bytes = strlen(feature->name),
            .ids = ids,
            .num_ids = num_ids,
            .lengths = fixed != UINT32_MAX ? NULL : lengths,
            .num_lengths = fixed != UINT32_MAX ? 0 : rows,
            .weights = feature->weighted ? random_floats(num_ids, random, arena) : NULL,
            .num_weights = feature->weighted ? num_ids : 0,
        };
    }
    return (struct rk_named_block){
        .dense = random_floats((uint64_t)rows * width, random, arena),
        .num_dense = (uint64_t)rows * width,
        .features = bags,
        .num_features = count,
    };
}

struct rk_named_request small_request(const struct rk_model_spec *spec, uint32_t num_candidates, uint32_t lengths,
                                      struct random *random, struct rk_arena *arena)
{
    return (struct rk_named_request){
        .id = "",
        .context = random_block(spec, RK_SIDE_CONTEXT, 1, spec->num_context_dense, lengths, random, arena),
        .candidates =
            random_block(spec, RK_SIDE_CANDIDATE, num_candidates, spec->num_candidate_dense, lengths, random, arena),
        .num_candidates = num_candidates,
    };
}

struct rk_request small_bound_request(const struct rk_model_spec *spec, uint32_t num_candidates, uint32_t lengths,
                                      struct random *random, struct rk_arena *arena)
{
    const struct rk_named_request named = small_request(spec, num_candidates, lengths, random, arena);
    struct rk_request request = {0};
    struct rk_error error = {0};
    cr_assert_eq(rk_request_bind(spec, &RK_REQUEST_LIMITS_DEFAULT, &named, arena, &request, &error), RK_OK, "%s",
                 error.text);
    return request;
}
