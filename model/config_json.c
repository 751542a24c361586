/* One function per section of config.json, each filling its part of a struct rk_config. What can be said about a field
 * alone is checked here; how the fields fit together is rk_model_spec_check()'s business. One thread; everything is in
 * the arena. */
#include "model/config_json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/answer_json.h"
#include "model/json_read.h"
#include "model/nearest.h"
#include "model/spec_json.h"

/* Formats that a table may already have in the checkpoint: those up to int2. */
enum { NUM_PACKED = RK_ROWS_INT2 + 1 };

static bool read_packing(const struct rk_json_at *at, struct rk_table_spec *table, enum rk_row_layout *layout)
{
    static const char *const layouts[] = {"pytorch", "fbgemm", NULL};
    static const enum rk_row_layout layout_of[] = {RK_LAYOUT_ROWS, RK_LAYOUT_FBGEMM};
    const char *formats[NUM_PACKED + 1] = {NULL};
    struct rk_json_at field;
    unsigned choice;
    for (int i = 0; i < NUM_PACKED; i++)
        formats[i] = rk_row_format_name((enum rk_row_format)i);
    if (rk_json_find(at, "format", &field)) {
        if (!rk_json_choice(&field, formats, &choice))
            return false;
        table->format = (enum rk_row_format)choice;
    }
    *layout = table->format == RK_ROWS_F32 ? RK_LAYOUT_NUMBERS : RK_LAYOUT_ROWS;
    if (!rk_json_find(at, "layout", &field))
        return true;
    if (rk_row_traits(table->format)->tail_bytes == 0)
        return rk_json_fail(&field, RK_INVALID, "has a meaning only with format 'int8', 'int4' or 'int2'");
    if (!rk_json_choice(&field, layouts, &choice))
        return false;
    *layout = layout_of[choice];
    return true;
}

static bool read_table(const struct rk_json_at *at, struct rk_table_spec *table, const char **tensor,
                       enum rk_row_layout *layout)
{
    static const char *const keys[] = {"name",   "rows",         "dim",         "weight", "format",
                                       "layout", "out_of_range", "default_row", NULL};
    struct rk_json_at weight;
    return rk_json_object(at, keys) && rk_spec_json_table(at, table) && rk_json_get(at, "weight", &weight) &&
           rk_json_string(&weight, tensor) && read_packing(at, table, layout);
}

static bool read_tables(const struct rk_json_at *root, struct rk_config *config)
{
    struct rk_json_at at;
    size_t count;
    if (!rk_json_get(root, "tables", &at) || !rk_json_array(&at, 0, RK_MAX_TABLES, &count))
        return false;
    config->tables = rk_json_alloc(at.doc, count, sizeof *config->tables);
    const char **tensors = rk_json_alloc(at.doc, count, sizeof *tensors);
    enum rk_row_layout *layouts = rk_json_alloc(at.doc, count, sizeof *layouts);
    if (config->tables == NULL || tensors == NULL || layouts == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&at, i);
        if (!read_table(&item, &config->tables[i], &tensors[i], &layouts[i]))
            return false;
    }
    config->table_tensors = tensors;
    config->table_layouts = layouts;
    config->spec.tables = config->tables;
    config->spec.num_tables = (uint32_t)count;
    return true;
}

static bool read_interaction(const struct rk_json_at *root, struct rk_config *config)
{
    static const char *const dcn_keys[] = {"op", "layers", "rank", "weights", NULL};
    struct rk_interaction_spec *interaction = &config->spec.interaction;
    struct rk_json_at at, field;
    if (!rk_spec_json_interaction(root, false, &at, interaction))
        return false;
    if (interaction->op != RK_INTERACTION_DCN_V2)
        return true;
    uint64_t layers, rank;
    if (!rk_json_object(&at, dcn_keys) || !rk_json_get(&at, "layers", &field) ||
        !rk_json_uint(&field, 1, RK_MAX_LAYERS, &layers) || !rk_json_get(&at, "rank", &field) ||
        !rk_json_uint(&field, 1, RK_MAX_WIDTH, &rank) || !rk_json_get(&at, "weights", &field) ||
        !rk_json_string(&field, &config->cross))
        return false;
    interaction->num_cross = (uint32_t)layers;
    interaction->rank = (uint32_t)rank;
    return true;
}

static bool read_config(const struct rk_json_at *root, struct rk_config *config)
{
    static const char *const keys[] = {
        "name",    "dense", "tables",      "features",     "bottom_mlp",          "interaction",
        "top_mlp", "heads", "calibration", "value_models", "default_value_model", NULL};
    struct rk_json_at at;
    return rk_json_object(root, keys) && rk_spec_json_names(root, &config->spec) &&
           rk_answer_json_read(root, &config->spec) && read_tables(root, config) &&
           rk_spec_json_features(root, &config->spec) && read_interaction(root, config) &&
           rk_json_get(root, "bottom_mlp", &at) &&
           rk_json_strings(&at, 0, RK_MAX_LAYERS, &config->bottom, &config->num_bottom) &&
           rk_json_get(root, "top_mlp", &at) && rk_json_strings(&at, 1, RK_MAX_LAYERS, &config->top, &config->num_top);
}

enum rk_status rk_config_parse(const char *file, const char *text, size_t length, struct rk_arena *arena,
                               struct rk_config *config, struct rk_error *error)
{
    struct rk_error local = {0};
    const struct rk_json_doc doc = {.file = file, .arena = arena, .error = &local};
    *config = (struct rk_config){0};
    json_t *tree = rk_json_load(&doc, text, length);
    if (tree != NULL) {
        const struct rk_json_at root = rk_json_root(&doc, tree);
        read_config(&root, config);
    }
    json_decref(tree);
    return local.status == RK_OK ? RK_OK : rk_error_set(error, local.status, "%s", local.text);
}

enum rk_status rk_config_read(const char *path, struct rk_arena *arena, struct rk_config *config,
                              struct rk_error *error)
{
    enum rk_status status;
    char *text = NULL;
    struct stat stat;
    /* O_NONBLOCK: a FIFO must not make us wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &stat) != 0) {
        status =
            rk_error_set(error, errno == ENOENT ? RK_NOT_FOUND : RK_IO, "failed to open %s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(stat.st_mode)) {
        status = rk_error_set(error, RK_INVALID, "%s is not a regular file", path);
        goto done;
    }
    if (stat.st_size > (off_t)RK_CONFIG_MAX_BYTES) {
        status = rk_error_set(error, RK_INVALID, "%s has %lld bytes, a configuration has at most %u", path,
                              (long long)stat.st_size, RK_CONFIG_MAX_BYTES);
        goto done;
    }
    size_t size = (size_t)stat.st_size, used = 0;
    text = malloc(size + 1);
    if (text == NULL) {
        status = rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", path);
        goto done;
    }
    while (used < size) {
        ssize_t got = read(fd, text + used, size - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            status = rk_error_set(error, RK_IO, "failed to read %s: %s", path, strerror(errno));
            goto done;
        }
        if (got == 0)
            break; /* it became shorter: the parser will complain where it ends */
        used += (size_t)got;
    }
    status = rk_config_parse(path, text, used, arena, config, error);
done:
    free(text);
    if (fd >= 0)
        close(fd);
    return status;
}
