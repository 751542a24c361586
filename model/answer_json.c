/* Readers and printers for calibration and value models. Heads are named; what the numbers may be is checked with the
 * spec. One thread per document. */
#include "model/answer_json.h"

#include <string.h>

#include "model/nearest.h"

static bool read_head(const struct rk_json_at *at, const struct rk_model_spec *spec, uint32_t *head)
{
    struct rk_json_at field;
    const char *name;
    if (!rk_json_get(at, "head", &field) || !rk_json_string(&field, &name))
        return false;
    for (*head = 0; *head < spec->num_heads; ++*head)
        if (strcmp(spec->heads[*head], name) == 0)
            return true;
    char hint[160];
    return rk_json_fail(&field, RK_INVALID, "is '%.128s', not the name of a head%s", name,
                        rk_did_you_mean(name, spec->heads, spec->num_heads, hint, sizeof hint));
}

/* Keeps what *number holds when there is no such field. */
static bool find_float(const struct rk_json_at *at, const char *key, float *number)
{
    struct rk_json_at field;
    return !rk_json_find(at, key, &field) || rk_json_float(&field, number);
}

static bool read_calibration(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    static const char *const keys[] = {"head", "scale", "shift", NULL};
    struct rk_json_at at;
    size_t count;
    if (!rk_json_find(root, "calibration", &at))
        return true;
    if (!rk_json_array(&at, 0, spec->num_heads, &count))
        return false;
    struct rk_calibration *calibration = rk_json_alloc(at.doc, spec->num_heads, sizeof *calibration);
    bool seen[RK_MAX_HEADS] = {false};
    if (calibration == NULL)
        return false;
    for (uint32_t h = 0; h < spec->num_heads; h++)
        calibration[h] = (struct rk_calibration){1, 0};
    for (size_t i = 0; i < count; i++) {
        const struct rk_json_at item = rk_json_item(&at, i);
        uint32_t head = 0;
        if (!rk_json_object(&item, keys) || !read_head(&item, spec, &head) ||
            !find_float(&item, "scale", &calibration[head].scale) ||
            !find_float(&item, "shift", &calibration[head].shift))
            return false;
        if (seen[head])
            return rk_json_fail(&item, RK_INVALID, "is about head '%.128s' again; give each head once",
                                spec->heads[head]);
        seen[head] = true;
    }
    spec->calibration = count > 0 ? calibration : NULL;
    return true;
}

static bool read_terms(const struct rk_json_at *at, const struct rk_model_spec *spec, struct rk_value_model *value)
{
    static const char *const keys[] = {"head", "weight", NULL};
    struct rk_json_at field, weight;
    size_t count;
    if (!rk_json_get(at, "terms", &field) || !rk_json_array(&field, 1, spec->num_heads, &count))
        return false;
    struct rk_value_term *terms = rk_json_alloc(at->doc, count, sizeof *terms);
    if (terms == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct rk_json_at item = rk_json_item(&field, i);
        if (!rk_json_object(&item, keys) || !read_head(&item, spec, &terms[i].head) ||
            !rk_json_get(&item, "weight", &weight) || !rk_json_float(&weight, &terms[i].weight))
            return false;
    }
    value->terms = terms;
    value->num_terms = (uint32_t)count;
    return true;
}

static bool read_value(const struct rk_json_at *at, const struct rk_model_spec *spec, struct rk_value_model *value)
{
    static const char *const keys[] = {"name", "kind", "factor", "terms", NULL};
    struct rk_json_at field;
    unsigned kind;
    if (!rk_json_object(at, keys) || !rk_json_get(at, "name", &field) || !rk_json_string(&field, &value->name) ||
        !rk_json_get(at, "kind", &field) || !rk_json_choice(&field, rk_value_kind_names, &kind))
        return false;
    value->kind = (enum rk_value_kind)kind;
    value->factor = 1;
    return find_float(at, "factor", &value->factor) && read_terms(at, spec, value);
}

static bool read_values(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    struct rk_json_at at;
    size_t count;
    if (!rk_json_find(root, "value_models", &at))
        return true;
    if (!rk_json_array(&at, 0, RK_MAX_VALUES, &count))
        return false;
    struct rk_value_model *values = rk_json_alloc(at.doc, count, sizeof *values);
    if (values == NULL)
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct rk_json_at item = rk_json_item(&at, i);
        if (!read_value(&item, spec, &values[i]))
            return false;
    }
    spec->value_models = values;
    spec->num_value_models = (uint32_t)count;
    return true;
}

static bool read_default(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    struct rk_json_at at;
    const char *name, *names[RK_MAX_VALUES];
    if (!rk_json_find(root, "default_value_model", &at))
        return true;
    if (!rk_json_string(&at, &name))
        return false;
    for (uint32_t v = 0; v < spec->num_value_models; v++) {
        names[v] = spec->value_models[v].name;
        if (strcmp(names[v], name) == 0)
            spec->default_value = &spec->value_models[v];
    }
    char hint[160];
    return spec->default_value != NULL ||
           rk_json_fail(&at, RK_INVALID, "is '%.128s', not the name of a value model%s", name,
                        rk_did_you_mean(name, names, spec->num_value_models, hint, sizeof hint));
}

bool rk_answer_json_read(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    return read_calibration(root, spec) && read_values(root, spec) && read_default(root, spec);
}

/* ---- printing ---- */

/* jansson takes a NULL value as a failure; one flag collects them all. */
static void put(json_t *object, const char *key, json_t *value, bool *failed)
{
    *failed |= json_object_set_new(object, key, value) != 0;
}

static json_t *calibration(const struct rk_model_spec *spec, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t h = 0; h < spec->num_heads; h++) {
        json_t *object = json_object();
        put(object, "head", json_string(spec->heads[h]), failed);
        put(object, "scale", json_real((double)spec->calibration[h].scale), failed);
        put(object, "shift", json_real((double)spec->calibration[h].shift), failed);
        *failed |= json_array_append_new(array, object) != 0;
    }
    return array;
}

static json_t *value_models(const struct rk_model_spec *spec, bool *failed)
{
    json_t *array = json_array();
    for (uint32_t v = 0; v < spec->num_value_models; v++) {
        const struct rk_value_model *value = &spec->value_models[v];
        json_t *object = json_object(), *terms = json_array();
        for (uint32_t i = 0; i < value->num_terms; i++) {
            json_t *term = json_object();
            put(term, "head", json_string(spec->heads[value->terms[i].head]), failed);
            put(term, "weight", json_real((double)value->terms[i].weight), failed);
            *failed |= json_array_append_new(terms, term) != 0;
        }
        put(object, "name", json_string(value->name), failed);
        put(object, "kind", json_string(rk_value_kind_names[value->kind]), failed);
        put(object, "factor", json_real((double)value->factor), failed);
        put(object, "terms", terms, failed);
        *failed |= json_array_append_new(array, object) != 0;
    }
    return array;
}

bool rk_answer_json_print(const struct rk_model_spec *spec, json_t *root)
{
    bool failed = false;
    if (spec->calibration != NULL)
        put(root, "calibration", calibration(spec, &failed), &failed);
    if (spec->num_value_models > 0)
        put(root, "value_models", value_models(spec, &failed), &failed);
    if (spec->default_value != NULL)
        put(root, "default_value_model", json_string(spec->default_value->name), &failed);
    return !failed;
}
