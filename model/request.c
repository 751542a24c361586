/* From what arrived to what the engine reads: the one place where a request's content is checked.
 *
 * Works through the two blocks (context: one row; candidates: one row each). Nothing is copied: ids are resolved where
 * they lie, dense and weights are only checked; what is new, in the caller's arena, are the offsets of the bags.
 * Everything is built on the side and given to the caller in one piece at the end. One thread at a time per request; no
 * state of its own. */
#include "model/request.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

struct binding {
    const struct rk_model_spec *spec;
    const struct rk_request_limits *limits;
    struct rk_arena *arena;
    struct rk_error *error;
    struct rk_bags *bags; /* [num_features]; offsets NULL: not seen yet */
    uint64_t num_ids, out_of_range;
    uint64_t *out_of_range_of; /* [num_features]; NULL until there is one */
};

/* The block that is being bound. */
struct block {
    const struct rk_named_block *named;
    enum rk_side side;
    const char *what; /* "context" */
    uint32_t rows;
    uint32_t expected; /* the feature that comes next when the client keeps the model's order */
    uint32_t *names;   /* hash table of this side's features, index + 1; built when the client does not */
    uint32_t names_mask;
    const uint32_t *uniform; /* offsets of the last feature that had the same number of ids in every row */
    uint64_t uniform_length;
};

static enum rk_status exhausted(struct binding *binding)
{
    return rk_error_set(binding->error, RK_EXHAUSTED,
                        "the request does not fit into the memory set aside for one request");
}

/* ---- names ---- */

/* Names arrive as any bytes; in an error text what is not printable ASCII becomes '?', and a long name is cut. */
static const char *printable(const struct rk_named_bags *bags, char text[static 68])
{
    size_t length = bags->name_bytes < 64 ? bags->name_bytes : 64;
    for (size_t i = 0; i < length; i++)
        text[i] = bags->name[i] >= 0x20 && bags->name[i] < 0x7f ? bags->name[i] : '?';
    strcpy(text + length, bags->name_bytes > 64 ? "..." : "");
    return text;
}

static bool is_named(const struct rk_feature_spec *feature, const struct rk_named_bags *bags)
{
    return strlen(feature->name) == bags->name_bytes && memcmp(feature->name, bags->name, bags->name_bytes) == 0;
}

static void move_to_side(const struct rk_model_spec *spec, struct block *block)
{
    while (block->expected < spec->num_features && spec->features[block->expected].side != block->side)
        block->expected++;
}

/* Open addressing with linear probing, at most half full. */
static enum rk_status build_names(struct binding *binding, struct block *block)
{
    const struct rk_model_spec *spec = binding->spec;
    uint32_t size = 4;
    while (size < 2 * spec->num_features)
        size *= 2;
    block->names = rk_arena_array(binding->arena, size, sizeof *block->names);
    if (block->names == NULL)
        return exhausted(binding);
    block->names_mask = size - 1;
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const char *name = spec->features[f].name;
        uint32_t slot = (uint32_t)XXH3_64bits(name, strlen(name)) & block->names_mask;
        while (block->names[slot] != 0)
            slot = (slot + 1) & block->names_mask;
        block->names[slot] = f + 1;
    }
    return RK_OK;
}

static enum rk_status find_feature(struct binding *binding, struct block *block, const struct rk_named_bags *bags,
                                   uint32_t *index)
{
    const struct rk_model_spec *spec = binding->spec;
    if (block->expected < spec->num_features && is_named(&spec->features[block->expected], bags)) {
        *index = block->expected++;
        move_to_side(spec, block);
        return RK_OK;
    }
    if (block->names == NULL && build_names(binding, block) != RK_OK)
        return RK_EXHAUSTED;
    char text[68];
    uint32_t slot = (uint32_t)XXH3_64bits(bags->name, bags->name_bytes) & block->names_mask;
    for (; block->names[slot] != 0; slot = (slot + 1) & block->names_mask) {
        *index = block->names[slot] - 1;
        const struct rk_feature_spec *feature = &spec->features[*index];
        if (!is_named(feature, bags))
            continue;
        if (feature->side != block->side)
            return rk_error_set(binding->error, RK_INVALID, "feature '%s' is in the %s block; it belongs to the %s",
                                feature->name, block->what, block->side == RK_SIDE_CONTEXT ? "candidates" : "context");
        block->expected = *index + 1; /* what follows it probably follows here too */
        move_to_side(spec, block);
        return RK_OK;
    }
    return rk_error_set(binding->error, RK_INVALID, "unknown %s feature '%s'; model '%s' has no feature of that name",
                        block->what, printable(bags, text), spec->name);
}

