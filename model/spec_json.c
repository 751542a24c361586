/* Readers for names, tables, features and interactions. Everything read is in the document's arena; one thread per
 * document. */
#include "model/spec_json.h"

#include <string.h>

#include "model/nearest.h"

const char *const rk_side_names[] = {[RK_SIDE_CONTEXT] = "context", [RK_SIDE_CANDIDATE] = "candidate", NULL};
const char *const rk_pooling_names[] = {[RK_POOLING_SUM] = "sum", [RK_POOLING_MEAN] = "mean", NULL};
const char *const rk_interaction_names[] = {
    [RK_INTERACTION_DOT] = "dot", [RK_INTERACTION_CAT] = "cat", [RK_INTERACTION_DCN_V2] = "dcn_v2", NULL};
const char *const rk_pairs_names[] = {[RK_PAIRS_TRIL] = "tril", [RK_PAIRS_TRIU] = "triu", NULL};

bool rk_spec_json_names(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    static const char *const dense_keys[] = {"context", "candidate", NULL};
    struct rk_json_at at, side;
    return rk_json_get(root, "name", &at) && rk_json_string(&at, &spec->name) && rk_json_get(root, "dense", &at) &&
           rk_json_object(&at, dense_keys) && rk_json_get(&at, "context", &side) &&
           rk_json_strings(&side, 0, RK_MAX_WIDTH, &spec->context_dense, &spec->num_context_dense) &&
           rk_json_get(&at, "candidate", &side) &&
           rk_json_strings(&side, 0, RK_MAX_WIDTH, &spec->candidate_dense, &spec->num_candidate_dense) &&
           rk_json_get(root, "heads", &at) && rk_json_strings(&at, 1, RK_MAX_HEADS, &spec->heads, &spec->num_heads);
}

bool rk_spec_json_table(const struct rk_json_at *at, struct rk_table_spec *table)
{
    struct rk_json_at field;
    uint64_t dim;
    if (!rk_json_get(at, "name", &field) || !rk_json_string(&field, &table->name) || !rk_json_get(at, "rows", &field) ||
        !rk_json_uint(&field, 1, RK_MAX_ROWS, &table->num_embeddings) || !rk_json_get(at, "dim", &field) ||
        !rk_json_uint(&field, 1, RK_MAX_WIDTH, &dim))
        return false;
    table->embedding_dim = (uint32_t)dim;
    table->format = RK_ROWS_F32;
    table->out_of_range = RK_OUT_OF_RANGE_REJECT;
    if (rk_json_find(at, "out_of_range", &field)) {
        const char *names[RK_OUT_OF_RANGE_COUNT + 1] = {NULL};
        for (int i = 0; i < RK_OUT_OF_RANGE_COUNT; i++)
            names[i] = rk_out_of_range_name((enum rk_out_of_range)i);
        unsigned policy;
        if (!rk_json_choice(&field, names, &policy))
            return false;
        table->out_of_range = (enum rk_out_of_range)policy;
    }
    bool given = rk_json_find(at, "default_row", &field);
    if (table->out_of_range == RK_OUT_OF_RANGE_DEFAULT)
        return given ? rk_json_uint(&field, 0, table->num_embeddings - 1, &table->default_row)
                     : rk_json_fail(&field, RK_INVALID, "is missing: out_of_range 'default_row' needs it");
    return !given || rk_json_fail(&field, RK_INVALID, "has a meaning only with out_of_range 'default_row'");
}

