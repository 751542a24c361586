/* A checkpoint of a few hundred weights in a temporary folder, and the package that the importer makes of it. */
#ifndef RANKD_TESTS_UNIT_MODEL_TINY_MODEL_H
#define RANKD_TESTS_UNIT_MODEL_TINY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/import.h"

struct tiny {
    char path[64]; /* the temporary folder */
    char config[96], weights[96], package[96];
};

/* The configuration: two tables (5 x 4 and 3 x 4), three features, 2 + 1 dense inputs, dot, two heads. Each "%s" in it
 * is a place where a test may put more fields of table "a", of table "b", and of the whole. */
#define TINY_CONFIG_FORMAT                                                                                             \
    "{\"name\": \"tiny\", \"dense\": {\"context\": [\"c0\", \"c1\"], \"candidate\": [\"d0\"]},\n"                      \
    " \"tables\": [{\"name\": \"a\", \"rows\": 5, \"dim\": 4, \"weight\": \"emb.a\"%s},\n"                             \
    "              {\"name\": \"b\", \"rows\": 3, \"dim\": 4, \"weight\": \"emb.b\"%s}],\n"                            \
    " \"features\": [{\"name\": \"fa\", \"table\": \"a\", \"side\": \"context\", \"pooling\": \"sum\", \"weighted\": " \
    "true},\n"                                                                                                         \
    "                {\"name\": \"fa2\", \"table\": \"a\", \"side\": \"candidate\", \"pooling\": \"mean\"},\n"         \
    "                {\"name\": \"fb\", \"table\": \"b\", \"side\": \"candidate\", \"pooling\": \"sum\"}],\n"          \
    " \"bottom_mlp\": [\"bot\"], \"interaction\": {\"op\": \"dot\", \"self\": false, \"pairs\": \"tril\"},\n"          \
    " \"top_mlp\": [\"top.0\", \"top.1\"], \"heads\": [\"click\", \"like\"]%s}\n"

/* One tensor of a checkpoint. data is elements of the dtype; NULL: made up from the name. */
struct tiny_tensor {
    const char *name, *dtype;
    unsigned rank;
    uint64_t shape[3];
    const void *data;
};
extern const struct tiny_tensor tiny_tensors[];
extern const size_t tiny_num_tensors;

/* The folder with config.json and model.safetensors. */
void tiny_create(struct tiny *tiny);
void tiny_destroy(struct tiny *tiny);

/* The bytes of a safetensors file, to be freed. */
unsigned char *tiny_safetensors(const struct tiny_tensor *tensors, size_t count, size_t *bytes);

void tiny_write(const struct tiny *tiny, const char *name, const void *data, size_t bytes);
unsigned char *tiny_read(const struct tiny *tiny, const char *name, size_t *bytes);

/* Import with the folder's files and 2 golden requests; `change`, when not NULL, may alter the options. */
enum rk_status tiny_import(const struct tiny *tiny, void (*change)(struct rk_import_options *options),
                           struct rk_error *error);
/* The same, which must succeed. */
void tiny_import_fine(const struct tiny *tiny);

/* Is there anything in the folder but config.json, model.safetensors and files that were there before? */
size_t tiny_count_entries(const struct tiny *tiny);

#endif
