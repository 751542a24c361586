/* The manifest as a jansson tree, read and written. What config.json shares with it is in spec_json.c; here is what
 * only a finished package has: offsets, shards, checksums, golden files. One thread. */
#include "model/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "model/package.h"
#include "model/spec_json.h"

/* ---- reading ---- */

static bool read_checksum(const struct rk_json_at *at, uint64_t *xxh3)
{
    struct rk_json_at field;
    if (!rk_json_get(at, "xxh3", &field))
        return false;
    const char *text = json_string_value(field.value);
    uint64_t value = 0;
    size_t i = 0;
    for (; text != NULL && i < 16; i++) {
        const char *digits = "0123456789abcdef", *digit = text[i] != '\0' ? strchr(digits, text[i]) : NULL;
        if (digit == NULL)
            break;
        value = value << 4 | (uint64_t)(digit - digits);
    }
    if (i < 16 || text[16] != '\0')
        return rk_json_fail(&field, RK_CORRUPT, "must be a string of 16 hexadecimal digits (0-9a-f)");
    *xxh3 = value;
    return true;
}

/* A file name stays in the package's directory. */
static bool read_file_name(const struct rk_json_at *at, const char **file)
{
    struct rk_json_at field;
    if (!rk_json_get(at, "file", &field) || !rk_json_string(&field, file))
        return false;
    if (strchr(*file, '/') != NULL || strcmp(*file, ".") == 0 || strcmp(*file, "..") == 0)
        return rk_json_fail(&field, RK_CORRUPT, "is '%.100s', must be the name of a file in the package", *file);
    return true;
}

static bool read_file_ref(const struct rk_json_at *parent, const char *key, uint64_t max_bytes, struct rk_file_ref *ref)
{
    static const char *const keys[] = {"file", "bytes", "xxh3", NULL};
    struct rk_json_at at, field;
    return rk_json_get(parent, key, &at) && rk_json_object(&at, keys) && read_file_name(&at, &ref->file) &&
           rk_json_get(&at, "bytes", &field) && rk_json_uint(&field, 0, max_bytes, &ref->bytes) &&
           read_checksum(&at, &ref->xxh3);
}

static bool read_shard(const struct rk_json_at *at, struct rk_shard_spec *shard)
{
    static const char *const keys[] = {"file", "first_row", "num_rows", "xxh3", NULL};
    struct rk_json_at field;
    return rk_json_object(at, keys) && read_file_name(at, &shard->file) && rk_json_get(at, "first_row", &field) &&
           rk_json_uint(&field, 0, RK_MAX_ROWS, &shard->first_row) && rk_json_get(at, "num_rows", &field) &&
           rk_json_uint(&field, 1, RK_MAX_ROWS, &shard->num_rows) && read_checksum(at, &shard->xxh3);
}

static bool read_table(const struct rk_json_at *at, struct rk_table_spec *table)
{
    static const char *const keys[] = {"name", "rows", "dim", "format", "out_of_range", "default_row", "shards", NULL};
    struct rk_json_at field;
    size_t count;
    if (!rk_json_object(at, keys) || !rk_spec_json_table(at, table) || !rk_json_get(at, "format", &field))
        return false;
    const char *formats[RK_ROW_FORMAT_COUNT + 1] = {NULL};
    for (int i = 0; i < RK_ROW_FORMAT_COUNT; i++)
        formats[i] = rk_row_format_name((enum rk_row_format)i);
    unsigned format;
    if (!rk_json_choice(&field, formats, &format))
        return false;
    table->format = (enum rk_row_format)format;
    if (!rk_json_get(at, "shards", &field) || !rk_json_array(&field, 1, RK_MAX_SHARDS, &count))
        return false;
    struct rk_shard_spec *shards = rk_json_alloc(at->doc, count, sizeof *shards);
    if (shards == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&field, i);
        if (!read_shard(&item, &shards[i]))
            return false;
    }
    table->shards = shards;
    table->num_shards = (uint32_t)count;
    return true;
}

static bool read_tables(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    struct rk_json_at at;
    size_t count;
    if (!rk_json_get(root, "tables", &at) || !rk_json_array(&at, 0, RK_MAX_TABLES, &count))
        return false;
    struct rk_table_spec *tables = rk_json_alloc(at.doc, count, sizeof *tables);
    if (tables == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&at, i);
        if (!read_table(&item, &tables[i]))
            return false;
    }
    spec->tables = tables;
    spec->num_tables = (uint32_t)count;
    return true;
}

