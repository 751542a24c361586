/* Writing the manifest as a jansson tree, with the keys in the order of FORMAT.md. One thread. */
#include <float.h>
#include <inttypes.h>
#include <stdio.h>

#include "model/answer_json.h"
#include "model/manifest.h"
#include "model/spec_json.h"

/* jansson's "new" setters take a NULL value as a failure and report it; one flag collects them all. */
static void put(json_t *object, const char *key, json_t *value, bool *failed)
{
    *failed |= json_object_set_new(object, key, value) != 0;
}

static void add(json_t *array, json_t *value, bool *failed)
{
    *failed |= json_array_append_new(array, value) != 0;
}

static json_t *checksum_text(uint64_t xxh3)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, xxh3);
    return json_string(text);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *strings(const char *const *list, uint32_t count, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < count; i++)
        add(array, json_string(list[i]), failed);
    return array;
}

static json_t *file_ref(const struct rk_file_ref *ref, bool *failed)
{
    json_t *object = json_object();
    put(object, "file", json_string(ref->file), failed);
    put(object, "bytes", number(ref->bytes), failed);
    put(object, "xxh3", checksum_text(ref->xxh3), failed);
    return object;
}

static json_t *tensor(const struct rk_tensor_spec *spec, bool vector, bool *failed)
{
    json_t *object = json_object(), *shape = json_array();
    if (!vector)
        add(shape, number(spec->rows), failed);
    add(shape, number(spec->columns), failed);
    put(object, "shape", shape, failed);
    put(object, "offset", number(spec->offset), failed);
    return object;
}

static json_t *kept(const struct rk_kept_spec *spec, bool *failed)
{
    json_t *object = json_object();
    put(object, "file", json_string(spec->file), failed);
    put(object, "rows", number(spec->num_rows), failed);
    put(object, "xxh3", checksum_text(spec->xxh3), failed);
    return object;
}

static json_t *tables(const struct rk_model_spec *spec, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_table_spec *table = &spec->tables[t];
        json_t *object = json_object(), *shards = json_array();
        put(object, "name", json_string(table->name), failed);
        put(object, "rows", number(table->num_embeddings), failed);
        put(object, "dim", number(table->embedding_dim), failed);
        put(object, "format", json_string(rk_row_format_name(table->format)), failed);
        put(object, "out_of_range", json_string(rk_out_of_range_name(table->out_of_range)), failed);
        if (table->out_of_range == RK_OUT_OF_RANGE_DEFAULT)
            put(object, "default_row", number(table->default_row), failed);
        if (table->kept.file != NULL)
            put(object, "kept", kept(&table->kept, failed), failed);
        for (uint32_t s = 0; s < table->num_shards; s++) {
            json_t *shard = json_object();
            put(shard, "file", json_string(table->shards[s].file), failed);
            put(shard, "first_row", number(table->shards[s].first_row), failed);
            put(shard, "num_rows", number(table->shards[s].num_rows), failed);
            put(shard, "xxh3", checksum_text(table->shards[s].xxh3), failed);
            add(shards, shard, failed);
        }
        put(object, "shards", shards, failed);
        add(array, object, failed);
    }
    return array;
}

static json_t *features(const struct rk_model_spec *spec, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_feature_spec *feature = &spec->features[f];
        json_t *object = json_object();
        put(object, "name", json_string(feature->name), failed);
        put(object, "table", json_string(spec->tables[feature->table].name), failed);
        put(object, "side", json_string(rk_side_names[feature->side]), failed);
        put(object, "pooling", json_string(rk_pooling_names[feature->pooling]), failed);
        put(object, "weighted", json_boolean(feature->weighted), failed);
        add(array, object, failed);
    }
    return array;
}

/* A layer's own fields: its parts under the names given. */
static void put_linear(json_t *object, const struct rk_linear_spec *layer, const char *weight, const char *scale,
                       const char *input, bool *failed)
{
    put(object, weight, tensor(&layer->weight, false, failed), failed);
    if (layer->format == RK_DENSE_INT8)
        put(object, scale, tensor(&layer->scale, true, failed), failed);
    if (layer->calibrated) {
        json_t *range = json_array();
        add(range, json_real((double)layer->low), failed);
        add(range, json_real((double)layer->high), failed);
        put(object, input, range, failed);
    }
}

