/* Requests drawn from a spec: dense inputs around zero, ids uniform over the table, weights around one. Everything is
 * in the caller's arena; one thread per random stream. */
#include "model/traffic.h"

#include <string.h>

/* splitmix64: every state gives one output, so streams never collapse (Steele, Lea, Flood: Fast splittable pseudorandom
 * number generators, 2014). */
uint64_t rk_random_next(struct rk_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t rk_random_below(struct rk_random *random, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)rk_random_next(random) * bound >> 64);
}

float rk_random_uniform(struct rk_random *random, float low, float high)
{
    return low + (high - low) * ((float)(rk_random_next(random) >> 40) * 0x1p-24f);
}

struct drawing {
    const struct rk_model_spec *spec;
    const struct rk_traffic_options *options;
    struct rk_random *random;
    struct rk_arena *arena;
};

static bool draw_bags(const struct drawing *d, uint32_t feature, uint32_t num_rows, struct rk_named_bags *bags)
{
    const struct rk_feature_spec *spec = &d->spec->features[feature];
    uint32_t *lengths = rk_arena_array(d->arena, num_rows, sizeof *lengths);
    if (lengths == NULL)
        return false;
    *bags = (struct rk_named_bags){.name = spec->name,
                                   .name_bytes = strlen(spec->name),
                                   .lengths = lengths,
                                   .num_lengths = num_rows};
    for (uint32_t r = 0; r < num_rows; r++) {
        lengths[r] = d->options->ids_per_bag != NULL ? d->options->ids_per_bag[feature]
                                                     : (uint32_t)rk_random_below(d->random, 4);
        bags->num_ids += lengths[r];
    }
    float *weights = spec->weighted ? rk_arena_array(d->arena, bags->num_ids, sizeof *weights) : NULL;
    bags->ids = rk_arena_array(d->arena, bags->num_ids, sizeof *bags->ids);
    if (bags->ids == NULL || (spec->weighted && weights == NULL))
        return false;
    for (uint64_t i = 0; i < bags->num_ids; i++) {
        bags->ids[i] = (int64_t)rk_random_below(d->random, d->spec->tables[spec->table].num_embeddings);
        if (weights != NULL)
            weights[i] = rk_random_uniform(d->random, 0.5f, 1.5f);
    }
    bags->weights = weights;
    bags->num_weights = weights != NULL ? bags->num_ids : 0;
    return true;
}

static bool draw_block(const struct drawing *d, enum rk_side side, uint32_t num_rows, uint32_t width,
                       struct rk_named_block *block)
{
    *block = (struct rk_named_block){.num_dense = (uint64_t)num_rows * width};
    float *dense = rk_arena_array(d->arena, block->num_dense, sizeof *dense);
    struct rk_named_bags *features = rk_arena_array(d->arena, d->spec->num_features, sizeof *features);
    if (dense == NULL || features == NULL)
        return false;
    for (uint64_t i = 0; i < block->num_dense; i++)
        dense[i] = rk_random_uniform(d->random, -1.5f, 1.5f);
    for (uint32_t f = 0; f < d->spec->num_features; f++)
        if (d->spec->features[f].side == side && !draw_bags(d, f, num_rows, &features[block->num_features++]))
            return false;
    block->dense = dense;
    block->features = features;
    return true;
}

enum rk_status rk_traffic_request(const struct rk_model_spec *spec, const struct rk_traffic_options *options,
                                  struct rk_random *random, uint64_t number, struct rk_arena *arena,
                                  struct rk_named_request *request, struct rk_error *error)
{
    const struct drawing d = {.spec = spec, .options = options, .random = random, .arena = arena};
    *request = (struct rk_named_request){.id = rk_arena_printf(arena, "r%llu", (unsigned long long)number),
                                         .num_candidates = options->num_candidates};
    if (request->id == NULL || !draw_block(&d, RK_SIDE_CONTEXT, 1, spec->num_context_dense, &request->context) ||
        !draw_block(&d, RK_SIDE_CANDIDATE, options->num_candidates, spec->num_candidate_dense, &request->candidates))
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for request %llu", (unsigned long long)number);
    return RK_OK;
}