/* shape has one item for a vector, two for a matrix. */
static bool read_tensor(const struct rk_json_at *parent, const char *key, size_t rank, struct rk_tensor_spec *tensor)
{
    static const char *const keys[] = {"shape", "offset", NULL};
    struct rk_json_at at, field;
    size_t count;
    uint64_t sizes[2] = {1, 1};
    if (!rk_json_get(parent, key, &at) || !rk_json_object(&at, keys) || !rk_json_get(&at, "shape", &field) ||
        !rk_json_array(&field, rank, rank, &count))
        return false;
    for (size_t i = 0; i < rank; i++) {
        struct rk_json_at item = rk_json_item(&field, i);
        if (!rk_json_uint(&item, 1, RK_MAX_WIDTH, &sizes[2 - rank + i]))
            return false;
    }
    tensor->rows = (uint32_t)sizes[0];
    tensor->columns = (uint32_t)sizes[1];
    return rk_json_get(&at, "offset", &field) && rk_json_uint(&field, 0, INT64_MAX, &tensor->offset);
}

static bool read_mlp(const struct rk_json_at *root, const char *key, size_t min_layers, struct rk_mlp_spec *mlp)
{
    static const char *const keys[] = {"weight", "bias", NULL};
    struct rk_json_at at;
    size_t count;
    if (!rk_json_get(root, key, &at) || !rk_json_array(&at, min_layers, RK_MAX_LAYERS, &count))
        return false;
    struct rk_linear_spec *layers = rk_json_alloc(at.doc, count, sizeof *layers);
    if (layers == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&at, i);
        if (!rk_json_object(&item, keys) || !read_tensor(&item, "weight", 2, &layers[i].weight) ||
            !read_tensor(&item, "bias", 1, &layers[i].bias))
            return false;
    }
    *mlp = (struct rk_mlp_spec){.layers = layers, .num_layers = (uint32_t)count};
    return true;
}

static bool read_cross(const struct rk_json_at *at, struct rk_interaction_spec *interaction)
{
    static const char *const keys[] = {"op", "rank", "layers", NULL};
    static const char *const layer_keys[] = {"v", "w", "bias", NULL};
    struct rk_json_at field;
    uint64_t rank;
    size_t count;
    if (!rk_json_object(at, keys) || !rk_json_get(at, "rank", &field) ||
        !rk_json_uint(&field, 1, RK_MAX_WIDTH, &rank) || !rk_json_get(at, "layers", &field) ||
        !rk_json_array(&field, 1, RK_MAX_LAYERS, &count))
        return false;
    struct rk_cross_spec *cross = rk_json_alloc(at->doc, count, sizeof *cross);
    if (cross == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&field, i);
        if (!rk_json_object(&item, layer_keys) || !read_tensor(&item, "v", 2, &cross[i].v.weight) ||
            !read_tensor(&item, "w", 2, &cross[i].w.weight) || !read_tensor(&item, "bias", 1, &cross[i].w.bias))
            return false;
    }
    interaction->cross = cross;
    interaction->num_cross = (uint32_t)count;
    interaction->rank = (uint32_t)rank;
    return true;
}

static bool read_interaction(const struct rk_json_at *root, struct rk_interaction_spec *interaction)
{
    struct rk_json_at at;
    if (!rk_spec_json_interaction(root, &at, interaction))
        return false;
    return interaction->op != RK_INTERACTION_DCN_V2 || read_cross(&at, interaction);
}

/* Comes first: a newer version may mean anything by the fields that follow. */
static bool read_format(const struct rk_json_at *root)
{
    static const char *const keys[] = {"name", "version", NULL};
    struct rk_json_at at, field;
    const char *name;
    uint64_t version;
    if (!rk_json_get(root, "format", &at) || !rk_json_get(&at, "name", &field) || !rk_json_string(&field, &name))
        return false;
    if (strcmp(name, RK_MANIFEST_FORMAT) != 0)
        return rk_json_fail(&field, RK_CORRUPT, "is '%.64s', must be '" RK_MANIFEST_FORMAT "'", name);
    if (!rk_json_get(&at, "version", &field) || !rk_json_uint(&field, 1, INT64_MAX, &version))
        return false;
    if (version > RK_MANIFEST_VERSION)
        return rk_json_fail(&field, RK_UNSUPPORTED,
                            "is %" PRIu64 ", newer than this program, which reads up to version %u: upgrade it",
                            version, RK_MANIFEST_VERSION);
    return rk_json_object(&at, keys);
}