static void put_format(json_t *object, enum rk_dense_format format, bool *failed)
{
    if (format != RK_DENSE_F32)
        put(object, "format", json_string(rk_dense_format_name(format)), failed);
}

static json_t *mlp(const struct rk_mlp_spec *spec, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        json_t *layer = json_object();
        put_format(layer, spec->layers[i].format, failed);
        put_linear(layer, &spec->layers[i], "weight", "scale", "input", failed);
        if (spec->layers[i].gain.rows > 0)
            put(layer, "gain", tensor(&spec->layers[i].gain, true, failed), failed);
        put(layer, "bias", tensor(&spec->layers[i].bias, true, failed), failed);
        add(array, layer, failed);
    }
    return array;
}

static json_t *interaction(const struct rk_interaction_spec *spec, bool *failed)
{
    json_t *object = json_object();
    put(object, "op", json_string(rk_interaction_names[spec->op]), failed);
    if (spec->op == RK_INTERACTION_DOT) {
        put(object, "pairs", json_string(rk_pairs_names[spec->pairs]), failed);
        put(object, "self", json_boolean(spec->self), failed);
        put_format(object, spec->format, failed);
    }
    if (spec->op == RK_INTERACTION_DCN_V2) {
        json_t *layers = json_array();
        for (uint32_t k = 0; k < spec->num_cross; k++) {
            json_t *layer = json_object();
            put_format(layer, spec->cross[k].w.format, failed);
            put_linear(layer, &spec->cross[k].v, "v", "v_scale", "v_input", failed);
            put_linear(layer, &spec->cross[k].w, "w", "w_scale", "w_input", failed);
            put(layer, "bias", tensor(&spec->cross[k].w.bias, true, failed), failed);
            add(layers, layer, failed);
        }
        put(object, "rank", number(spec->rank), failed);
        put(object, "layers", layers, failed);
    }
    return object;
}

/* The lowest version that can say it. */
static unsigned version_of(const struct rk_model_spec *spec)
{
    if (spec->calibration != NULL || spec->num_value_models > 0)
        return 3;
    struct rk_layer_use layers[RK_MAX_LAYER_USES];
    const size_t num_layers = rk_model_spec_layers(spec, layers);
    bool newer = spec->interaction.format != RK_DENSE_F32;
    for (size_t l = 0; l < num_layers; l++)
        newer |= layers[l].layer->format != RK_DENSE_F32;
    for (uint32_t t = 0; t < spec->num_tables; t++)
        newer |= spec->tables[t].format != RK_ROWS_F32 || spec->tables[t].kept.file != NULL;
    return newer ? 2 : 1;
}

char *rk_manifest_print(const struct rk_manifest *manifest)
{
    const struct rk_model_spec *spec = &manifest->spec;
    const struct rk_file_ref weights = {.file = spec->weights_file,
                                        .bytes = spec->weights_bytes,
                                        .xxh3 = spec->weights_xxh3};
    bool failed = false;
    json_t *root = json_object(), *format = json_object(), *dense = json_object(), *golden = json_object();
    put(format, "name", json_string(RK_MANIFEST_FORMAT), &failed);
    put(format, "version", number(version_of(spec)), &failed);
    put(root, "format", format, &failed);
    put(root, "name", json_string(spec->name), &failed);
    put(dense, "context", strings(spec->context_dense, spec->num_context_dense, &failed), &failed);
    put(dense, "candidate", strings(spec->candidate_dense, spec->num_candidate_dense, &failed), &failed);
    put(root, "dense", dense, &failed);
    put(root, "tables", tables(spec, &failed), &failed);
    put(root, "features", features(spec, &failed), &failed);
    put(root, "bottom_mlp", mlp(&spec->bottom, &failed), &failed);
    put(root, "interaction", interaction(&spec->interaction, &failed), &failed);
    put(root, "top_mlp", mlp(&spec->top, &failed), &failed);
    put(root, "heads", strings(spec->heads, spec->num_heads, &failed), &failed);
    failed |= !rk_answer_json_print(spec, root);
    put(root, "weights", file_ref(&weights, &failed), &failed);
    put(golden, "requests", file_ref(&manifest->golden_requests, &failed), &failed);
    put(golden, "scores", file_ref(&manifest->golden_scores, &failed), &failed);
    put(root, "golden", golden, &failed);
    char *text = failed ? NULL : json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(FLT_DECIMAL_DIG));
    json_decref(root);
    return text;
}
