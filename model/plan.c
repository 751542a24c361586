/* Plans: reading, printing, checking against a model, and making one from command-line options. Everything a plan
 * points to is in the caller's arena. One thread. */
#include "model/plan.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embeddings/mapped_file.h"
#include "model/json_read.h"
#include "model/nearest.h"

static const char *const part_names[RK_PART_COUNT + 1] = {"bottom", "interaction", "top", NULL};

const char *rk_plan_part_name(enum rk_plan_part part)
{
    return (unsigned)part < RK_PART_COUNT ? part_names[part] : "unknown";
}

const struct rk_table_plan *rk_plan_table(const struct rk_plan *plan, const char *name)
{
    for (uint32_t t = 0; t < plan->num_tables; t++)
        if (strcmp(plan->tables[t].name, name) == 0)
            return &plan->tables[t];
    return NULL;
}

/* ---- reading ---- */

static bool read_format(const struct rk_json_at *root)
{
    static const char *const keys[] = {"name", "version", NULL};
    struct rk_json_at at, field;
    const char *name;
    uint64_t version;
    if (!rk_json_get(root, "format", &at) || !rk_json_object(&at, keys) || !rk_json_get(&at, "name", &field) ||
        !rk_json_string(&field, &name))
        return false;
    if (strcmp(name, RK_PLAN_FORMAT) != 0)
        return rk_json_fail(&field, RK_INVALID, "is '%.64s', must be '" RK_PLAN_FORMAT "'", name);
    if (!rk_json_get(&at, "version", &field) || !rk_json_uint(&field, 1, INT64_MAX, &version))
        return false;
    if (version > RK_PLAN_VERSION)
        return rk_json_fail(&field, RK_UNSUPPORTED,
                            "is %" PRIu64 ", newer than this program, which reads up to version %u: upgrade it",
                            version, RK_PLAN_VERSION);
    return true;
}

static bool read_parts(const struct rk_json_at *root, struct rk_plan *plan)
{
    struct rk_json_at at, field;
    const char *formats[RK_DENSE_FORMAT_COUNT + 1] = {NULL};
    for (int f = 0; f < RK_DENSE_FORMAT_COUNT; f++)
        formats[f] = rk_dense_format_name((enum rk_dense_format)f);
    if (!rk_json_find(root, "towers", &at))
        return root->doc->error->status == RK_OK;
    if (!rk_json_object(&at, part_names))
        return false;
    for (int s = 0; s < RK_PART_COUNT; s++) {
        unsigned format;
        if (!rk_json_find(&at, part_names[s], &field))
            continue;
        if (!rk_json_choice(&field, formats, &format))
            return false;
        plan->parts[s] = (struct rk_part_plan){true, (enum rk_dense_format)format};
    }
    return true;
}

static bool read_ranges(const struct rk_json_at *at, struct rk_table_plan *table)
{
    size_t count, pair;
    if (!rk_json_array(at, 0, RK_PLAN_MAX_BYTES, &count))
        return false;
    struct rk_row_range *ranges = rk_json_alloc(at->doc, count, sizeof *ranges);
    if (ranges == NULL)
        return false;
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const struct rk_json_at item = rk_json_item(at, i);
        if (!rk_json_array(&item, 2, 2, &pair))
            return false;
        const struct rk_json_at first = rk_json_item(&item, 0), length = rk_json_item(&item, 1);
        if (!rk_json_uint(&first, 0, RK_MAX_ROWS, &ranges[i].first) ||
            !rk_json_uint(&length, 1, RK_MAX_ROWS, &ranges[i].count))
            return false;
        if (ranges[i].first < end)
            return rk_json_fail(&first, RK_INVALID,
                                "is %" PRIu64 ", but the range before it ends at %" PRIu64 ": ranges are in order",
                                ranges[i].first, end);
        end = ranges[i].first + ranges[i].count;
    }
    table->pruned = true;
    table->kept = ranges;
    table->num_kept = count;
    return true;
}

static bool read_table(const struct rk_json_at *at, struct rk_table_plan *table)
{
    static const char *const keys[] = {"name", "format", "kept", NULL};
    struct rk_json_at field;
    const char *formats[RK_ROW_FORMAT_COUNT + 1] = {NULL};
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        formats[f] = rk_row_format_name((enum rk_row_format)f);
    if (!rk_json_object(at, keys) || !rk_json_get(at, "name", &field) || !rk_json_string(&field, &table->name))
        return false;
    if (rk_json_find(at, "format", &field)) {
        unsigned format;
        if (!rk_json_choice(&field, formats, &format))
            return false;
        table->has_format = true;
        table->format = (enum rk_row_format)format;
    }
    return !rk_json_find(at, "kept", &field) || read_ranges(&field, table);
}

