/* Checking a model's description. A spec comes from a manifest or a config file, so nothing about it is believed: each
 * check names the field as the manifest does, the value, and what would be right. Counts are checked before the arrays
 * they bound are read; widths are added up in 64 bits and compared with RK_MAX_WIDTH before they are used as anything
 * else. */
#include "model/spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/base/checked.h"

#define TENSOR_ALIGNMENT 64

/* ---- names ---- */

size_t rk_printable_bytes(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    uint32_t code = s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) /* a terminating NUL ends up here too */
            return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    static const uint32_t least[] = {[2] = 0xa0, [3] = 0x800, [4] = 0x10000};
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code >= least[length] && code <= 0x10ffff && !surrogate ? length : 0;
}

static enum rk_status check_name(const char *name, const char *what, uint32_t index, struct rk_error *error)
{
    if (name == NULL || name[0] == '\0')
        return rk_error_set(error, RK_INVALID, "%s[%u] has an empty name", what, index);
    size_t length = 0;
    for (size_t bytes; name[length] != '\0'; length += bytes) {
        bytes = rk_printable_bytes(name + length);
        if (bytes == 0)
            return rk_error_set(error, RK_INVALID,
                                "%s[%u] has a name with a control character or invalid UTF-8 at byte %zu", what, index,
                                length);
        if (length + bytes > RK_MAX_NAME_BYTES)
            return rk_error_set(error, RK_INVALID, "%s[%u] has a name of more than %u bytes: '%.32s...'", what, index,
                                RK_MAX_NAME_BYTES, name);
    }
    return RK_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts `names`. */
static enum rk_status check_unique(const char **names, size_t count, const char *what, struct rk_error *error)
{
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return rk_error_set(error, RK_INVALID, "two %s are named '%.128s'; names must differ", what, names[i]);
    return RK_OK;
}

static enum rk_status check_count(uint64_t count, uint32_t most, const char *what, struct rk_error *error)
{
    if (count <= most)
        return RK_OK;
    return rk_error_set(error, RK_INVALID, "%s: %llu of them, at most %u are allowed", what, (unsigned long long)count,
                        most);
}

/* One kind of name at a time: `name_of` gives the i-th. */
typedef const char *name_of_fn(const struct rk_model_spec *spec, uint32_t index);

static const char *table_name(const struct rk_model_spec *spec, uint32_t index)
{
    return spec->tables[index].name;
}

static const char *feature_name(const struct rk_model_spec *spec, uint32_t index)
{
    return spec->features[index].name;
}

static const char *head_name(const struct rk_model_spec *spec, uint32_t index)
{
    return spec->heads[index];
}

static const char *value_model_name(const struct rk_model_spec *spec, uint32_t index)
{
    return spec->value_models[index].name;
}

static const char *context_dense_name(const struct rk_model_spec *spec, uint32_t index)
{
    return spec->context_dense[index];
}

static const char *candidate_dense_name(const struct rk_model_spec *spec, uint32_t index)
{
    return spec->candidate_dense[index];
}

static enum rk_status check_kind(const struct rk_model_spec *spec, const char *what, uint32_t count,
                                 name_of_fn *name_of, struct rk_error *error)
{
    const char **names = calloc(count + 1u, sizeof *names);
    if (names == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory while checking the names of %u %s", count, what);
    enum rk_status status = RK_OK;
    for (uint32_t i = 0; status == RK_OK && i < count; i++)
        status = check_name(names[i] = name_of(spec, i), what, i, error);
    if (status == RK_OK)
        status = check_unique(names, count, what, error);
    free(names);
    return status;
}

static enum rk_status check_names(const struct rk_model_spec *spec, struct rk_error *error)
{
    /* A dense input may have the same name on both sides: they are different numbers. */
    const struct {
        const char *what;
        uint32_t count;
        name_of_fn *name_of;
    } kinds[] = {
        {"tables", spec->num_tables, table_name},
        {"features", spec->num_features, feature_name},
        {"heads", spec->num_heads, head_name},
        {"value_models", spec->num_value_models, value_model_name},
        {"dense.context", spec->num_context_dense, context_dense_name},
        {"dense.candidate", spec->num_candidate_dense, candidate_dense_name},
    };
    enum rk_status status = check_name(spec->name, "model", 0, error);
    for (size_t k = 0; status == RK_OK && k < sizeof kinds / sizeof *kinds; k++)
        status = check_kind(spec, kinds[k].what, kinds[k].count, kinds[k].name_of, error);
    return status;
}

/* Only for checked tables. */
static enum rk_status check_files(const struct rk_model_spec *spec, struct rk_error *error)
{
    size_t count = 1;
    for (uint32_t t = 0; t < spec->num_tables; t++)
        count += spec->tables[t].num_shards + 1;
    const char **names = calloc(count, sizeof *names);
    if (names == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory while checking %zu file names", count);
    *names = spec->weights_file;
    count = 1;
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        for (uint32_t s = 0; s < spec->tables[t].num_shards; s++)
            names[count++] = spec->tables[t].shards[s].file;
        if (spec->tables[t].kept.file != NULL)
            names[count++] = spec->tables[t].kept.file;
    }
    enum rk_status status = check_unique(names, count, "files", error);
    free(names);
    return status;
}

/* ---- tables and features ---- */

static enum rk_status check_tables(const struct rk_model_spec *spec, struct rk_error *error)
{
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_table_spec *table = &spec->tables[t];
        if (table->embedding_dim > RK_MAX_WIDTH)
            return rk_error_set(error, RK_INVALID, "tables[%u].embedding_dim is %u, above the limit of %u", t,
                                table->embedding_dim, RK_MAX_WIDTH);
        if (table->num_embeddings > RK_MAX_ROWS)
            return rk_error_set(error, RK_INVALID, "tables[%u].num_embeddings is %llu, above the limit of %llu", t,
                                (unsigned long long)table->num_embeddings, (unsigned long long)RK_MAX_ROWS);
        if (table->num_shards > RK_MAX_SHARDS)
            return rk_error_set(error, RK_INVALID, "tables[%u] has %u shards, above the limit of %u", t,
                                table->num_shards, RK_MAX_SHARDS);
        enum rk_status status = rk_table_spec_check(table, error);
        if (status != RK_OK)
            return status;
    }
    return RK_OK;
}

static enum rk_status check_features(const struct rk_model_spec *spec, struct rk_error *error)
{
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_feature_spec *feature = &spec->features[f];
        if (feature->table >= spec->num_tables)
            return rk_error_set(error, RK_INVALID, "features[%u] reads table number %u of %u", f, feature->table,
                                spec->num_tables);
        if (feature->side != RK_SIDE_CONTEXT && feature->side != RK_SIDE_CANDIDATE)
            return rk_error_set(error, RK_INVALID, "features[%u].side is %d, neither context nor candidate", f,
                                (int)feature->side);
        if (feature->pooling != RK_POOLING_SUM && feature->pooling != RK_POOLING_MEAN)
            return rk_error_set(error, RK_INVALID, "features[%u].pooling is %d, neither sum nor mean", f,
                                (int)feature->pooling);
        if (feature->weighted && feature->pooling != RK_POOLING_SUM)
            return rk_error_set(error, RK_INVALID,
                                "features[%u] is weighted with mean pooling; weighted bags pool by sum", f);
    }
    return RK_OK;
}

