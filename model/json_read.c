/* Readers over jansson's tree. Each returns false after it has set the document's error, so that a parser can chain
 * them. A place (struct rk_json_at) knows the one around it; the path is only put together when an error needs it. One
 * thread per document. */
#include "model/json_read.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/nearest.h"

json_t *rk_json_load(const struct rk_json_doc *doc, const char *text, size_t length)
{
    json_error_t why;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (root == NULL) {
        rk_error_set(doc->error, RK_INVALID, "%s: line %d, column %d: not valid JSON: %.160s", doc->file, why.line,
                     why.column, why.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        rk_error_set(doc->error, RK_INVALID, "%s: must hold a JSON object", doc->file);
        json_decref(root);
        return NULL;
    }
    return root;
}

struct rk_json_at rk_json_root(const struct rk_json_doc *doc, const json_t *root)
{
    return (struct rk_json_at){.doc = doc, .value = root};
}

/* Writes the path of `at` behind the `used` bytes of the buffer. */
static size_t print_path(const struct rk_json_at *at, char *buffer, size_t size, size_t used)
{
    if (at->parent == NULL)
        return used;
    used = print_path(at->parent, buffer, size, used);
    if (used >= size)
        return used;
    int length;
    if (at->key == NULL)
        length = snprintf(buffer + used, size - used, "[%zu]", at->index);
    else
        length = snprintf(buffer + used, size - used, "%s%.64s", at->parent->parent != NULL ? "." : "", at->key);
    return length < 0 ? used : used + (size_t)length;
}

bool rk_json_fail(const struct rk_json_at *at, enum rk_status status, const char *format, ...)
{
    char path[200] = "";
    print_path(at, path, sizeof path, 0);
    char text[sizeof((struct rk_error *)0)->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    struct rk_error made = {0};
    rk_error_set(&made, status, "%s:%s%s %s", at->doc->file, path[0] != '\0' ? " " : "", path, text);
    /* Names in the text come from the file: none of their control characters may reach a terminal or a log. */
    for (char *c = made.text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    rk_error_set(at->doc->error, status, "%s", made.text);
    return false;
}

static const char *kind_of(const json_t *value)
{
    static const char *const names[] = {[JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array",
                                        [JSON_STRING] = "a string",  [JSON_INTEGER] = "a whole number",
                                        [JSON_REAL] = "a fraction",  [JSON_TRUE] = "true",
                                        [JSON_FALSE] = "false",      [JSON_NULL] = "null"};
    return names[json_typeof(value)];
}

static bool wrong_kind(const struct rk_json_at *at, const char *expected)
{
    return rk_json_fail(at, RK_INVALID, "is %s, must be %s", kind_of(at->value), expected);
}

bool rk_json_object(const struct rk_json_at *at, const char *const *keys)
{
    if (!json_is_object(at->value))
        return wrong_kind(at, "an object");
    size_t num_keys = 0;
    while (keys[num_keys] != NULL)
        num_keys++;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)at->value, key, value)
    {
        size_t i = 0;
        while (i < num_keys && strcmp(key, keys[i]) != 0)
            i++;
        if (i < num_keys || strncmp(key, "x-", 2) == 0)
            continue;
        char hint[160];
        struct rk_json_at unknown = {.doc = at->doc, .parent = at, .key = key, .value = value};
        return rk_json_fail(&unknown, RK_INVALID, "is not a known field%s",
                            rk_did_you_mean(key, keys, num_keys, hint, sizeof hint));
    }
    return true;
}

bool rk_json_find(const struct rk_json_at *at, const char *key, struct rk_json_at *field)
{
    const json_t *value = json_object_get(at->value, key);
    *field = (struct rk_json_at){.doc = at->doc, .parent = at, .key = key, .value = value};
    return value != NULL;
}

bool rk_json_get(const struct rk_json_at *at, const char *key, struct rk_json_at *field)
{
    return rk_json_find(at, key, field) || rk_json_fail(field, RK_INVALID, "is missing");
}

bool rk_json_array(const struct rk_json_at *at, size_t min_items, size_t max_items, size_t *count)
{
    if (!json_is_array(at->value))
        return wrong_kind(at, "an array");
    *count = json_array_size(at->value);
    if (*count < min_items || *count > max_items)
        return rk_json_fail(at, RK_INVALID, "has %zu items, must have from %zu to %zu", *count, min_items, max_items);
    return true;
}

struct rk_json_at rk_json_item(const struct rk_json_at *at, size_t index)
{
    return (struct rk_json_at){.doc = at->doc, .parent = at, .index = index, .value = json_array_get(at->value, index)};
}

bool rk_json_string(const struct rk_json_at *at, const char **text)
{
    if (!json_is_string(at->value))
        return wrong_kind(at, "a string");
    size_t length = json_string_length(at->value);
    if (length == 0)
        return rk_json_fail(at, RK_INVALID, "is an empty string");
    *text = rk_arena_string(at->doc->arena, json_string_value(at->value), length);
    return *text != NULL || rk_json_fail(at, RK_NO_MEMORY, "does not fit into memory");
}

bool rk_json_uint(const struct rk_json_at *at, uint64_t min, uint64_t max, uint64_t *number)
{
    if (!json_is_integer(at->value))
        return wrong_kind(at, "a whole number");
    json_int_t value = json_integer_value(at->value);
    if (value < 0 || (uint64_t)value < min || (uint64_t)value > max)
        return rk_json_fail(at, RK_INVALID, "is %lld, must be from %llu to %llu", (long long)value,
                            (unsigned long long)min, (unsigned long long)max);
    *number = (uint64_t)value;
    return true;
}

bool rk_json_float(const struct rk_json_at *at, float *number)
{
    if (!json_is_number(at->value))
        return wrong_kind(at, "a number");
    *number = (float)json_number_value(at->value);
    return isfinite(*number) ||
           rk_json_fail(at, RK_INVALID, "is %g, too large for a float32", json_number_value(at->value));
}

bool rk_json_bool(const struct rk_json_at *at, bool *value)
{
    if (!json_is_boolean(at->value))
        return wrong_kind(at, "true or false");
    *value = json_is_true(at->value);
    return true;
}

bool rk_json_choice(const struct rk_json_at *at, const char *const *names, unsigned *choice)
{
    if (!json_is_string(at->value))
        return wrong_kind(at, "a string");
    const char *text = json_string_value(at->value);
    char allowed[256] = "";
    size_t used = 0;
    for (unsigned i = 0; names[i] != NULL; i++) {
        if (strcmp(text, names[i]) == 0) {
            *choice = i;
            return true;
        }
        int length = snprintf(allowed + used, sizeof allowed - used, "%s'%s'", i > 0 ? ", " : "", names[i]);
        used += length > 0 && (size_t)length < sizeof allowed - used ? (size_t)length : 0;
    }
    return rk_json_fail(at, RK_INVALID, "is '%.64s', must be one of %s", text, allowed);
}

bool rk_json_strings(const struct rk_json_at *at, size_t min_items, size_t max_items, const char *const **strings,
                     uint32_t *count)
{
    size_t items;
    if (!rk_json_array(at, min_items, max_items, &items))
        return false;
    const char **list = rk_json_alloc(at->doc, items, sizeof *list);
    if (list == NULL)
        return false;
    for (size_t i = 0; i < items; i++) {
        struct rk_json_at item = rk_json_item(at, i);
        if (!rk_json_string(&item, &list[i]))
            return false;
    }
    *strings = list;
    *count = (uint32_t)items;
    return true;
}

void *rk_json_alloc(const struct rk_json_doc *doc, size_t count, size_t bytes)
{
    void *memory = rk_arena_array(doc->arena, count, bytes);
    if (memory == NULL)
        rk_error_set(doc->error, RK_NO_MEMORY, "%s: does not fit into memory", doc->file);
    return memory;
}
