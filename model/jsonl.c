/* Requests and scores as JSON lines. jansson reads a line as a tree; the numbers are then gathered feature by feature
 * into the arrays that binding reads: all bags of a feature one behind the other, and a length for each. The first
 * candidate says which features there are. Everything lives in the caller's arena; one thread per line. */
#include "model/jsonl.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "model/json_read.h"

/* Allows annotations and nothing else beside the request's own fields. */
static const char *const request_keys[] = {"id", "context", "candidates", NULL};
static const char *const block_keys[] = {"dense", "ids", "weights", NULL};
static const char *const score_keys[] = {"id", "logits", "probabilities", "values", "labels", NULL};

/* ---- a line of requests ---- */

static bool read_number(const struct rk_json_at *at, double *number)
{
    if (!json_is_number(at->value))
        return rk_json_fail(at, RK_INVALID, "is not a number");
    *number = json_number_value(at->value);
    return true;
}

static bool read_float(const struct rk_json_at *at, float *number)
{
    double value = 0;
    if (!read_number(at, &value))
        return false;
    if (fabs(value) > (double)FLT_MAX)
        return rk_json_fail(at, RK_INVALID, "is %g, too large for a float32", value);
    *number = (float)value;
    return true;
}

static bool read_id(const struct rk_json_at *at, int64_t *id)
{
    if (json_is_real(at->value))
        return rk_json_fail(at, RK_INVALID, "is %.17g, not a whole number", json_real_value(at->value));
    if (!json_is_integer(at->value))
        return rk_json_fail(at, RK_INVALID, "is not a whole number");
    *id = json_integer_value(at->value);
    return true;
}

/* The rows of one side while they are gathered: one for the context, one per candidate. A row's places are kept,
 * because errors refer to them. */
struct row {
    struct rk_json_at at, ids, weights; /* value NULL where the row has none */
};

static bool open_row(struct row *row)
{
    if (!rk_json_object(&row->at, block_keys))
        return false;
    const struct {
        const char *key;
        struct rk_json_at *at;
    } maps[] = {{"ids", &row->ids}, {"weights", &row->weights}};
    for (size_t i = 0; i < 2; i++)
        if (rk_json_find(&row->at, maps[i].key, maps[i].at) && !json_is_object(maps[i].at->value))
            return rk_json_fail(maps[i].at, RK_INVALID, "must be an object that gives each feature's array");
    return true;
}

static bool gather_dense(const struct row *rows, uint32_t num_rows, struct rk_named_block *block)
{
    const struct rk_json_doc *doc = rows[0].at.doc;
    size_t width = 0;
    float *dense = NULL;
    for (uint32_t r = 0; r < num_rows; r++) {
        struct rk_json_at at;
        size_t count = 0;
        if (rk_json_find(&rows[r].at, "dense", &at) && !rk_json_array(&at, 0, RK_MAX_WIDTH, &count))
            return false;
        if (r == 0) {
            width = count;
            dense = rk_json_alloc(doc, (size_t)num_rows * width, sizeof *dense);
            if (dense == NULL)
                return false;
        }
        if (count != width)
            return rk_json_fail(&at, RK_INVALID, "has %zu values where candidates[0] has %zu", count, width);
        for (size_t i = 0; i < count; i++) {
            struct rk_json_at item = rk_json_item(&at, i);
            if (!read_float(&item, &dense[r * width + i]))
                return false;
        }
    }
    block->dense = dense;
    block->num_dense = (uint64_t)num_rows * width;
    return true;
}

/* Finds feature `name` in a row; its array of weights has value NULL when there is none. */
static bool find_bag(const struct row *row, const char *name, struct rk_json_at *ids, struct rk_json_at *weights,
                     size_t *count)
{
    if (row->ids.value == NULL)
        return rk_json_fail(&row->ids, RK_INVALID, "is missing; candidates[0] has it");
    if (!rk_json_find(&row->ids, name, ids))
        return rk_json_fail(ids, RK_INVALID, "is missing; candidates[0] has it");
    if (!rk_json_array(ids, 0, UINT32_MAX, count))
        return false;
    *weights = (struct rk_json_at){0};
    if (row->weights.value == NULL || !rk_json_find(&row->weights, name, weights))
        return true;
    size_t num_weights;
    if (!rk_json_array(weights, 0, UINT32_MAX, &num_weights))
        return false;
    return num_weights == *count ||
           rk_json_fail(weights, RK_INVALID, "has %zu values for %zu ids", num_weights, *count);
}