/* ---- layers and the interaction ---- */

/* rows = 0: there must be no such tensor. */
static enum rk_status check_shape(const struct rk_layer_use *use, enum rk_tensor_part part,
                                  const struct rk_tensor_spec *tensor, uint64_t rows, uint64_t columns,
                                  struct rk_error *error)
{
    if (tensor->rows == rows && (rows == 0 || tensor->columns == columns))
        return RK_OK;
    const struct rk_tensor_use named = {.layer = *use, .part = part};
    char name[RK_TENSOR_NAME_BYTES];
    rk_tensor_use_name(&named, name);
    if (rows == 0)
        return rk_error_set(error, RK_INVALID, "%s is [%u, %u]; here, layers in %s have none", name, tensor->rows,
                            tensor->columns, rk_dense_format_name(use->layer->format));
    return rk_error_set(error, RK_INVALID, "%s is [%u, %u] where [%llu, %llu] fits", name, tensor->rows,
                        tensor->columns, (unsigned long long)rows, (unsigned long long)columns);
}

/* What belongs to the format of a layer: scales, and the range of its inputs. `in` is right already. */
static enum rk_status check_format(const struct rk_layer_use *use, uint32_t out, uint64_t in, struct rk_error *error)
{
    const struct rk_linear_spec *layer = use->layer;
    const struct rk_tensor_use weight = {.layer = *use, .part = RK_TENSOR_WEIGHT};
    char name[RK_TENSOR_NAME_BYTES];
    rk_tensor_use_name(&weight, name);
    if ((unsigned)layer->format >= RK_DENSE_FORMAT_COUNT)
        return rk_error_set(error, RK_INVALID, "%s has format %d, none of fp32, bf16, int8", name, (int)layer->format);
    const bool int8 = layer->format == RK_DENSE_INT8;
    if (int8 && in > RK_DENSE_INT8_MAX_IN)
        return rk_error_set(error, RK_INVALID, "%s is int8 with %llu inputs; its sums hold at most %u: use bf16", name,
                            (unsigned long long)in, RK_DENSE_INT8_MAX_IN);
    enum rk_status status = check_shape(use, RK_TENSOR_SCALE, &layer->scale, int8, int8 ? out : 0, error);
    if (status == RK_OK && layer->gain.rows > 0 && !int8)
        return rk_error_set(error, RK_INVALID, "%s comes with gains, which only int8 layers use", name);
    if (status == RK_OK && layer->gain.rows > 0)
        status = check_shape(use, RK_TENSOR_GAIN, &layer->gain, 1, in, error);
    if (status != RK_OK || !layer->calibrated)
        return status;
    if (!int8)
        return rk_error_set(error, RK_INVALID, "the inputs of %s have a range, which only int8 layers use", name);
    /* Comparisons are written so that NaN fails them. The step between two levels must be a number to divide by. */
    float step, inverse;
    int32_t zero;
    rk_dense_input_scale(layer->low, layer->high, &step, &inverse, &zero);
    if (!(layer->low <= 0.0f && layer->high >= 0.0f && isfinite(step) && step > 0.0f))
        return rk_error_set(error, RK_INVALID,
                            "the inputs of %s range from %g to %g; the range must be finite, not empty, and hold 0",
                            name, (double)layer->low, (double)layer->high);
    return RK_OK;
}