/* ---- places, as error texts name them ---- */

/* "feature 'game', candidate 3" or "feature 'user'" */
static const char *place(const struct block *block, const struct rk_feature_spec *feature, uint64_t row,
                         char text[static 192])
{
    if (block->side == RK_SIDE_CONTEXT)
        snprintf(text, 192, "feature '%s'", feature->name);
    else
        snprintf(text, 192, "feature '%s', candidate %llu", feature->name, (unsigned long long)row);
    return text;
}

static uint64_t row_of(const uint32_t *offsets, uint64_t position)
{
    uint64_t row = 0;
    while (offsets[row + 1] <= position)
        row++;
    return row;
}

/* ---- numbers ---- */

/* The index of the first NaN or infinity (all exponent bits set), or `count`. One pass without branches, and a second
 * only where there is something to find. */
static uint64_t first_not_finite(const float *values, uint64_t count)
{
    const uint32_t exponent = 0x7f800000;
    uint32_t found = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        found |= (bits & exponent) == exponent;
    }
    uint64_t i = found ? 0 : count;
    while (i < count && isfinite(values[i]))
        i++;
    return i;
}

static enum rk_status bind_dense(struct binding *binding, const struct block *block)
{
    const bool context = block->side == RK_SIDE_CONTEXT;
    const uint32_t width = context ? binding->spec->num_context_dense : binding->spec->num_candidate_dense;
    const uint64_t expected = (uint64_t)width * block->rows, count = block->named->num_dense;
    if (count != expected && context)
        return rk_error_set(binding->error, RK_INVALID, "context: %llu dense values, expected %llu",
                            (unsigned long long)count, (unsigned long long)expected);
    if (count != expected)
        return rk_error_set(binding->error, RK_INVALID,
                            "candidates: %llu dense values, expected %llu (%u candidates of %u)",
                            (unsigned long long)count, (unsigned long long)expected, block->rows, width);
    uint64_t bad = first_not_finite(block->named->dense, count);
    if (bad == count)
        return RK_OK;
    const char *const *names = context ? binding->spec->context_dense : binding->spec->candidate_dense;
    char where[64] = "context";
    if (!context)
        snprintf(where, sizeof where, "candidate %llu", (unsigned long long)(bad / width));
    return rk_error_set(binding->error, RK_INVALID, "%s: dense value '%s' is %g; dense values must be finite", where,
                        names[bad % width], (double)block->named->dense[bad]);
}

/* ---- bags ---- */

static enum rk_status uniform_offsets(struct binding *binding, struct block *block,
                                      const struct rk_feature_spec *feature, uint64_t num_ids, const uint32_t **result)
{
    const uint64_t length = num_ids / block->rows;
    if (length * block->rows != num_ids)
        return rk_error_set(
            binding->error, RK_INVALID,
            "feature '%s': %llu ids do not divide evenly among %u candidates; lengths must say who has how many",
            feature->name, (unsigned long long)num_ids, block->rows);
    if (block->uniform == NULL || block->uniform_length != length) {
        uint32_t *offsets = rk_arena_alloc(binding->arena, (block->rows + (size_t)1) * sizeof *offsets);
        if (offsets == NULL)
            return exhausted(binding);
        for (uint32_t r = 0; r <= block->rows; r++)
            offsets[r] = (uint32_t)(r * length);
        block->uniform = offsets;
        block->uniform_length = length;
    }
    *result = block->uniform;
    return RK_OK;
}

