/* Reading the manifest, from text to a checked spec. What config.json shares with it is in spec_json.c; here is what
 * only a finished package has: formats, offsets, shards, checksums, golden files. One thread. */
#include "model/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "model/answer_json.h"
#include "model/package.h"
#include "model/spec_json.h"

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

static bool read_row_format(const struct rk_json_at *at, unsigned version, enum rk_row_format *format)
{
    const char *names[RK_ROW_FORMAT_COUNT + 1] = {NULL};
    struct rk_json_at field;
    unsigned choice;
    for (int i = 0; i < (version > 1 ? RK_ROW_FORMAT_COUNT : 1); i++)
        names[i] = rk_row_format_name((enum rk_row_format)i);
    if (!rk_json_get(at, "format", &field) || !rk_json_choice(&field, names, &choice))
        return false;
    *format = (enum rk_row_format)choice;
    return true;
}

static bool read_kept(const struct rk_json_at *table_at, uint64_t num_embeddings, struct rk_kept_spec *kept)
{
    static const char *const keys[] = {"file", "rows", "xxh3", NULL};
    struct rk_json_at at, field;
    return !rk_json_find(table_at, "kept", &at) ||
           (rk_json_object(&at, keys) && read_file_name(&at, &kept->file) && rk_json_get(&at, "rows", &field) &&
            rk_json_uint(&field, 0, num_embeddings, &kept->num_rows) && read_checksum(&at, &kept->xxh3));
}

static bool read_table(const struct rk_json_at *at, unsigned version, struct rk_table_spec *table)
{
    static const char *const keys[] = {"name",        "rows",   "dim",  "format", "out_of_range",
                                       "default_row", "shards", "kept", NULL};
    static const char *const keys_1[] = {"name",         "rows",        "dim",    "format",
                                         "out_of_range", "default_row", "shards", NULL};
    struct rk_json_at field;
    size_t count;
    if (!rk_json_object(at, version > 1 ? keys : keys_1) || !rk_spec_json_table(at, table) ||
        !read_row_format(at, version, &table->format) || !read_kept(at, table->num_embeddings, &table->kept))
        return false;
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

static bool read_tables(const struct rk_json_at *root, unsigned version, struct rk_model_spec *spec)
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
        if (!read_table(&item, version, &tables[i]))
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

/* What a linear layer's parts are called. */
struct layer_keys {
    const char *weight, *bias, *scale, *input, *gain;
};
static const struct layer_keys mlp_keys = {"weight", "bias", "scale", "input", "gain"},
                               v_keys = {"v", NULL, "v_scale", "v_input", NULL},
                               w_keys = {"w", "bias", "w_scale", "w_input", NULL};

/* A range [low, high]. What it may hold is checked with the spec. */
static bool read_input(const struct rk_json_at *at, struct rk_linear_spec *layer)
{
    size_t count;
    if (!rk_json_array(at, 2, 2, &count))
        return false;
    const struct rk_json_at low = rk_json_item(at, 0), high = rk_json_item(at, 1);
    layer->calibrated = true;
    return rk_json_float(&low, &layer->low) && rk_json_float(&high, &layer->high);
}

/* The layer's own fields of the object; the caller has checked that there are no strange ones. */
static bool read_linear(const struct rk_json_at *at, const struct layer_keys *keys, struct rk_linear_spec *layer)
{
    struct rk_json_at field;
    if (!rk_spec_json_dense_format(at, &layer->format) || !read_tensor(at, keys->weight, 2, &layer->weight) ||
        (keys->bias != NULL && !read_tensor(at, keys->bias, 1, &layer->bias)))
        return false;
    if (layer->format == RK_DENSE_INT8)
        return read_tensor(at, keys->scale, 1, &layer->scale) &&
               (!rk_json_find(at, keys->input, &field) || read_input(&field, layer)) &&
               (keys->gain == NULL || !rk_json_find(at, keys->gain, &field) ||
                read_tensor(at, keys->gain, 1, &layer->gain));
    if (rk_json_find(at, keys->scale, &field) || rk_json_find(at, keys->input, &field) ||
        (keys->gain != NULL && rk_json_find(at, keys->gain, &field)))
        return rk_json_fail(&field, RK_CORRUPT, "has a meaning only with format 'int8'");
    return true;
}

static bool read_mlp(const struct rk_json_at *root, unsigned version, const char *key, size_t min_layers,
                     struct rk_mlp_spec *mlp)
{
    static const char *const keys[] = {"weight", "bias", "format", "scale", "input", "gain", NULL};
    static const char *const keys_1[] = {"weight", "bias", NULL};
    struct rk_json_at at;
    size_t count;
    if (!rk_json_get(root, key, &at) || !rk_json_array(&at, min_layers, RK_MAX_LAYERS, &count))
        return false;
    struct rk_linear_spec *layers = rk_json_alloc(at.doc, count, sizeof *layers);
    if (layers == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&at, i);
        if (!rk_json_object(&item, version > 1 ? keys : keys_1) || !read_linear(&item, &mlp_keys, &layers[i]))
            return false;
    }
    *mlp = (struct rk_mlp_spec){.layers = layers, .num_layers = (uint32_t)count};
    return true;
}

