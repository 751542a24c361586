/* A synthetic model is a checkpoint without bytes: a config and a list of tensors that have names and shapes, drafted
 * and packed as an imported one. Element i of tensor t is a pure function of seed, t and i, so that tables of any size
 * can be streamed; rows in another format than fp32 are those same numbers, encoded.
 *
 * Weights are uniform with He's variance (2 / inputs, https://arxiv.org/abs/1502.01852) before a ReLU and 1 / inputs
 * elsewhere; rows are scaled so that a pairwise dot of two pooled vectors is about 1. Logits come out of ordinary size.
 * One thread. */
#include "model/synth.h"

#include <math.h>
#include <string.h>

#include "model/import.h"

/* ---- known shapes ---- */

static const uint32_t dlrm_bottom[] = {512, 256, 128};
static const uint32_t dlrm_top[] = {1024, 1024, 512, 256};

/* Rows of the 26 categorical features of the Criteo 1TB click logs with at most 40,000,000 rows each, and the ids per
 * feature of their synthetic multi-hot version, as published for MLPerf's DLRM-DCNv2:
 * https://github.com/mlcommons/training/tree/master/recommendation_v2/torchrec_dlrm (README:
 * --num_embeddings_per_feature,
 * --multi_hot_sizes; dim 128, bottom 512,256,128, over 1024,1024,512,256,1, 3 cross layers of rank 512). */
static const uint64_t criteo_rows[26] = {40000000, 39060,    17295,    7424,     20265,  3,     7122, 1543, 63,
                                         40000000, 3067956,  405282,   10,       2209,   11938, 155,  4,    976,
                                         14,       40000000, 40000000, 40000000, 590152, 12973, 108,  36};
static const uint32_t criteo_ids[26] = {3, 2, 1, 2, 6, 1, 1,  1,   1,  7,  3, 8, 1,
                                        6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1};
static const char *const criteo_names[26] = {"cat_0",  "cat_1",  "cat_2",  "cat_3",  "cat_4",  "cat_5",  "cat_6",
                                             "cat_7",  "cat_8",  "cat_9",  "cat_10", "cat_11", "cat_12", "cat_13",
                                             "cat_14", "cat_15", "cat_16", "cat_17", "cat_18", "cat_19", "cat_20",
                                             "cat_21", "cat_22", "cat_23", "cat_24", "cat_25"};

static const char *const shape_names[] = {"dlrm-26x128", "mlperf-dlrm-dcnv2", NULL};

const char *const *rk_synth_shape_names(void)
{
    return shape_names;
}

bool rk_synth_shape(const char *name, struct rk_synth_options *options)
{
    static struct rk_synth_table tables[26];
    bool mlperf = strcmp(name, shape_names[1]) == 0;
    if (!mlperf && strcmp(name, shape_names[0]) != 0)
        return false;
    for (size_t t = 0; t < 26; t++)
        tables[t] = (struct rk_synth_table){.name = criteo_names[t],
                                            .rows = mlperf ? criteo_rows[t] : 1000000,
                                            .dim = 128,
                                            .ids_per_bag = mlperf ? criteo_ids[t] : 1};
    options->tables = tables;
    options->num_tables = 26;
    options->num_context_features = 13;
    options->num_dense = 13;
    options->num_context_dense = 7;
    options->bottom = dlrm_bottom;
    options->num_bottom = 3;
    options->top = dlrm_top;
    options->num_top = 4;
    options->num_heads = 1;
    options->interaction = mlperf
                               ? (struct rk_interaction_spec){.op = RK_INTERACTION_DCN_V2, .num_cross = 3, .rank = 512}
                               : (struct rk_interaction_spec){.op = RK_INTERACTION_DOT, .pairs = RK_PAIRS_TRIL};
    return true;
}

/* ---- the checkpoint ---- */

static uint64_t bottom_out(const struct rk_synth_options *options)
{
    return options->num_bottom > 0 ? options->bottom[options->num_bottom - 1] : options->num_dense;
}

