/* Strict reading of JSON that strangers wrote: exact types, bounds, no unknown keys, and errors that name file and
 * field
 * ("manifest.json: tables[2].shards[0].num_rows is -1, must be from 1 to ..."). */
#ifndef RANKD_MODEL_JSON_READ_H
#define RANKD_MODEL_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/arena.h"
#include "quant/base/status.h"

/* What one document's readers share. Strings are copied into the arena; the first error is kept. */
struct rk_json_doc {
    const char *file; /* for error texts */
    struct rk_arena *arena;
    struct rk_error *error; /* never NULL */
};

/* A place in the document: lives on the reader's stack, linked to the place around it. */
struct rk_json_at {
    const struct rk_json_doc *doc;
    const struct rk_json_at *parent; /* NULL for the root */
    const char *key;                 /* NULL: an item of an array */
    size_t index;
    const json_t *value;
};

/* Parses the text; duplicate keys, trailing bytes and anything but an object are errors with line and column. Free the
 * root with json_decref. Returns NULL on errors. */
json_t *rk_json_load(const struct rk_json_doc *doc, const char *text, size_t length);
struct rk_json_at rk_json_root(const struct rk_json_doc *doc, const json_t *root);

/* Sets "<file>: <path> <formatted>" and returns false, so that a reader can `return rk_json_fail(...)`. */
bool rk_json_fail(const struct rk_json_at *at, enum rk_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The value is an object with no keys but those listed (NULL ends the list). Keys that begin with "x-" are always
 * allowed: they are annotations. */
bool rk_json_object(const struct rk_json_at *at, const char *const *keys);
/* The field `key` of an object: required, or found when there. */
bool rk_json_get(const struct rk_json_at *at, const char *key, struct rk_json_at *field);
bool rk_json_find(const struct rk_json_at *at, const char *key, struct rk_json_at *field);

bool rk_json_array(const struct rk_json_at *at, size_t min_items, size_t max_items, size_t *count);
struct rk_json_at rk_json_item(const struct rk_json_at *at, size_t index);

bool rk_json_string(const struct rk_json_at *at, const char **text); /* a copy in the arena, not empty */
bool rk_json_uint(const struct rk_json_at *at, uint64_t min, uint64_t max, uint64_t *number);
bool rk_json_float(const struct rk_json_at *at, float *number); /* any finite number, rounded to the nearest float32 */
bool rk_json_bool(const struct rk_json_at *at, bool *value);
/* One of `names` (NULL ends the list); *choice is its position. */
bool rk_json_choice(const struct rk_json_at *at, const char *const *names, unsigned *choice);

/* An array of strings, copied into the arena. */
bool rk_json_strings(const struct rk_json_at *at, size_t min_items, size_t max_items, const char *const **strings,
                     uint32_t *count);

/* Zeroed memory from the document's arena; NULL sets RK_NO_MEMORY. */
void *rk_json_alloc(const struct rk_json_doc *doc, size_t count, size_t bytes);

#endif