static bool read_plan(const struct rk_json_at *root, struct rk_plan *plan)
{
    static const char *const keys[] = {"format", "model", "towers", "tables", NULL};
    struct rk_json_at at;
    size_t count;
    if (!read_format(root) || !rk_json_object(root, keys) || !read_parts(root, plan))
        return false;
    if (rk_json_find(root, "model", &at) && !rk_json_string(&at, &plan->model))
        return false;
    if (!rk_json_find(root, "tables", &at))
        return true;
    if (!rk_json_array(&at, 0, RK_MAX_TABLES, &count))
        return false;
    struct rk_table_plan *tables = rk_json_alloc(at.doc, count, sizeof *tables);
    if (tables == NULL)
        return false;
    plan->tables = tables;
    for (size_t i = 0; i < count; i++) {
        const struct rk_json_at item = rk_json_item(&at, i);
        if (!read_table(&item, &tables[i]))
            return false;
        if (rk_plan_table(plan, tables[i].name) != NULL)
            return rk_json_fail(&item, RK_INVALID, "is about '%.128s', and so is one before it", tables[i].name);
        plan->num_tables++;
    }
    return true;
}

enum rk_status rk_plan_parse(const char *file, const char *text, size_t length, struct rk_arena *arena,
                             struct rk_plan *plan, struct rk_error *error)
{
    struct rk_error local = {0};
    const struct rk_json_doc doc = {.file = file, .arena = arena, .error = &local};
    *plan = (struct rk_plan){0};
    json_t *tree = rk_json_load(&doc, text, length);
    if (tree != NULL) {
        const struct rk_json_at root = rk_json_root(&doc, tree);
        read_plan(&root, plan);
    }
    json_decref(tree);
    return local.status == RK_OK ? RK_OK : rk_error_set(error, local.status, "%s", local.text);
}

enum rk_status rk_plan_read(const char *path, struct rk_arena *arena, struct rk_plan *plan, struct rk_error *error)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    struct rk_mapped_file *file = NULL;
    const int dir_fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    enum rk_status status = RK_OK;
    if (dir_fd < 0)
        status = rk_error_set(error, folder != NULL ? RK_NOT_FOUND : RK_NO_MEMORY, "%s: there is no such folder", path);
    if (status == RK_OK)
        status = rk_mapped_file_open(dir_fd, slash != NULL ? slash + 1 : path, UINT64_MAX, &file, error);
    if (status == RK_OK && rk_mapped_file_bytes(file) > RK_PLAN_MAX_BYTES)
        status = rk_error_set(error, RK_INVALID, "%s: has %" PRIu64 " bytes, more than a plan can have (%u)", path,
                              rk_mapped_file_bytes(file), RK_PLAN_MAX_BYTES);
    if (status == RK_OK)
        status = rk_plan_parse(path, rk_mapped_file_data(file), rk_mapped_file_bytes(file), arena, plan, error);
    if (status == RK_OK && rk_mapped_file_damaged(file))
        status = rk_error_set(error, RK_CORRUPT, "%s: was truncated while it was read", path);
    rk_mapped_file_close(file);
    if (dir_fd >= 0)
        close(dir_fd);
    free(folder);
    return status;
}

/* ---- printing ---- */

static json_t *print_table(const struct rk_table_plan *table)
{
    json_t *object = json_pack("{s:s}", "name", table->name);
    bool failed = object == NULL;
    if (table->has_format)
        failed |= json_object_set_new(object, "format", json_string(rk_row_format_name(table->format))) != 0;
    if (table->pruned) {
        json_t *ranges = json_array();
        for (size_t i = 0; i < table->num_kept; i++)
            failed |= json_array_append_new(ranges, json_pack("[I, I]", (json_int_t)table->kept[i].first,
                                                              (json_int_t)table->kept[i].count)) != 0;
        failed |= json_object_set_new(object, "kept", ranges) != 0;
    }
    if (!failed)
        return object;
    json_decref(object);
    return NULL;
}