static uint64_t concatenated(const struct rk_synth_options *options)
{
    uint64_t width = bottom_out(options);
    for (uint32_t t = 0; t < options->num_tables; t++)
        width += options->tables[t].dim;
    return width;
}

uint64_t rk_synth_top_in(const struct rk_synth_options *options)
{
    if (options->interaction.op != RK_INTERACTION_DOT)
        return concatenated(options);
    uint64_t vectors = (uint64_t)options->num_tables + (bottom_out(options) > 0);
    uint64_t pairs = vectors > 0 ? vectors * (vectors - 1) / 2 : 0;
    return bottom_out(options) + pairs + (options->interaction.self ? vectors : 0);
}

/* A checkpoint in the making; everything is in the arena. */
struct synth {
    const struct rk_synth_options *options;
    struct rk_arena arena;
    struct rk_config config;
    struct rk_tensor *tensors;
    float *limits; /* [num_tensors]: elements are uniform in [-limit, limit) */
    float *row;    /* as wide as the widest table */
    size_t num_tensors;
    bool failed; /* memory ran out */
};

/* A matrix, or a vector when rows is 0. `name` is in the arena or NULL when that is full. */
static void add_tensor(struct synth *s, const char *name, uint64_t rows, uint64_t columns, double variance)
{
    uint64_t *shape = rk_arena_array(&s->arena, 2, sizeof *shape);
    if (name == NULL || shape == NULL) {
        s->failed = true;
        return;
    }
    shape[0] = rows > 0 ? rows : columns;
    shape[1] = columns;
    s->limits[s->num_tensors] = (float)sqrt(3 * variance);
    s->tensors[s->num_tensors++] = (struct rk_tensor){
        .name = name, .dtype = RK_DTYPE_F32, .dtype_name = "F32", .rank = rows > 0 ? 2 : 1, .shape = shape};
}

#define BIAS_VARIANCE 0.0025

/* Layers "PREFIX.0", "PREFIX.1", ...; the last of the top MLP has no ReLU behind it. */
static const char *const *add_mlp(struct synth *s, const char *prefix, uint64_t in, const uint32_t *widths,
                                  uint32_t count, uint32_t last_width)
{
    uint32_t layers = count + (last_width > 0);
    const char **names = rk_arena_array(&s->arena, layers, sizeof *names);
    for (uint32_t i = 0; i < layers; i++) {
        uint32_t out = i < count ? widths[i] : last_width;
        if (names == NULL || (names[i] = rk_arena_printf(&s->arena, "%s.%u", prefix, i)) == NULL) {
            s->failed = true;
            return NULL;
        }
        add_tensor(s, rk_arena_printf(&s->arena, "%s.weight", names[i]), out, in,
                   (i < count ? 2.0 : 1.0) / (double)(in > 0 ? in : 1));
        add_tensor(s, rk_arena_printf(&s->arena, "%s.bias", names[i]), 0, out, BIAS_VARIANCE);
        in = out;
    }
    return names;
}

static const char *const *dense_names(struct synth *s, uint32_t first, uint32_t count)
{
    const char **names = rk_arena_array(&s->arena, count, sizeof *names);
    for (uint32_t i = 0; names != NULL && i < count; i++)
        s->failed |= (names[i] = rk_arena_printf(&s->arena, "dense_%u", first + i)) == NULL;
    s->failed |= names == NULL;
    return names;
}

/* Formats that a checkpoint can bring, too. */
static const struct {
    enum rk_dtype dtype;
    const char *name; /* NULL: not one of them */
} packed[RK_ROW_FORMAT_COUNT] = {
    [RK_ROWS_F32] = {RK_DTYPE_F32, "F32"},    [RK_ROWS_F16] = {RK_DTYPE_F16, "F16"},
    [RK_ROWS_BF16] = {RK_DTYPE_BF16, "BF16"}, [RK_ROWS_INT8] = {RK_DTYPE_U8, "U8"},
    [RK_ROWS_INT4] = {RK_DTYPE_U8, "U8"},     [RK_ROWS_INT2] = {RK_DTYPE_U8, "U8"},
};

