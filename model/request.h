/* A ranking request, in two forms.
 *
 *   named    what arrived (from the wire or from a JSON line): features by name, lengths as given, nothing checked
 *   bound    what the engine reads: features in the model's order, ids that are rows, offsets that add up
 *
 * rk_request_bind() goes from the one to the other and is the only place where a request's content is checked. It
 * copies no arrays: ids are resolved in place, so both forms live in the caller's arena. */
#ifndef RANKD_MODEL_REQUEST_H
#define RANKD_MODEL_REQUEST_H

#include <stdint.h>

#include "model/spec.h"
#include "quant/base/arena.h"
#include "quant/base/status.h"

/* One feature's bags over the rows of its block (1 for the context, num_candidates for the candidates). */
struct rk_named_bags {
    const char *name;
    size_t name_bytes;
    int64_t *ids; /* all bags one after the other; rewritten by binding */
    uint64_t num_ids;
    const uint32_t *lengths; /* ids per row; num_lengths 0 means that every row has num_ids / rows of them */
    uint64_t num_lengths;
    const float *weights; /* one per id, or num_weights 0 */
    uint64_t num_weights;
};

struct rk_named_block {
    const float *dense; /* [rows][dense inputs of this side] */
    uint64_t num_dense;
    const struct rk_named_bags *features;
    uint32_t num_features;
};

struct rk_named_request {
    const char *id; /* for people; may be empty, never NULL */
    struct rk_named_block context, candidates;
    uint32_t num_candidates;
};

struct rk_request_limits {
    uint32_t max_candidates;
    uint64_t max_ids; /* in all features together */
};
#define RK_REQUEST_LIMITS_DEFAULT ((struct rk_request_limits){.max_candidates = 65536, .max_ids = 4u << 20})

/* Feature f's bag of row r: ids[offsets[r] .. offsets[r + 1]). */
struct rk_bags {
    const int64_t *ids;      /* rows of the table: resolved */
    const float *weights;    /* NULL: ones */
    const uint32_t *offsets; /* [rows + 1] */
};

struct rk_request {
    uint32_t num_candidates;      /* at least 1 */
    const float *context_dense;   /* [spec.num_context_dense] */
    const float *candidate_dense; /* [num_candidates][spec.num_candidate_dense] */
    const struct rk_bags *bags;   /* [spec.num_features] in the spec's order */
    uint64_t num_ids;             /* in all bags together */
    uint64_t out_of_range_ids;    /* how many ids were outside their table */
    const uint64_t *out_of_range; /* [spec.num_features]: how many of each feature's; NULL: none at all */
};

/* Checks `named` against the model and the limits and fills `request` (arrays it needs come from the arena).
 * RK_INVALID naming the field, the value and what was expected: an unknown, missing or repeated feature, a wrong number
 * of dense values, lengths that do not add up, a NaN or infinity in dense or weights, an id outside its table when the
 * policy is reject, weights where there should be none or too few, no candidate or too many. RK_EXHAUSTED past another
 * limit or when the arena is full. On failure *request keeps what it held, except that out_of_range_ids is set (so that
 * rejected ids can be counted too), and nothing that another request can see has changed. */
enum rk_status rk_request_bind(const struct rk_model_spec *spec, const struct rk_request_limits *limits,
                               const struct rk_named_request *named, struct rk_arena *arena, struct rk_request *request,
                               struct rk_error *error);

#endif