char *rk_plan_print(const struct rk_plan *plan)
{
    json_t *root = json_pack("{s:{s:s, s:i}}", "format", "name", RK_PLAN_FORMAT, "version", (int)RK_PLAN_VERSION);
    json_t *towers = json_object(), *tables = json_array();
    bool failed = false;
    if (plan->model != NULL)
        failed |= json_object_set_new(root, "model", json_string(plan->model)) != 0;
    for (int s = 0; s < RK_PART_COUNT; s++)
        if (plan->parts[s].has_format)
            failed |= json_object_set_new(towers, part_names[s],
                                          json_string(rk_dense_format_name(plan->parts[s].format))) != 0;
    for (uint32_t t = 0; t < plan->num_tables; t++)
        failed |= json_array_append_new(tables, print_table(&plan->tables[t])) != 0;
    if (json_object_size(towers) > 0)
        failed |= json_object_set(root, "towers", towers) != 0;
    failed |= json_object_set(root, "tables", tables) != 0;
    char *text = failed ? NULL : json_dumps(root, JSON_INDENT(1));
    json_decref(towers);
    json_decref(tables);
    json_decref(root);
    return text;
}

/* ---- against a model ---- */

static const char **table_names(const struct rk_model_spec *spec, struct rk_arena *arena)
{
    const char **names = rk_arena_array(arena, (size_t)spec->num_tables + 1, sizeof *names);
    for (uint32_t t = 0; names != NULL && t < spec->num_tables; t++)
        names[t] = spec->tables[t].name;
    return names;
}

static enum rk_status unknown_table(const struct rk_model_spec *spec, const char *what, const char *name,
                                    struct rk_error *error)
{
    struct rk_arena arena;
    char hint[256] = "";
    rk_arena_init(&arena, 1u << 12);
    const char **names = table_names(spec, &arena);
    if (names != NULL)
        rk_did_you_mean(name, names, spec->num_tables, hint, sizeof hint);
    rk_arena_deinit(&arena);
    return rk_error_set(error, RK_INVALID, "%s is '%.128s', but model '%.128s' has no such table%s", what, name,
                        spec->name, hint);
}

enum rk_status rk_plan_check(const struct rk_plan *plan, const struct rk_model_spec *spec, struct rk_error *error)
{
    if (plan->model != NULL && strcmp(plan->model, spec->name) != 0)
        return rk_error_set(error, RK_INVALID, "the plan was made for model '%.128s', this is '%.128s'", plan->model,
                            spec->name);
    for (uint32_t t = 0; t < plan->num_tables; t++) {
        const struct rk_table_plan *wanted = &plan->tables[t];
        const struct rk_table_spec *table = NULL;
        for (uint32_t i = 0; table == NULL && i < spec->num_tables; i++)
            if (strcmp(spec->tables[i].name, wanted->name) == 0)
                table = &spec->tables[i];
        if (table == NULL) {
            char what[48];
            snprintf(what, sizeof what, "tables[%u].name", t);
            return unknown_table(spec, what, wanted->name, error);
        }
        if (!wanted->pruned || wanted->num_kept == 0)
            continue;
        const struct rk_row_range *last = &wanted->kept[wanted->num_kept - 1];
        if (last->first + last->count > table->num_embeddings)
            return rk_error_set(error, RK_INVALID,
                                "tables[%u] keeps rows up to %" PRIu64 ", but table '%.128s' has %" PRIu64, t,
                                last->first + last->count - 1, table->name, table->num_embeddings);
    }
    return RK_OK;
}

/* ---- from options ---- */

/* One NAME=VALUE of a list; a lone VALUE has the name "*". */
struct assignment {
    const char *name, *value;
    bool used;
};