/* Has the tensor's rows ready-made. */
static void pack_rows(enum rk_row_format format, struct rk_tensor *tensor, uint32_t dim)
{
    uint64_t *shape = (uint64_t *)tensor->shape;
    tensor->dtype = packed[format].dtype;
    tensor->dtype_name = packed[format].name;
    if (tensor->dtype == RK_DTYPE_U8)
        shape[1] = rk_row_bytes(format, dim);
}

static void add_tables(struct synth *s)
{
    const struct rk_synth_options *options = s->options;
    struct rk_table_spec *tables = rk_arena_array(&s->arena, options->num_tables, sizeof *tables);
    struct rk_feature_spec *features = rk_arena_array(&s->arena, options->num_tables, sizeof *features);
    const char **names = rk_arena_array(&s->arena, options->num_tables, sizeof *names);
    enum rk_row_layout *layouts = rk_arena_array(&s->arena, options->num_tables, sizeof *layouts);
    if (tables == NULL || features == NULL || names == NULL || layouts == NULL) {
        s->failed = true;
        return;
    }
    for (uint32_t t = 0; t < options->num_tables; t++) {
        const struct rk_synth_table *table = &options->tables[t];
        names[t] = rk_arena_printf(&s->arena, "tables.%u.weight", t);
        tables[t] = (struct rk_table_spec){.name = table->name,
                                           .num_embeddings = table->rows,
                                           .embedding_dim = table->dim,
                                           .format = options->row_format};
        layouts[t] = options->row_format == RK_ROWS_F32 ? RK_LAYOUT_NUMBERS : RK_LAYOUT_ROWS;
        bool context = t < options->num_context_features;
        features[t] = (struct rk_feature_spec){.name = table->name,
                                               .table = t,
                                               .side = context ? RK_SIDE_CONTEXT : RK_SIDE_CANDIDATE,
                                               .pooling = RK_POOLING_SUM,
                                               .weighted = context && options->weighted};
        uint32_t ids = table->ids_per_bag > 0 ? table->ids_per_bag : 1;
        add_tensor(s, names[t], table->rows, table->dim, 1 / (sqrt((double)table->dim) * ids));
        if (options->row_format != RK_ROWS_F32 && !s->failed)
            pack_rows(options->row_format, &s->tensors[s->num_tensors - 1], table->dim);
    }
    s->config.tables = tables;
    s->config.table_tensors = names;
    s->config.table_layouts = layouts;
    s->config.spec.tables = tables;
    s->config.spec.features = features;
    s->config.spec.num_tables = s->config.spec.num_features = options->num_tables;
    uint32_t widest = 1;
    for (uint32_t t = 0; t < options->num_tables; t++)
        widest = options->tables[t].dim > widest ? options->tables[t].dim : widest;
    s->row = rk_arena_array(&s->arena, widest, sizeof *s->row);
    s->failed |= s->row == NULL;
}

static void add_cross(struct synth *s)
{
    uint64_t width = concatenated(s->options), rank = s->options->interaction.rank;
    for (uint32_t k = 0; k < s->options->interaction.num_cross; k++) {
        add_tensor(s, rk_arena_printf(&s->arena, "crossnet.V_kernels.%u", k), rank, width, 1.0 / (double)width);
        add_tensor(s, rk_arena_printf(&s->arena, "crossnet.W_kernels.%u", k), width, rank, 1.0 / (double)rank);
        add_tensor(s, rk_arena_printf(&s->arena, "crossnet.bias.%u", k), 0, width, BIAS_VARIANCE);
    }
}

static const char *const *head_names(struct synth *s, uint32_t count)
{
    const char **names = rk_arena_array(&s->arena, count, sizeof *names);
    for (uint32_t h = 0; names != NULL && h < count; h++)
        s->failed |= (names[h] = rk_arena_printf(&s->arena, "head_%u", h)) == NULL;
    s->failed |= names == NULL;
    return names;
}

