/* The protobuf structs point into the named request; only the lists of features and the candidate ids are made here. */
#include "server/tools/rank_message.h"

#include <string.h>

#include "model/value.h"
#include "proto/rank_codec.h"

static bool has_one_id_each(const struct rk_named_bags *bags, uint32_t rows)
{
    if (bags->num_ids != rows)
        return false;
    for (uint64_t i = 0; i < bags->num_lengths; i++) {
        if (bags->lengths[i] != 1)
            return false;
    }
    return true;
}

/* The feature whose first ids tell candidates apart. */
static const struct rk_named_bags *find_title_feature(const struct rk_named_block *block, uint32_t rows,
                                                      const char *wanted)
{
    for (uint32_t f = 0; f < block->num_features; f++) {
        const struct rk_named_bags *bags = &block->features[f];
        bool is_it = wanted != NULL
                         ? strlen(wanted) == bags->name_bytes && memcmp(wanted, bags->name, bags->name_bytes) == 0
                         : has_one_id_each(bags, rows);
        if (is_it)
            return bags;
    }
    return NULL;
}

static enum rk_status first_ids(const struct rk_named_bags *bags, uint32_t rows, struct rk_arena *arena, int64_t **ids,
                                struct rk_error *error)
{
    *ids = rk_arena_array(arena, rows, sizeof **ids);
    if (*ids == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    uint64_t at = 0, same = bags->num_lengths == 0 && rows > 0 ? bags->num_ids / rows : 0;
    for (uint32_t row = 0; row < rows; row++) {
        uint64_t length = bags->num_lengths == 0 ? same : row < bags->num_lengths ? bags->lengths[row] : 0;
        if (length == 0 || at >= bags->num_ids)
            return rk_error_set(error, RK_INVALID,
                                "candidates[%u] has no id of feature '%.*s', which --title-feature names",
                                (unsigned)row, (int)bags->name_bytes, bags->name);
        (*ids)[row] = bags->ids[at];
        at += length;
    }
    return RK_OK;
}

static bool uniform(const struct rk_named_bags *bags)
{
    for (uint64_t i = 1; i < bags->num_lengths; i++) {
        if (bags->lengths[i] != bags->lengths[0])
            return false;
    }
    return true;
}

static Rankd__V1__JaggedIds *make_ids(const struct rk_named_bags *bags, struct rk_arena *arena)
{
    Rankd__V1__JaggedIds *ids = rk_arena_alloc(arena, sizeof *ids);
    char *name = rk_arena_string(arena, bags->name, bags->name_bytes);
    if (ids == NULL || name == NULL)
        return NULL;
    rankd__v1__jagged_ids__init(ids);
    ids->feature = name;
    ids->ids = bags->ids;
    ids->n_ids = bags->num_ids;
    ids->weights = (float *)bags->weights;
    ids->n_weights = bags->num_weights;
    if (!uniform(bags)) { /* else the ids say it */
        ids->lengths = (uint32_t *)bags->lengths;
        ids->n_lengths = bags->num_lengths;
    }
    return ids;
}

static Rankd__V1__Features *make_features(const struct rk_named_block *block, struct rk_arena *arena)
{
    Rankd__V1__Features *features = rk_arena_alloc(arena, sizeof *features);
    Rankd__V1__JaggedIds **ids = rk_arena_array(arena, block->num_features, sizeof *ids);
    if (features == NULL || ids == NULL)
        return NULL;
    rankd__v1__features__init(features);
    features->dense = (float *)block->dense;
    features->n_dense = block->num_dense;
    features->ids = ids;
    features->n_ids = block->num_features;
    for (uint32_t f = 0; f < block->num_features; f++) {
        ids[f] = make_ids(&block->features[f], arena);
        if (ids[f] == NULL)
            return NULL;
    }
    return features;
}

static enum rk_status make_value(const char *formula, struct rk_arena *arena, Rankd__V1__ValueModel **result,
                                 struct rk_error *error)
{
    struct rk_named_value named;
    enum rk_status status = rk_value_parse(formula, arena, &named, error);
    if (status != RK_OK)
        return status;
    Rankd__V1__ValueModel *value = rk_arena_alloc(arena, sizeof *value);
    Rankd__V1__ValueModel__Term *terms = rk_arena_array(arena, named.num_terms, sizeof *terms),
                                **list = rk_arena_array(arena, named.num_terms, sizeof *list);
    if (value == NULL || terms == NULL || list == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    rankd__v1__value_model__init(value);
    value->kind = (Rankd__V1__ValueModel__Kind)(named.kind + 1); /* on the wire, 0 is none */
    value->factor = named.factor;
    value->terms = list;
    value->n_terms = named.num_terms;
    for (size_t i = 0; i < named.num_terms; i++) {
        list[i] = &terms[i];
        rankd__v1__value_model__term__init(list[i]);
        terms[i].head = (char *)named.terms[i].head;
        terms[i].weight = named.terms[i].weight;
    }
    *result = value;
    return RK_OK;
}

enum rk_status rk_rank_message_build(const struct rk_ctl_options *options, const struct rk_named_request *named,
                                     struct rk_arena *arena, struct rk_rank_message *message, struct rk_error *error)
{
    *message = (struct rk_rank_message){0};
    Rankd__V1__RankRequest request = RANKD__V1__RANK_REQUEST__INIT;
    request.model = (char *)options->model;
    request.version = (int64_t)options->version;
    request.request_id = (char *)named->id;
    request.num_candidates = named->num_candidates;
    request.top_k = (uint32_t)options->top;
    request.order_by = (char *)(options->order_by != NULL ? options->order_by : "");
    request.value_model = (char *)(options->value_model != NULL ? options->value_model : "");
    request.priority = (char *)(options->priority != NULL ? options->priority : "");
    request.include_logits = true;
    request.include_costs = options->costs;
    if (options->value != NULL) {
        enum rk_status status = make_value(options->value, arena, &request.value, error);
        if (status != RK_OK)
            return status;
    }
    request.context = make_features(&named->context, arena);
    request.candidates = make_features(&named->candidates, arena);
    if (request.context == NULL || request.candidates == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");

    const struct rk_named_bags *titled =
        find_title_feature(&named->candidates, named->num_candidates, options->title_feature);
    if (titled == NULL && options->title_feature != NULL)
        return rk_error_set(error, RK_INVALID, "the candidates have no feature '%s', which --title-feature names",
                            options->title_feature);
    if (options->top > 0 && titled != NULL) {
        enum rk_status status = first_ids(titled, named->num_candidates, arena, &request.candidate_ids, error);
        if (status != RK_OK)
            return status;
        request.n_candidate_ids = named->num_candidates;
        message->title_feature = rk_arena_string(arena, titled->name, titled->name_bytes);
    }
    if (rk_message_encode(&request.base, arena, &message->bytes, &message->length) != RK_OK)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    return RK_OK;
}
