/* Cuts the arrays at the features' ends. Nothing is copied but the candidates' dense inputs, where the context's stand
 * between them. Pure; the arena's owner. */
#include "server/rows.h"

#include <inttypes.h>
#include <string.h>

static enum rk_status out_of_memory(struct rk_error *error)
{
    return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request's features");
}

static bool is_chosen(const struct rk_row_choice *choice, const struct rk_feature_spec *feature)
{
    return (feature->side == RK_SIDE_CONTEXT ? choice->context : choice->candidates) &&
           (feature->weighted ? choice->weighted : choice->not_weighted);
}

uint32_t rk_rows_count_features(const struct rk_model_spec *spec, const struct rk_row_choice *choice)
{
    uint32_t count = 0;
    for (uint32_t f = 0; f < spec->num_features; f++)
        count += is_chosen(choice, &spec->features[f]);
    return count;
}

static Rankd__V1__Features *new_features(const struct rk_rows *rows)
{
    Rankd__V1__Features *features = rk_arena_alloc(rows->arena, sizeof *features);
    if (features == NULL)
        return NULL;
    rankd__v1__features__init(features);
    features->ids = rk_arena_array(rows->arena, rows->spec->num_features, sizeof *features->ids);
    return features->ids != NULL ? features : NULL;
}

enum rk_status rk_rows_begin(struct rk_rows *rows, const struct rk_model_spec *spec, struct rk_arena *arena,
                             Rankd__V1__RankRequest *request, uint32_t num_rows, bool context_apart,
                             struct rk_error *error)
{
    *rows = (struct rk_rows){
        .spec = spec, .arena = arena, .request = request, .num_rows = num_rows, .context_apart = context_apart};
    request->num_candidates = num_rows;
    request->context = new_features(rows);
    request->candidates = new_features(rows);
    return request->context != NULL && request->candidates != NULL ? RK_OK : out_of_memory(error);
}

/* ---- bags ---- */

/* Where the next feature's arrays begin. */
struct place {
    const uint32_t *lengths;
    int64_t *ids;
    const float *weights; /* NULL: none */
    uint64_t ids_left;
};

static enum rk_status differs(const char *what, const char *name, uint32_t row, struct rk_error *error)
{
    return rk_error_set(error, RK_INVALID,
                        "%s: '%s' is of the context, and row %u has another value than row 0; a request ranks for one "
                        "context",
                        what, name, row);
}

/* All bags of a context feature are as the first one. */
static enum rk_status check_repeated(const struct place *place, const struct rk_feature_spec *feature,
                                     uint32_t num_rows, const char *what, struct rk_error *error)
{
    const uint32_t length = place->lengths[0];
    for (uint32_t row = 1; row < num_rows; row++) {
        const uint64_t at = (uint64_t)row * length;
        if (place->lengths[row] != length || memcmp(place->ids + at, place->ids, length * sizeof *place->ids) != 0 ||
            (feature->weighted && place->weights != NULL &&
             memcmp(place->weights + at, place->weights, length * sizeof *place->weights) != 0))
            return differs(what, feature->name, row, error);
    }
    return RK_OK;
}

static enum rk_status add_feature(struct rk_rows *rows, const struct rk_feature_spec *feature, struct place *place,
                                  const char *lengths, const char *ids, struct rk_error *error)
{
    const bool context = feature->side == RK_SIDE_CONTEXT;
    const uint32_t given = context && rows->context_apart ? 1 : rows->num_rows, kept = context ? 1 : rows->num_rows;
    uint64_t sum = 0;
    for (uint32_t row = 0; row < given; row++)
        sum += place->lengths[row];
    if (sum > place->ids_left)
        return rk_error_set(error, RK_INVALID,
                            "%s: those of feature '%s' add up to %" PRIu64 ", and %s has %" PRIu64
                            " values left for it",
                            lengths, feature->name, sum, ids, place->ids_left);
    if (kept < given && check_repeated(place, feature, given, ids, error) != RK_OK)
        return RK_INVALID;
    Rankd__V1__JaggedIds *jagged = rk_arena_alloc(rows->arena, sizeof *jagged);
    if (jagged == NULL)
        return out_of_memory(error);
    rankd__v1__jagged_ids__init(jagged);
    jagged->feature = (char *)feature->name; /* only read */
    jagged->lengths = (uint32_t *)place->lengths;
    jagged->n_lengths = kept;
    jagged->ids = place->ids;
    jagged->n_ids = kept < given ? place->lengths[0] : sum;
    if (feature->weighted && place->weights != NULL) {
        jagged->weights = (float *)place->weights;
        jagged->n_weights = jagged->n_ids;
    }
    Rankd__V1__Features *side = context ? rows->request->context : rows->request->candidates;
    side->ids[side->n_ids++] = jagged;
    place->lengths += given;
    place->ids += sum;
    place->ids_left -= sum;
    if (place->weights != NULL)
        place->weights += sum;
    return RK_OK;
}