static enum rk_status offsets_of_lengths(struct binding *binding, const struct block *block,
                                         const struct rk_feature_spec *feature, const struct rk_named_bags *named,
                                         const uint32_t **result)
{
    if (named->num_lengths != block->rows)
        return rk_error_set(binding->error, RK_INVALID, "feature '%s': %llu lengths, expected %u, one per %s",
                            feature->name, (unsigned long long)named->num_lengths, block->rows,
                            block->side == RK_SIDE_CONTEXT ? "context" : "candidate");
    uint32_t *offsets = rk_arena_alloc(binding->arena, (block->rows + (size_t)1) * sizeof *offsets);
    if (offsets == NULL)
        return exhausted(binding);
    uint64_t sum = 0; /* rows and lengths are below 2^32 each: cannot overflow */
    offsets[0] = 0;
    for (uint32_t r = 0; r < block->rows; r++) {
        sum += named->lengths[r];
        offsets[r + 1] = (uint32_t)sum;
    }
    if (sum != named->num_ids)
        return rk_error_set(binding->error, RK_INVALID, "feature '%s': lengths add up to %llu, but there are %llu ids",
                            feature->name, (unsigned long long)sum, (unsigned long long)named->num_ids);
    *result = offsets;
    return RK_OK;
}

/* Is every id a row? One pass without branches: both an id below zero and one past the end leave the sign bit set.
 * `rows`: at least 1, at most RK_MAX_ROWS. */
static bool all_inside(const int64_t *ids, uint64_t count, uint64_t rows)
{
    uint64_t outside = 0;
    for (uint64_t i = 0; i < count; i++)
        outside |= (uint64_t)ids[i] | (rows - 1 - (uint64_t)ids[i]);
    return outside >> 63 == 0;
}

static enum rk_status resolve_ids(struct binding *binding, const struct block *block,
                                  const struct rk_feature_spec *feature, const struct rk_named_bags *named,
                                  const uint32_t *offsets)
{
    const struct rk_table_spec *table = &binding->spec->tables[feature->table];
    if (all_inside(named->ids, named->num_ids, table->num_embeddings))
        return RK_OK;
    for (uint64_t i = 0; i < named->num_ids; i++) {
        if (rk_table_resolve(table, &named->ids[i], &binding->out_of_range))
            continue;
        char where[192];
        return rk_error_set(binding->error, RK_INVALID, "%s: id %lld is outside the %llu rows of table '%s'",
                            place(block, feature, row_of(offsets, i), where), (long long)named->ids[i],
                            (unsigned long long)table->num_embeddings, table->name);
    }
    return RK_OK;
}

/* `before`: the count without this feature's ids. */
static enum rk_status count_out_of_range(struct binding *binding, uint32_t feature, uint64_t before)
{
    if (binding->out_of_range == before)
        return RK_OK;
    if (binding->out_of_range_of == NULL)
        binding->out_of_range_of =
            rk_arena_array(binding->arena, binding->spec->num_features, sizeof *binding->out_of_range_of);
    if (binding->out_of_range_of == NULL)
        return exhausted(binding);
    binding->out_of_range_of[feature] = binding->out_of_range - before;
    return RK_OK;
}

static enum rk_status check_weights(struct binding *binding, const struct block *block,
                                    const struct rk_feature_spec *feature, const struct rk_named_bags *named,
                                    const uint32_t *offsets)
{
    if (!feature->weighted && named->num_weights != 0)
        return rk_error_set(binding->error, RK_INVALID,
                            "feature '%s' has %llu weights; its bags are not weighted, leave them out", feature->name,
                            (unsigned long long)named->num_weights);
    if (feature->weighted && named->num_weights != named->num_ids)
        return rk_error_set(binding->error, RK_INVALID,
                            "feature '%s': %llu weights for %llu ids; weighted bags need one per id", feature->name,
                            (unsigned long long)named->num_weights, (unsigned long long)named->num_ids);
    uint64_t bad = first_not_finite(named->weights, named->num_weights);
    if (bad == named->num_weights)
        return RK_OK;
    char where[192];
    uint64_t row = row_of(offsets, bad);
    return rk_error_set(binding->error, RK_INVALID, "%s: weight %llu of the bag is %g; weights must be finite",
                        place(block, feature, row, where), (unsigned long long)(bad - offsets[row]),
                        (double)named->weights[bad]);
}