static bool read_manifest(const struct rk_json_at *root, struct rk_manifest *manifest)
{
    static const char *const keys[] = {"format",     "name",        "dense",   "tables", "features", "weights",
                                       "bottom_mlp", "interaction", "top_mlp", "heads",  "golden",   NULL};
    static const char *const golden_keys[] = {"requests", "scores", NULL};
    struct rk_model_spec *spec = &manifest->spec;
    struct rk_json_at golden;
    struct rk_file_ref weights;
    if (!read_format(root) || !rk_json_object(root, keys) || !rk_spec_json_names(root, spec) ||
        !read_tables(root, spec) || !rk_spec_json_features(root, spec) ||
        !read_mlp(root, "bottom_mlp", 0, &spec->bottom) || !read_interaction(root, &spec->interaction) ||
        !read_mlp(root, "top_mlp", 1, &spec->top) || !read_file_ref(root, "weights", INT64_MAX, &weights) ||
        !rk_json_get(root, "golden", &golden) || !rk_json_object(&golden, golden_keys) ||
        !read_file_ref(&golden, "requests", RK_GOLDEN_MAX_BYTES, &manifest->golden_requests) ||
        !read_file_ref(&golden, "scores", RK_GOLDEN_MAX_BYTES, &manifest->golden_scores))
        return false;
    spec->weights_file = weights.file;
    spec->weights_bytes = weights.bytes;
    spec->weights_xxh3 = weights.xxh3;
    return true;
}

enum rk_status rk_manifest_parse(const char *text, size_t length, struct rk_arena *arena, struct rk_manifest *manifest,
                                 struct rk_error *error)
{
    struct rk_error local = {0};
    const struct rk_json_doc doc = {.file = RK_PACKAGE_MANIFEST, .arena = arena, .error = &local};
    *manifest = (struct rk_manifest){0};
    json_t *tree = rk_json_load(&doc, text, length);
    if (tree != NULL) {
        const struct rk_json_at root = rk_json_root(&doc, tree);
        if (read_manifest(&root, manifest) && rk_model_spec_check(&manifest->spec, &local) != RK_OK)
            rk_error_prefix(&local, RK_PACKAGE_MANIFEST);
    }
    json_decref(tree);
    if (local.status == RK_INVALID)
        local.status = RK_CORRUPT;
    return local.status == RK_OK ? RK_OK : rk_error_set(error, local.status, "%s", local.text);
}

/* ---- writing ---- */

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

static json_t *mlp(const struct rk_mlp_spec *spec, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < spec->num_layers; i++) {
        json_t *layer = json_object();
        put(layer, "weight", tensor(&spec->layers[i].weight, false, failed), failed);
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
    }
    if (spec->op == RK_INTERACTION_DCN_V2) {
        json_t *layers = json_array();
        for (uint32_t k = 0; k < spec->num_cross; k++) {
            json_t *layer = json_object();
            put(layer, "v", tensor(&spec->cross[k].v.weight, false, failed), failed);
            put(layer, "w", tensor(&spec->cross[k].w.weight, false, failed), failed);
            put(layer, "bias", tensor(&spec->cross[k].w.bias, true, failed), failed);
            add(layers, layer, failed);
        }
        put(object, "rank", number(spec->rank), failed);
        put(object, "layers", layers, failed);
    }
    return object;
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
    put(format, "version", number(RK_MANIFEST_VERSION), &failed);
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
    put(root, "weights", file_ref(&weights, &failed), &failed);
    put(golden, "requests", file_ref(&manifest->golden_requests, &failed), &failed);
    put(golden, "scores", file_ref(&manifest->golden_scores, &failed), &failed);
    put(root, "golden", golden, &failed);
    char *text = failed ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}

void rk_manifest_sidecar(const char *text, size_t length, char sidecar[RK_SIDECAR_BYTES + 1])
{
    snprintf(sidecar, RK_SIDECAR_BYTES + 1, "%016" PRIx64 "  " RK_PACKAGE_MANIFEST "\n", XXH3_64bits(text, length));
}