/* weight [out, in], bias [1, out] where there is one, and what the format asks for. */
static enum rk_status check_linear(const struct rk_layer_use *use, uint32_t out, uint64_t in, bool bias,
                                   struct rk_error *error)
{
    const struct rk_linear_spec *layer = use->layer;
    enum rk_status status = check_shape(use, RK_TENSOR_WEIGHT, &layer->weight, out, in, error);
    if (status == RK_OK)
        status = check_shape(use, RK_TENSOR_BIAS, &layer->bias, bias, bias ? out : 0, error);
    return status == RK_OK ? check_format(use, out, in, error) : status;
}

/* Each layer reads what the one before it wrote. *width: of the input; of the output afterwards. */
static enum rk_status check_mlp(const struct rk_mlp_spec *mlp, enum rk_stage stage, uint64_t *width,
                                struct rk_error *error)
{
    for (uint32_t l = 0; l < mlp->num_layers; l++) {
        const struct rk_layer_use use = {&mlp->layers[l], stage, l};
        const struct rk_tensor_use weight = {.layer = use, .part = RK_TENSOR_WEIGHT};
        const uint32_t out = use.layer->weight.rows;
        char name[RK_TENSOR_NAME_BYTES];
        if (out == 0 || out > RK_MAX_WIDTH)
            return rk_error_set(error, RK_INVALID, "%s has %u rows; 1 to %u are allowed",
                                rk_tensor_use_name(&weight, name), out, RK_MAX_WIDTH);
        enum rk_status status = check_linear(&use, out, *width, true, error);
        if (status != RK_OK)
            return status;
        *width = out;
    }
    return RK_OK;
}