static bool gather_bags(const struct row *rows, uint32_t num_rows, struct rk_named_bags *bags)
{
    const struct rk_json_doc *doc = rows[0].at.doc;
    uint32_t *lengths = rk_json_alloc(doc, num_rows, sizeof *lengths);
    if (lengths == NULL)
        return false;
    bool weighted = false;
    for (uint32_t r = 0; r < num_rows; r++) {
        struct rk_json_at ids, weights;
        size_t count;
        if (!find_bag(&rows[r], bags->name, &ids, &weights, &count))
            return false;
        lengths[r] = (uint32_t)count;
        bags->num_ids += count;
        if (r == 0)
            weighted = weights.value != NULL;
        else if (weighted != (weights.value != NULL))
            return rk_json_fail(&rows[r].at, RK_INVALID, "and candidates[0] differ: only one has weights for '%.128s'",
                                bags->name);
    }
    float *all_weights = weighted ? rk_json_alloc(doc, bags->num_ids, sizeof *all_weights) : NULL;
    bags->ids = rk_json_alloc(doc, bags->num_ids, sizeof *bags->ids);
    if (bags->ids == NULL || (weighted && all_weights == NULL))
        return false;
    uint64_t used = 0;
    for (uint32_t r = 0; r < num_rows; r++) {
        struct rk_json_at ids, weights;
        size_t count;
        if (!find_bag(&rows[r], bags->name, &ids, &weights, &count))
            return false;
        for (size_t i = 0; i < count; i++, used++) {
            struct rk_json_at id = rk_json_item(&ids, i);
            if (!read_id(&id, &bags->ids[used]))
                return false;
            if (!weighted)
                continue;
            struct rk_json_at weight = rk_json_item(&weights, i);
            if (!read_float(&weight, &all_weights[used]))
                return false;
        }
    }
    bags->lengths = lengths;
    bags->num_lengths = num_rows;
    bags->weights = all_weights;
    bags->num_weights = weighted ? bags->num_ids : 0;
    return true;
}

/* A feature that only this row has, or weights without ids, would otherwise go unnoticed. */
static bool check_features(const struct row *row, const json_t *expected)
{
    const char *key;
    json_t *value;
    if (row->ids.value != NULL) {
        json_object_foreach((json_t *)row->ids.value, key, value)
        {
            struct rk_json_at at = {.doc = row->at.doc, .parent = &row->ids, .key = key, .value = value};
            if (json_object_get(expected, key) == NULL)
                return rk_json_fail(&at, RK_INVALID, "is there, but candidates[0] has no such feature");
        }
    }
    if (row->weights.value != NULL) {
        json_object_foreach((json_t *)row->weights.value, key, value)
        {
            struct rk_json_at at = {.doc = row->at.doc, .parent = &row->weights, .key = key, .value = value};
            if (json_object_get(row->ids.value, key) == NULL)
                return rk_json_fail(&at, RK_INVALID, "is there, but ids has no such feature");
        }
    }
    return true;
}

static bool gather_block(struct row *rows, uint32_t num_rows, struct rk_named_block *block)
{
    *block = (struct rk_named_block){0};
    if (num_rows == 0)
        return true;
    for (uint32_t r = 0; r < num_rows; r++)
        if (!open_row(&rows[r]) || !check_features(&rows[r], rows[0].ids.value))
            return false;
    const json_t *first = rows[0].ids.value;
    size_t num_features = first != NULL ? json_object_size(first) : 0, used = 0;
    if (num_features > RK_MAX_FEATURES)
        return rk_json_fail(&rows[0].ids, RK_INVALID, "has %zu features, a model has at most %u", num_features,
                            RK_MAX_FEATURES);
    struct rk_named_bags *features = rk_json_alloc(rows[0].at.doc, num_features, sizeof *features);
    if (features == NULL || !gather_dense(rows, num_rows, block))
        return false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)first, key, value)
    {
        struct rk_named_bags *bags = &features[used++];
        bags->name_bytes = strlen(key);
        bags->name = rk_arena_string(rows[0].at.doc->arena, key, bags->name_bytes);
        if (bags->name == NULL)
            return rk_json_fail(&rows[0].at, RK_NO_MEMORY, "does not fit into memory");
        if (!gather_bags(rows, num_rows, bags))
            return false;
    }
    block->features = features;
    block->num_features = (uint32_t)num_features;
    return true;
}