static enum rk_status bind_feature(struct binding *binding, struct block *block, const struct rk_named_bags *named)
{
    uint32_t index = 0;
    enum rk_status status = find_feature(binding, block, named, &index);
    if (status != RK_OK)
        return status;
    const struct rk_feature_spec *feature = &binding->spec->features[index];
    if (binding->bags[index].offsets != NULL)
        return rk_error_set(binding->error, RK_INVALID, "feature '%s' is given twice", feature->name);
    /* Offsets are 32 bits wide, whatever the limit says. */
    const uint64_t max_ids = binding->limits->max_ids < UINT32_MAX ? binding->limits->max_ids : UINT32_MAX;
    if (named->num_ids > max_ids - binding->num_ids)
        return rk_error_set(binding->error, RK_EXHAUSTED, "feature '%s' brings the request past the limit of %llu ids",
                            feature->name, (unsigned long long)max_ids);
    binding->num_ids += named->num_ids;

    const uint32_t *offsets = NULL;
    if (named->num_lengths == 0)
        status = uniform_offsets(binding, block, feature, named->num_ids, &offsets);
    else
        status = offsets_of_lengths(binding, block, feature, named, &offsets);
    if (status == RK_OK)
        status = check_weights(binding, block, feature, named, offsets);
    const uint64_t before = binding->out_of_range;
    if (status == RK_OK)
        status = resolve_ids(binding, block, feature, named, offsets);
    if (status == RK_OK)
        status = count_out_of_range(binding, index, before);
    if (status == RK_OK)
        binding->bags[index] = (struct rk_bags){
            .ids = named->ids,
            .weights = feature->weighted && named->num_weights > 0 ? named->weights : NULL,
            .offsets = offsets,
        };
    return status;
}

static enum rk_status bind_block(struct binding *binding, struct block *block)
{
    move_to_side(binding->spec, block);
    enum rk_status status = bind_dense(binding, block);
    for (uint32_t f = 0; status == RK_OK && f < block->named->num_features; f++)
        status = bind_feature(binding, block, &block->named->features[f]);
    for (uint32_t f = 0; status == RK_OK && f < binding->spec->num_features; f++)
        if (binding->spec->features[f].side == block->side && binding->bags[f].offsets == NULL)
            status = rk_error_set(binding->error, RK_INVALID, "%s feature '%s' is missing", block->what,
                                  binding->spec->features[f].name);
    return status;
}

enum rk_status rk_request_bind(const struct rk_model_spec *spec, const struct rk_request_limits *limits,
                               const struct rk_named_request *named, struct rk_arena *arena, struct rk_request *request,
                               struct rk_error *error)
{
    struct binding binding = {.spec = spec, .limits = limits, .arena = arena, .error = error};
    if (named->num_candidates == 0)
        return rk_error_set(error, RK_INVALID, "num_candidates is 0; a request has at least 1");
    if (named->num_candidates > limits->max_candidates)
        return rk_error_set(error, RK_INVALID, "num_candidates is %u; at most %u are allowed", named->num_candidates,
                            limits->max_candidates);
    binding.bags = rk_arena_array(arena, spec->num_features, sizeof *binding.bags);
    if (binding.bags == NULL)
        return exhausted(&binding);
    struct block context = {.named = &named->context, .side = RK_SIDE_CONTEXT, .what = "context", .rows = 1};
    struct block candidates = {.named = &named->candidates,
                               .side = RK_SIDE_CANDIDATE,
                               .what = "candidate",
                               .rows = named->num_candidates};
    enum rk_status status = bind_block(&binding, &context);
    if (status == RK_OK)
        status = bind_block(&binding, &candidates);
    request->out_of_range_ids = binding.out_of_range;
    if (status == RK_OK)
        *request = (struct rk_request){
            .num_candidates = named->num_candidates,
            .context_dense = named->context.dense,
            .candidate_dense = named->candidates.dense,
            .bags = binding.bags,
            .num_ids = binding.num_ids,
            .out_of_range_ids = binding.out_of_range,
            .out_of_range = binding.out_of_range_of,
        };
    return status;
}