static enum rk_status check_dot(const struct rk_model_spec *spec, uint32_t bottom_out, struct rk_error *error)
{
    uint32_t dim = bottom_out;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        uint32_t feature_dim = spec->tables[spec->features[f].table].embedding_dim;
        if (dim == 0)
            dim = feature_dim;
        if (feature_dim != dim)
            return rk_error_set(
                error, RK_INVALID,
                "features[%u] '%.128s' has embedding_dim %u where the dot interaction multiplies vectors of %u", f,
                spec->features[f].name, feature_dim, dim);
    }
    if (spec->interaction.format == RK_DENSE_INT8 && dim > RK_DENSE_INT8_MAX_IN)
        return rk_error_set(error, RK_INVALID,
                            "interaction.format is int8 for vectors of %u; its sums hold at most %u: use bf16", dim,
                            RK_DENSE_INT8_MAX_IN);
    return RK_OK;
}

static enum rk_status check_cross(const struct rk_interaction_spec *interaction, uint64_t width, struct rk_error *error)
{
    if (interaction->num_cross == 0 || interaction->rank == 0)
        return rk_error_set(error, RK_INVALID,
                            "interaction dcn_v2 has %u layers of rank %u; it needs at least 1 of each",
                            interaction->num_cross, interaction->rank);
    if (interaction->rank > RK_MAX_WIDTH)
        return rk_error_set(error, RK_INVALID, "interaction.rank is %u, above the limit of %u", interaction->rank,
                            RK_MAX_WIDTH);
    enum rk_status status = RK_OK;
    for (uint32_t k = 0; status == RK_OK && k < interaction->num_cross; k++) {
        const struct rk_cross_spec *cross = &interaction->cross[k];
        const struct rk_layer_use v = {&cross->v, RK_STAGE_CROSS_V, k}, w = {&cross->w, RK_STAGE_CROSS_W, k};
        status = check_linear(&v, interaction->rank, width, false, error);
        if (status == RK_OK)
            status = check_linear(&w, (uint32_t)width, interaction->rank, true, error);
        if (status == RK_OK && cross->v.format != cross->w.format)
            status = rk_error_set(error, RK_INVALID, "interaction.cross[%u]: v is %s and w %s; a layer has one format",
                                  k, rk_dense_format_name(cross->v.format), rk_dense_format_name(cross->w.format));
    }
    return status;
}

/* Sums and counts in 64 bits, so that they are right before anything about the spec is known. */
struct wide_widths {
    uint64_t dense, bottom_out, pooled, num_vectors, num_pairs, top_in;
};

static struct wide_widths count_widths(const struct rk_model_spec *spec)
{
    struct wide_widths w = {.dense = (uint64_t)spec->num_context_dense + spec->num_candidate_dense};
    const struct rk_mlp_spec *bottom = &spec->bottom;
    w.bottom_out = bottom->num_layers > 0 ? bottom->layers[bottom->num_layers - 1].weight.rows : w.dense;
    for (uint32_t f = 0; f < spec->num_features; f++)
        w.pooled += spec->tables[spec->features[f].table].embedding_dim;
    w.num_vectors = spec->num_features + (w.bottom_out > 0);
    w.num_pairs = w.num_vectors * (w.num_vectors + 1) / 2 - (spec->interaction.self ? 0 : w.num_vectors);
    w.top_in = w.bottom_out + (spec->interaction.op == RK_INTERACTION_DOT ? w.num_pairs : w.pooled);
    return w;
}