enum rk_status rk_rows_add_bags(struct rk_rows *rows, const struct rk_row_choice *choice,
                                const struct rk_row_bags *bags, const char *lengths, const char *ids,
                                struct rk_error *error)
{
    const struct rk_model_spec *spec = rows->spec;
    const uint32_t num_features = rk_rows_count_features(spec, choice);
    const uint32_t num_rows = choice->context && rows->context_apart ? 1 : rows->num_rows;
    const uint64_t expected = (uint64_t)num_features * num_rows;
    if (bags->num_lengths != expected)
        return rk_error_set(error, RK_INVALID,
                            "%s has %" PRIu64 " values; model '%s' takes %" PRIu64 ", for %u features and %u rows",
                            lengths, bags->num_lengths, spec->name, expected, num_features, num_rows);
    if (bags->num_weights != 0 && bags->num_weights != bags->num_ids)
        return rk_error_set(error, RK_INVALID,
                            "there are %" PRIu64 " weights for the %" PRIu64 " values of %s; give one each",
                            bags->num_weights, bags->num_ids, ids);
    struct place place = {.lengths = bags->lengths,
                          .ids = bags->ids,
                          .weights = bags->num_weights > 0 ? bags->weights : NULL,
                          .ids_left = bags->num_ids};
    enum rk_status status = RK_OK;
    for (uint32_t f = 0; status == RK_OK && f < spec->num_features; f++) {
        if (is_chosen(choice, &spec->features[f]))
            status = add_feature(rows, &spec->features[f], &place, lengths, ids, error);
    }
    if (status == RK_OK && place.ids_left > 0)
        return rk_error_set(error, RK_INVALID, "%s has %" PRIu64 " values, and %s adds up to %" PRIu64, ids,
                            bags->num_ids, lengths, bags->num_ids - place.ids_left);
    return status;
}

/* ---- dense ---- */

enum rk_status rk_rows_add_dense(struct rk_rows *rows, float *values, uint64_t count, const char *what,
                                 struct rk_error *error)
{
    const struct rk_model_spec *spec = rows->spec;
    Rankd__V1__Features *context = rows->request->context, *candidates = rows->request->candidates;
    const size_t skipped = rows->context_apart ? 0 : spec->num_context_dense, kept = spec->num_candidate_dense;
    const uint64_t width = skipped + kept, expected = width * rows->num_rows;
    if (count != expected)
        return rk_error_set(error, RK_INVALID,
                            "%s has %" PRIu64 " values; model '%s' takes %" PRIu64 ", for %" PRIu64
                            " inputs and %u rows",
                            what, count, spec->name, expected, width, rows->num_rows);
    candidates->n_dense = kept * rows->num_rows;
    if (skipped == 0) {
        candidates->dense = values;
        return RK_OK;
    }
    context->dense = values;
    context->n_dense = skipped;
    candidates->dense = rk_arena_alloc(rows->arena, candidates->n_dense * sizeof(float));
    if (candidates->dense == NULL)
        return out_of_memory(error);
    for (uint32_t row = 0; row < rows->num_rows; row++) {
        const float *from = values + row * width;
        for (size_t i = 0; i < skipped; i++) {
            if (memcmp(&from[i], &values[i], sizeof *from) != 0)
                return differs(what, spec->context_dense[i], row, error);
        }
        memcpy(candidates->dense + row * kept, from + skipped, kept * sizeof *from);
    }
    return RK_OK;
}

/* ---- other types ---- */

enum rk_status rk_rows_lengths32(const int32_t *values, uint64_t count, const char *what, const uint32_t **lengths,
                                 struct rk_error *error)
{
    for (uint64_t i = 0; i < count; i++) {
        if (values[i] < 0)
            return rk_error_set(error, RK_INVALID, "%s[%" PRIu64 "] is %" PRId32 "; a bag has 0 ids or more", what, i,
                                values[i]);
    }
    *lengths = (const uint32_t *)values;
    return RK_OK;
}

enum rk_status rk_rows_lengths64(const int64_t *values, uint64_t count, const char *what, struct rk_arena *arena,
                                 const uint32_t **lengths, struct rk_error *error)
{
    uint32_t *narrow = rk_arena_array(arena, count, sizeof *narrow);
    if (narrow == NULL)
        return out_of_memory(error);
    for (uint64_t i = 0; i < count; i++) {
        if (values[i] < 0 || values[i] > UINT32_MAX)
            return rk_error_set(error, RK_INVALID,
                                "%s[%" PRIu64 "] is %" PRId64 "; a bag has 0 ids or more, and fewer than 2^32", what, i,
                                values[i]);
        narrow[i] = (uint32_t)values[i];
    }
    *lengths = narrow;
    return RK_OK;
}

int64_t *rk_rows_widen(const int32_t *values, uint64_t count, struct rk_arena *arena)
{
    int64_t *wide = rk_arena_alloc(arena, count * sizeof *wide);
    for (uint64_t i = 0; wide != NULL && i < count; i++)
        wide[i] = values[i];
    return wide;
}