static enum rk_status check_options(const struct rk_synth_options *o, struct rk_error *error)
{
    if (o->num_tables > RK_MAX_TABLES || o->num_bottom > RK_MAX_LAYERS || o->num_top >= RK_MAX_LAYERS ||
        o->num_dense > RK_MAX_WIDTH || o->num_heads < 1 || o->num_heads > RK_MAX_HEADS ||
        o->interaction.num_cross > RK_MAX_LAYERS)
        return rk_error_set(error, RK_INVALID,
                            "at most %u tables, %u layers, %u dense inputs and 1 to %u heads are possible",
                            RK_MAX_TABLES, RK_MAX_LAYERS, RK_MAX_WIDTH, RK_MAX_HEADS);
    if (o->num_context_features > o->num_tables)
        return rk_error_set(error, RK_INVALID, "%u context features are asked for, but there are %u features",
                            o->num_context_features, o->num_tables);
    if (o->num_context_dense > o->num_dense)
        return rk_error_set(error, RK_INVALID, "%u context dense inputs are asked for, but there are %u dense inputs",
                            o->num_context_dense, o->num_dense);
    if ((unsigned)o->row_format >= RK_ROW_FORMAT_COUNT || packed[o->row_format].name == NULL)
        return rk_error_set(
            error, RK_UNSUPPORTED,
            "rows are made in fp32, fp16, bf16, int8, int4 or int2; rankpack quantize makes the others");
    for (uint32_t t = 0; t < o->num_tables; t++)
        if (o->tables[t].rows < 1 || o->tables[t].rows > RK_MAX_ROWS || o->tables[t].dim < 1 ||
            o->tables[t].dim > RK_MAX_WIDTH)
            return rk_error_set(error, RK_INVALID, "table '%.128s' has %llu rows x %u, must have 1 to %llu x 1 to %u",
                                o->tables[t].name, (unsigned long long)o->tables[t].rows, o->tables[t].dim,
                                (unsigned long long)RK_MAX_ROWS, RK_MAX_WIDTH);
    if (rk_synth_top_in(o) > RK_MAX_WIDTH || rk_synth_top_in(o) == 0)
        return rk_error_set(error, RK_INVALID, "the interaction is %llu wide, must be from 1 to %u",
                            (unsigned long long)rk_synth_top_in(o), RK_MAX_WIDTH);
    return RK_OK;
}

