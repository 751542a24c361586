/* Which columns of a layer's input belong to the context.
 *
 * What depends on the user alone is computed once per request. So a layer that reads both sides has its columns in the
 * engine's own order, the context's first, and is packed as two layers, one for each part (model/towers.h):
 *
 *   bottom MLP, first layer       the context's dense inputs | the candidate's
 *   top MLP, first layer, dot     x if it is the context's, the pairs of two of its vectors | x if not, all other pairs
 *   top MLP, first layer, cat     the context's vectors | the candidate's
 *   V of the first cross layer    likewise
 *
 * What cross layers make of the concatenation stays in that order, up to the top MLP.
 *
 * The vectors that interact are x (the bottom output, where there are dense inputs) and then the features, in the
 * spec's order. x belongs to the context when no candidate brings dense values. Only for checked specs; plain data. */
#ifndef RANKD_MODEL_COLUMNS_H
#define RANKD_MODEL_COLUMNS_H

#include "model/spec.h"

/* order[the layer's inputs], or NULL: which of the spec's columns stands in column c. Returns how many, from the first
 * on, belong to the context; 0 for a layer that is in one part. */
uint32_t rk_layer_columns(const struct rk_model_spec *spec, const struct rk_layer_use *use, uint32_t *order);

enum rk_side rk_vector_side(const struct rk_model_spec *spec, uint32_t vector);
uint32_t rk_vector_dim(const struct rk_model_spec *spec, uint32_t vector);

/* The place of each vector when the context's come first: the order in which dot multiplies. Returns how many are the
 * context's. */
uint32_t rk_vector_ranks(const struct rk_model_spec *spec, uint32_t ranks[RK_MAX_FEATURES + 1]);

#endif