static bool read_request(const struct rk_json_at *root, struct rk_named_request *request)
{
    struct rk_json_at at;
    size_t count;
    request->id = "";
    if (!rk_json_object(root, request_keys))
        return false;
    if (rk_json_find(root, "id", &at) && (!json_is_string(at.value) || json_string_length(at.value) > 0) &&
        !rk_json_string(&at, &request->id))
        return false;
    struct row context = {0};
    if (rk_json_find(root, "context", &context.at) && !gather_block(&context, 1, &request->context))
        return false;
    if (!rk_json_get(root, "candidates", &at) || !rk_json_array(&at, 0, UINT32_MAX, &count))
        return false;
    struct row *rows = rk_json_alloc(root->doc, count, sizeof *rows);
    if (rows == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        rows[i].at = rk_json_item(&at, i);
    request->num_candidates = (uint32_t)count;
    return gather_block(rows, (uint32_t)count, &request->candidates);
}

/* Loads the line and hands its root to `read`. Errors carry no file name: the caller says which line it is. */
static enum rk_status parse_line(const char *line, size_t length, struct rk_arena *arena,
                                 bool (*read)(const struct rk_json_at *root, void *result), void *result,
                                 struct rk_error *error)
{
    struct rk_error local = {0};
    const struct rk_json_doc doc = {.file = "", .arena = arena, .error = &local};
    json_t *tree = rk_json_load(&doc, line, length);
    if (tree != NULL) {
        const struct rk_json_at root = rk_json_root(&doc, tree);
        read(&root, result);
    }
    json_decref(tree);
    const char *text = local.text;
    if (strncmp(text, ": ", 2) == 0)
        text += 2;
    return local.status == RK_OK ? RK_OK : rk_error_set(error, local.status, "%s", text);
}

static bool read_request_root(const struct rk_json_at *root, void *result)
{
    return read_request(root, result);
}

enum rk_status rk_jsonl_parse(const char *line, size_t length, struct rk_arena *arena, struct rk_named_request *request,
                              struct rk_error *error)
{
    *request = (struct rk_named_request){0};
    return parse_line(line, length, arena, read_request_root, request, error);
}

/* ---- a line of scores ---- */

/* [candidates][heads] numbers, whose shape the first such array of a line sets. */
static bool read_matrix(const struct rk_json_at *at, struct rk_named_scores *scores, bool shape_known, double **matrix)
{
    size_t rows, columns;
    if (!rk_json_array(at, 0, UINT32_MAX, &rows))
        return false;
    if (shape_known && rows != scores->num_candidates)
        return rk_json_fail(at, RK_INVALID, "has %zu rows where logits has %u", rows, scores->num_candidates);
    for (size_t r = 0; r < rows; r++) {
        struct rk_json_at row = rk_json_item(at, r);
        if (!rk_json_array(&row, 1, RK_MAX_HEADS, &columns))
            return false;
        if (r == 0 && !shape_known)
            scores->num_heads = (uint32_t)columns;
        if (columns != scores->num_heads)
            return rk_json_fail(&row, RK_INVALID, "has %zu values, must have %u", columns, scores->num_heads);
        if (r == 0) {
            scores->num_candidates = (uint32_t)rows;
            *matrix = rk_json_alloc(at->doc, rows * columns, sizeof **matrix);
            if (*matrix == NULL)
                return false;
        }
        for (size_t c = 0; c < columns; c++) {
            struct rk_json_at item = rk_json_item(&row, c);
            if (!read_number(&item, &(*matrix)[r * columns + c]))
                return false;
        }
    }
    return true;
}

static bool read_scores(const struct rk_json_at *root, void *result)
{
    struct rk_named_scores *scores = result;
    struct rk_json_at at;
    if (!rk_json_object(root, score_keys))
        return false;
    if (rk_json_find(root, "id", &at) && (!json_is_string(at.value) || json_string_length(at.value) > 0) &&
        !rk_json_string(&at, &scores->id))
        return false;
    return rk_json_get(root, "logits", &at) && read_matrix(&at, scores, false, &scores->logits) &&
           (!rk_json_find(root, "labels", &at) || read_matrix(&at, scores, true, &scores->labels));
}

enum rk_status rk_jsonl_parse_scores(const char *line, size_t length, struct rk_arena *arena,
                                     struct rk_named_scores *scores, struct rk_error *error)
{
    *scores = (struct rk_named_scores){.id = ""};
    return parse_line(line, length, arena, read_scores, scores, error);
}