static enum rk_status split(const char *option, const char *text, struct rk_arena *arena, struct assignment **list,
                            size_t *count, struct rk_error *error)
{
    size_t most = 1;
    for (const char *c = text; *c != '\0'; c++)
        most += *c == ',';
    char *copy = rk_arena_string(arena, text, strlen(text));
    *list = rk_arena_array(arena, most, sizeof **list);
    if (copy == NULL || *list == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    *count = 0;
    for (char *item; (item = strsep(&copy, ",")) != NULL;) {
        char *equals = strchr(item, '=');
        struct assignment *assignment = &(*list)[(*count)++];
        *assignment = (struct assignment){.name = "*", .value = item};
        if (equals != NULL) {
            *equals = '\0';
            *assignment = (struct assignment){.name = item, .value = equals + 1};
        }
        if (assignment->name[0] == '\0' || assignment->value[0] == '\0' || (equals == NULL && most > 1))
            return rk_error_set(error, RK_INVALID, "%s is '%s', must be FORMAT or NAME=FORMAT,NAME=FORMAT", option,
                                text);
    }
    return RK_OK;
}

static enum rk_status unknown_format(const char *option, const char *value, const char *(*name)(int), int count,
                                     struct rk_error *error)
{
    char names[256] = "";
    for (int f = 0; f < count; f++) {
        strncat(names, f == 0 ? "" : f + 1 == count ? " or " : ", ", sizeof names - strlen(names) - 1);
        strncat(names, name(f), sizeof names - strlen(names) - 1);
    }
    return rk_error_set(error, RK_INVALID, "%s: '%.64s' is no format; it must be %s", option, value, names);
}

static const char *row_format_name(int format)
{
    return rk_row_format_name((enum rk_row_format)format);
}

static const char *dense_format_name(int format)
{
    return rk_dense_format_name((enum rk_dense_format)format);
}

static enum rk_status plan_rows(const struct rk_model_spec *spec, const char *rows, struct rk_arena *arena,
                                struct rk_plan *plan, struct rk_error *error)
{
    struct assignment *list;
    size_t count;
    enum rk_status status = split("--rows", rows, arena, &list, &count, error);
    struct rk_table_plan *tables = rk_arena_array(arena, (size_t)spec->num_tables + 1, sizeof *tables);
    if (status == RK_OK && tables == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
    for (size_t i = 0; status == RK_OK && i < count; i++) {
        enum rk_row_format format;
        if (!rk_row_format_parse(list[i].value, &format))
            status = unknown_format("--rows", list[i].value, row_format_name, RK_ROW_FORMAT_COUNT, error);
    }
    if (status != RK_OK)
        return status;
    plan->tables = tables;
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        struct rk_table_plan table = {.name = spec->tables[t].name};
        for (size_t i = 0; i < count; i++) {
            if (fnmatch(list[i].name, table.name, 0) != 0)
                continue;
            list[i].used = true;
            if (!table.has_format)
                table.has_format = rk_row_format_parse(list[i].value, &table.format);
        }
        if (table.has_format)
            tables[plan->num_tables++] = table;
    }
    for (size_t i = 0; i < count; i++)
        if (!list[i].used && strcmp(list[i].name, "*") != 0)
            return unknown_table(spec, "--rows: a name", list[i].name, error);
    return RK_OK;
}

static enum rk_status plan_parts(const struct rk_model_spec *spec, const char *towers, struct rk_arena *arena,
                                 struct rk_plan *plan, struct rk_error *error)
{
    struct assignment *list;
    size_t count;
    enum rk_status status = split("--towers", towers, arena, &list, &count, error);
    for (size_t i = 0; status == RK_OK && i < count; i++) {
        enum rk_dense_format format;
        bool known = false;
        if (!rk_dense_format_parse(list[i].value, &format))
            return unknown_format("--towers", list[i].value, dense_format_name, RK_DENSE_FORMAT_COUNT, error);
        if (spec->interaction.op == RK_INTERACTION_CAT && strcmp(list[i].name, part_names[RK_PART_INTERACTION]) == 0)
            return rk_error_set(error, RK_INVALID,
                                "--towers: the interaction of model '%.128s' is cat, which multiplies nothing and has "
                                "no format: leave 'interaction' out",
                                spec->name);
        for (int s = 0; s < RK_PART_COUNT; s++) {
            const bool matches = fnmatch(list[i].name, part_names[s], 0) == 0;
            known |= matches;
            if (matches && !plan->parts[s].has_format)
                plan->parts[s] = (struct rk_part_plan){true, format};
        }
        if (!known)
            status = rk_error_set(error, RK_INVALID,
                                  "--towers: '%.64s' is no part; it must be bottom, interaction or top", list[i].name);
    }
    return status;
}

enum rk_status rk_plan_from_options(const struct rk_model_spec *spec, const char *rows, const char *towers,
                                    struct rk_arena *arena, struct rk_plan *plan, struct rk_error *error)
{
    *plan = (struct rk_plan){.model = spec->name};
    enum rk_status status = RK_OK;
    if (rows != NULL)
        status = plan_rows(spec, rows, arena, plan, error);
    if (status == RK_OK && towers != NULL)
        status = plan_parts(spec, towers, arena, plan, error);
    return status;
}