static enum rk_status check_interaction(const struct rk_model_spec *spec, const struct wide_widths *w,
                                        struct rk_error *error)
{
    const struct rk_interaction_spec *interaction = &spec->interaction;
    if (w->pooled > RK_MAX_WIDTH || w->top_in > RK_MAX_WIDTH)
        return rk_error_set(error, RK_INVALID,
                            "the features are %llu wide together and the interaction %llu; at most %u are allowed",
                            (unsigned long long)w->pooled, (unsigned long long)w->top_in, RK_MAX_WIDTH);
    if (w->top_in == 0)
        return rk_error_set(error, RK_INVALID,
                            "the interaction of %llu vectors is empty: the top MLP would read nothing",
                            (unsigned long long)w->num_vectors);
    if (interaction->op != RK_INTERACTION_DCN_V2 && interaction->num_cross != 0)
        return rk_error_set(error, RK_INVALID, "interaction has %u cross layers, which only dcn_v2 reads",
                            interaction->num_cross);
    if ((unsigned)interaction->format >= RK_DENSE_FORMAT_COUNT)
        return rk_error_set(error, RK_INVALID, "interaction.format is %d, none of fp32, bf16, int8",
                            (int)interaction->format);
    if (interaction->op != RK_INTERACTION_DOT && interaction->format != RK_DENSE_F32)
        return rk_error_set(error, RK_INVALID, "interaction.format is %s, which only dot knows",
                            rk_dense_format_name(interaction->format));
    switch (interaction->op) {
    case RK_INTERACTION_DOT:
        if (interaction->pairs != RK_PAIRS_TRIL && interaction->pairs != RK_PAIRS_TRIU)
            return rk_error_set(error, RK_INVALID, "interaction.pairs is %d, neither tril nor triu",
                                (int)interaction->pairs);
        return check_dot(spec, (uint32_t)w->bottom_out, error);
    case RK_INTERACTION_CAT:
        return RK_OK;
    case RK_INTERACTION_DCN_V2:
        return check_cross(interaction, w->top_in, error);
    }
    return rk_error_set(error, RK_INVALID, "interaction.op is %d, none of dot, cat, dcn_v2", (int)interaction->op);
}

static enum rk_status check_layers(const struct rk_model_spec *spec, struct rk_error *error)
{
    const struct wide_widths widths = count_widths(spec);
    uint64_t width = widths.dense;
    if (width == 0 && spec->bottom.num_layers > 0)
        return rk_error_set(error, RK_INVALID, "bottom_mlp has %u layers but there are no dense inputs for it",
                            spec->bottom.num_layers);
    enum rk_status status = check_mlp(&spec->bottom, RK_STAGE_BOTTOM, &width, error);
    if (status == RK_OK)
        status = check_interaction(spec, &widths, error);
    if (status != RK_OK)
        return status;
    if (spec->top.num_layers == 0)
        return rk_error_set(error, RK_INVALID, "top_mlp has no layers; its last one gives the logits");
    if (spec->num_heads == 0)
        return rk_error_set(error, RK_INVALID, "heads is empty; every model gives at least one score");
    width = widths.top_in;
    status = check_mlp(&spec->top, RK_STAGE_TOP, &width, error);
    if (status == RK_OK && width != spec->num_heads)
        status =
            rk_error_set(error, RK_INVALID, "top_mlp[%u].weight has %llu rows for %u heads; it needs one row per head",
                         spec->top.num_layers - 1, (unsigned long long)width, spec->num_heads);
    return status;
}

/* ---- what becomes of the logits ---- */

static enum rk_status check_answers(const struct rk_model_spec *spec, struct rk_error *error)
{
    for (uint32_t h = 0; spec->calibration != NULL && h < spec->num_heads; h++) {
        const struct rk_calibration *c = &spec->calibration[h];
        if (!(isfinite(c->scale) && c->scale > 0.0f && isfinite(c->shift)))
            return rk_error_set(error, RK_INVALID,
                                "calibration of head '%.128s': scale is %g and shift %g; both must be finite, and "
                                "scale above 0",
                                spec->heads[h], (double)c->scale, (double)c->shift);
    }
    enum rk_status status = RK_OK;
    for (uint32_t v = 0; status == RK_OK && v < spec->num_value_models; v++) {
        char what[40];
        snprintf(what, sizeof what, "value_models[%u]", v);
        status = rk_value_check(&spec->value_models[v], what, spec->heads, spec->num_heads, error);
    }
    return status;
}

/* ---- the weights file ---- */

static int compare_offsets(const void *a, const void *b)
{
    uint64_t first = ((const struct rk_tensor_use *)a)->tensor->offset,
             second = ((const struct rk_tensor_use *)b)->tensor->offset;
    return (first > second) - (first < second);
}

/* Tensors follow one another: the first at byte 0, each at the first multiple of 64 past the one before it, the file
 * ending with the last one. So they cannot overlap, and no byte of the file is unaccounted for. */