static bool read_cross(const struct rk_json_at *at, unsigned version, struct rk_interaction_spec *interaction)
{
    static const char *const keys[] = {"op", "rank", "layers", NULL};
    static const char *const layer_keys[] = {"v",       "w",       "bias",    "format", "v_scale",
                                             "w_scale", "v_input", "w_input", NULL};
    static const char *const layer_keys_1[] = {"v", "w", "bias", NULL};
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
        if (!rk_json_object(&item, version > 1 ? layer_keys : layer_keys_1) ||
            !read_linear(&item, &v_keys, &cross[i].v) || !read_linear(&item, &w_keys, &cross[i].w))
            return false;
    }
    interaction->cross = cross;
    interaction->num_cross = (uint32_t)count;
    interaction->rank = (uint32_t)rank;
    return true;
}

static bool read_interaction(const struct rk_json_at *root, unsigned version, struct rk_interaction_spec *interaction)
{
    struct rk_json_at at;
    if (!rk_spec_json_interaction(root, version > 1, &at, interaction))
        return false;
    return interaction->op != RK_INTERACTION_DCN_V2 || read_cross(&at, version, interaction);
}

/* Comes first: a newer version may mean anything by the fields that follow. */
static bool read_format(const struct rk_json_at *root, unsigned *version)
{
    static const char *const keys[] = {"name", "version", NULL};
    struct rk_json_at at, field;
    const char *name;
    uint64_t number;
    if (!rk_json_get(root, "format", &at) || !rk_json_get(&at, "name", &field) || !rk_json_string(&field, &name))
        return false;
    if (strcmp(name, RK_MANIFEST_FORMAT) != 0)
        return rk_json_fail(&field, RK_CORRUPT, "is '%.64s', must be '" RK_MANIFEST_FORMAT "'", name);
    if (!rk_json_get(&at, "version", &field) || !rk_json_uint(&field, 1, INT64_MAX, &number))
        return false;
    if (number > RK_MANIFEST_VERSION)
        return rk_json_fail(&field, RK_UNSUPPORTED,
                            "is %" PRIu64 ", newer than this program, which reads up to version %u: upgrade it", number,
                            RK_MANIFEST_VERSION);
    *version = (unsigned)number;
    return rk_json_object(&at, keys);
}

static bool read_manifest(const struct rk_json_at *root, struct rk_manifest *manifest)
{
    static const char *const keys[] = {
        "format",      "name",    "dense", "tables", "features",    "weights",      "bottom_mlp",
        "interaction", "top_mlp", "heads", "golden", "calibration", "value_models", "default_value_model",
        NULL};
    static const char *const keys_2[] = {"format",     "name",        "dense",   "tables", "features", "weights",
                                         "bottom_mlp", "interaction", "top_mlp", "heads",  "golden",   NULL};
    static const char *const golden_keys[] = {"requests", "scores", NULL};
    struct rk_model_spec *spec = &manifest->spec;
    struct rk_json_at golden;
    struct rk_file_ref weights;
    unsigned version = 0;
    if (!read_format(root, &version) || !rk_json_object(root, version > 2 ? keys : keys_2) ||
        !rk_spec_json_names(root, spec) || !read_tables(root, version, spec) || !rk_spec_json_features(root, spec) ||
        !read_mlp(root, version, "bottom_mlp", 0, &spec->bottom) ||
        !read_interaction(root, version, &spec->interaction) || !read_mlp(root, version, "top_mlp", 1, &spec->top) ||
        !rk_answer_json_read(root, spec) || !read_file_ref(root, "weights", INT64_MAX, &weights) ||
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

void rk_manifest_sidecar(const char *text, size_t length, char sidecar[RK_SIDECAR_BYTES + 1])
{
    snprintf(sidecar, RK_SIDECAR_BYTES + 1, "%016" PRIx64 "  " RK_PACKAGE_MANIFEST "\n", XXH3_64bits(text, length));
}