static bool read_feature(const struct rk_json_at *at, const struct rk_model_spec *spec, const char *const *table_names,
                         struct rk_feature_spec *feature)
{
    static const char *const keys[] = {"name", "table", "side", "pooling", "weighted", NULL};
    struct rk_json_at field;
    const char *table;
    unsigned choice;
    if (!rk_json_object(at, keys) || !rk_json_get(at, "name", &field) || !rk_json_string(&field, &feature->name) ||
        !rk_json_get(at, "table", &field) || !rk_json_string(&field, &table))
        return false;
    uint32_t t = 0;
    while (t < spec->num_tables && strcmp(table_names[t], table) != 0)
        t++;
    if (t == spec->num_tables) {
        char hint[160];
        return rk_json_fail(&field, RK_INVALID, "is '%.128s', not the name of a table%s", table,
                            rk_did_you_mean(table, table_names, spec->num_tables, hint, sizeof hint));
    }
    feature->table = t;
    if (!rk_json_get(at, "side", &field) || !rk_json_choice(&field, rk_side_names, &choice))
        return false;
    feature->side = (enum rk_side)choice;
    if (!rk_json_get(at, "pooling", &field) || !rk_json_choice(&field, rk_pooling_names, &choice))
        return false;
    feature->pooling = (enum rk_pooling)choice;
    feature->weighted = false;
    return !rk_json_find(at, "weighted", &field) || rk_json_bool(&field, &feature->weighted);
}

bool rk_spec_json_features(const struct rk_json_at *root, struct rk_model_spec *spec)
{
    struct rk_json_at at;
    size_t count;
    if (!rk_json_get(root, "features", &at) || !rk_json_array(&at, 0, RK_MAX_FEATURES, &count))
        return false;
    struct rk_feature_spec *features = rk_json_alloc(at.doc, count, sizeof *features);
    const char **table_names = rk_json_alloc(at.doc, spec->num_tables, sizeof *table_names);
    if (features == NULL || table_names == NULL)
        return false;
    for (uint32_t t = 0; t < spec->num_tables; t++)
        table_names[t] = spec->tables[t].name;
    for (size_t i = 0; i < count; i++) {
        struct rk_json_at item = rk_json_item(&at, i);
        if (!read_feature(&item, spec, table_names, &features[i]))
            return false;
    }
    spec->features = features;
    spec->num_features = (uint32_t)count;
    return true;
}

bool rk_spec_json_dense_format(const struct rk_json_at *at, enum rk_dense_format *format)
{
    const char *names[RK_DENSE_FORMAT_COUNT + 1] = {NULL};
    struct rk_json_at field;
    unsigned choice = RK_DENSE_F32;
    for (int i = 0; i < RK_DENSE_FORMAT_COUNT; i++)
        names[i] = rk_dense_format_name((enum rk_dense_format)i);
    if (rk_json_find(at, "format", &field) && !rk_json_choice(&field, names, &choice))
        return false;
    *format = (enum rk_dense_format)choice;
    return true;
}

static bool read_dot(const struct rk_json_at *at, bool with_format, struct rk_interaction_spec *interaction)
{
    static const char *const plain_keys[] = {"op", "pairs", "self", NULL};
    static const char *const keys[] = {"op", "pairs", "self", "format", NULL};
    struct rk_json_at field;
    unsigned choice;
    if (!rk_json_object(at, with_format ? keys : plain_keys) || !rk_spec_json_dense_format(at, &interaction->format) ||
        !rk_json_get(at, "pairs", &field) || !rk_json_choice(&field, rk_pairs_names, &choice))
        return false;
    interaction->pairs = (enum rk_pairs)choice;
    return rk_json_get(at, "self", &field) && rk_json_bool(&field, &interaction->self);
}

bool rk_spec_json_interaction(const struct rk_json_at *root, bool with_format, struct rk_json_at *at,
                              struct rk_interaction_spec *interaction)
{
    static const char *const cat_keys[] = {"op", NULL};
    struct rk_json_at field;
    unsigned choice;
    if (!rk_json_get(root, "interaction", at))
        return false;
    if (!json_is_object(at->value))
        return rk_json_fail(at, RK_INVALID, "must be an object");
    if (!rk_json_get(at, "op", &field) || !rk_json_choice(&field, rk_interaction_names, &choice))
        return false;
    interaction->op = (enum rk_interaction_op)choice;
    switch (interaction->op) {
    case RK_INTERACTION_DOT:
        return read_dot(at, with_format, interaction);
    case RK_INTERACTION_CAT:
        return rk_json_object(at, cat_keys);
    case RK_INTERACTION_DCN_V2:
        return true;
    }
    return false;
}