static enum rk_status check_weights(const struct rk_model_spec *spec, struct rk_error *error)
{
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t count = rk_model_spec_tensors(spec, uses);
    qsort(uses, count, sizeof *uses, compare_offsets);
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t offset = uses[i].tensor->offset, bytes = uses[i].bytes;
        char name[RK_TENSOR_NAME_BYTES];
        rk_tensor_use_name(&uses[i], name);
        if (offset % TENSOR_ALIGNMENT != 0)
            return rk_error_set(error, RK_INVALID, "%s is at offset %llu, not a multiple of %d", name,
                                (unsigned long long)offset, TENSOR_ALIGNMENT);
        if (offset < end)
            return rk_error_set(error, RK_INVALID, "%s is at offset %llu, overlapping a tensor that ends at %llu", name,
                                (unsigned long long)offset, (unsigned long long)end);
        if (offset - end >= TENSOR_ALIGNMENT)
            return rk_error_set(error, RK_INVALID, "%s is at offset %llu: a hole after the tensor that ends at %llu",
                                name, (unsigned long long)offset, (unsigned long long)end);
        if (!rk_checked_add(offset, bytes, &end) || end > spec->weights_bytes)
            return rk_error_set(error, RK_INVALID,
                                "%s takes %llu bytes at offset %llu, past the end of '%.128s' at %llu", name,
                                (unsigned long long)bytes, (unsigned long long)offset, spec->weights_file,
                                (unsigned long long)spec->weights_bytes);
    }
    if (spec->weights_bytes != end)
        return rk_error_set(error, RK_INVALID, "'%.128s' has %llu bytes where its tensors end at %llu: trailing bytes",
                            spec->weights_file, (unsigned long long)spec->weights_bytes, (unsigned long long)end);
    return RK_OK;
}

static enum rk_status check_counts(const struct rk_model_spec *spec, struct rk_error *error)
{
    const struct {
        uint64_t count;
        uint32_t most;
        const char *what;
    } counts[] = {
        {spec->num_tables, RK_MAX_TABLES, "tables"},
        {spec->num_features, RK_MAX_FEATURES, "features"},
        {spec->num_heads, RK_MAX_HEADS, "heads"},
        {spec->num_value_models, RK_MAX_VALUES, "value_models"},
        {spec->bottom.num_layers, RK_MAX_LAYERS, "bottom_mlp layers"},
        {spec->top.num_layers, RK_MAX_LAYERS, "top_mlp layers"},
        {spec->interaction.num_cross, RK_MAX_LAYERS, "interaction layers"},
        {(uint64_t)spec->num_context_dense + spec->num_candidate_dense, RK_MAX_WIDTH, "dense inputs"},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        enum rk_status status = check_count(counts[i].count, counts[i].most, counts[i].what, error);
        if (status != RK_OK)
            return status;
    }
    const char *file = spec->weights_file;
    if (file == NULL || file[0] == '\0' || strchr(file, '/') != NULL || strcmp(file, ".") == 0 ||
        strcmp(file, "..") == 0)
        return rk_error_set(error, RK_INVALID, "weights.file is '%.128s', not a plain file name",
                            file != NULL ? file : "");
    return RK_OK;
}

enum rk_status rk_model_spec_check(const struct rk_model_spec *spec, struct rk_error *error)
{
    static enum rk_status (*const checks[])(const struct rk_model_spec *, struct rk_error *) = {
        check_counts,   check_names,  check_tables,  check_files,
        check_features, check_layers, check_answers, check_weights,
    };
    enum rk_status status = RK_OK;
    for (size_t i = 0; status == RK_OK && i < sizeof checks / sizeof *checks; i++)
        status = checks[i](spec, error);
    return status;
}

struct rk_model_widths rk_model_spec_widths(const struct rk_model_spec *spec)
{
    const struct wide_widths w = count_widths(spec);
    return (struct rk_model_widths){
        .dense = (uint32_t)w.dense,
        .bottom_out = (uint32_t)w.bottom_out,
        .pooled = (uint32_t)w.pooled,
        .num_vectors = (uint32_t)w.num_vectors,
        .top_in = (uint32_t)w.top_in,
    };
}