/* Describes the whole checkpoint in s->arena. */
static enum rk_status describe(struct synth *s, struct rk_error *error)
{
    const struct rk_synth_options *o = s->options;
    enum rk_status status = check_options(o, error);
    if (status != RK_OK)
        return status;
    size_t most = 2 * (size_t)(o->num_bottom + o->num_top + 1) + 3 * (size_t)o->interaction.num_cross + o->num_tables;
    s->tensors = rk_arena_array(&s->arena, most, sizeof *s->tensors);
    s->limits = rk_arena_array(&s->arena, most, sizeof *s->limits);
    if (s->tensors == NULL || s->limits == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %zu tensors", most);
    struct rk_model_spec *spec = &s->config.spec;
    spec->name = o->name;
    spec->context_dense = dense_names(s, 0, o->num_context_dense);
    spec->num_context_dense = o->num_context_dense;
    spec->candidate_dense = dense_names(s, o->num_context_dense, o->num_dense - o->num_context_dense);
    spec->num_candidate_dense = o->num_dense - o->num_context_dense;
    spec->heads = head_names(s, o->num_heads);
    spec->num_heads = o->num_heads;
    spec->interaction = o->interaction;
    add_tables(s);
    s->config.bottom = add_mlp(s, "bottom", o->num_dense, o->bottom, o->num_bottom, 0);
    s->config.num_bottom = o->num_bottom;
    s->config.cross = "crossnet";
    add_cross(s);
    s->config.top = add_mlp(s, "top", rk_synth_top_in(o), o->top, o->num_top, o->num_heads);
    s->config.num_top = o->num_top + 1;
    return s->failed ? rk_error_set(error, RK_NO_MEMORY, "out of memory for the model's description") : RK_OK;
}

static enum rk_status generate(void *context, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count,
                               void *elements, struct rk_error *error)
{
    const struct synth *s = context;
    float *values = elements;
    (void)error;
    size_t which = (size_t)(tensor->source - s->tensors);
    struct rk_random mixed = {.state = s->options->seed};
    mixed.state = rk_random_next(&mixed) + which;
    const uint64_t base = rk_random_next(&mixed);
    for (uint64_t i = 0; i < count; i++) {
        struct rk_random element = {.state = base + (first + i) * 0x9e3779b97f4a7c15u};
        values[i] = rk_random_uniform(&element, -s->limits[which], s->limits[which]);
    }
    return RK_OK;
}

static enum rk_status generate_rows(void *context, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count,
                                    void *rows, struct rk_error *error)
{
    const struct synth *s = context;
    const enum rk_row_format format = s->options->row_format;
    const uint32_t dim = s->options->tables[tensor->table].dim;
    unsigned char *to = rows;
    for (uint64_t r = first; r < first + count; r++, to += rk_row_bytes(format, dim)) {
        (void)generate(context, tensor, r * dim, dim, s->row, error);
        rk_row_traits(format)->encode(s->row, dim, to);
    }
    return RK_OK;
}

enum rk_status rk_synth(const struct rk_synth_options *options, struct rk_error *error)
{
    struct synth s = {.options = options};
    struct rk_draft draft;
    struct rk_named_request *golden = NULL;
    rk_arena_init(&s.arena, 1u << 20);
    enum rk_status status = describe(&s, error);
    if (status == RK_OK)
        status = rk_draft_create(&s.config, "synth", s.tensors, s.num_tensors, "synth", &options->shards, &s.arena,
                                 &draft, error);
    if (status == RK_OK)
        status = rk_import_make_golden(&draft.spec, RK_IMPORT_GOLDEN, &s.arena, &golden, error);
    if (status == RK_OK) {
        const struct rk_pack_job job = {.output = options->output,
                                        .draft = &draft,
                                        .read = generate,
                                        .read_rows = generate_rows,
                                        .read_context = &s,
                                        .progress = options->progress,
                                        .progress_context = options->progress_context,
                                        .golden = golden,
                                        .num_golden = RK_IMPORT_GOLDEN};
        status = rk_pack(&job, error);
    }
    rk_arena_deinit(&s.arena);
    return status;
}

enum rk_status rk_synth_requests(const struct rk_synth_options *options, uint64_t count, uint32_t num_candidates,
                                 FILE *stream, struct rk_error *error)
{
    struct synth s = {.options = options};
    struct rk_arena arena;
    rk_arena_init(&s.arena, 1u << 20);
    rk_arena_init(&arena, 1u << 20);
    enum rk_status status = describe(&s, error);
    uint32_t *ids = status == RK_OK ? rk_arena_array(&s.arena, options->num_tables, sizeof *ids) : NULL;
    if (status == RK_OK && ids == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory for requests");
    for (uint32_t t = 0; status == RK_OK && t < options->num_tables; t++)
        ids[t] = options->tables[t].ids_per_bag;
    const struct rk_traffic_options traffic = {.num_candidates = num_candidates, .ids_per_bag = ids};
    struct rk_random random = {.state = ~options->seed};
    for (uint64_t i = 0; status == RK_OK && i < count; i++) {
        struct rk_named_request request;
        rk_arena_reset(&arena, SIZE_MAX);
        status = rk_traffic_request(&s.config.spec, &traffic, &random, i, &arena, &request, error);
        if (status == RK_OK && !rk_jsonl_print_request(stream, &request))
            status = rk_error_set(error, RK_IO, "failed to write request %llu", (unsigned long long)i);
    }
    rk_arena_deinit(&arena);
    rk_arena_deinit(&s.arena);
    return status;
}
