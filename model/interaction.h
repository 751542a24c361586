/* The interaction: from the bottom output and the pooled features to the rows that the top MLP reads, in its format.
 *
 * Its inputs are vectors, x (the bottom output, where there are dense inputs) and then the features, each the context's
 * or the candidate's (model/columns.h). Each side has one matrix of floats in which a vector keeps its column for good:
 *
 *   context    [requests][context_stride]     one row per request in the tile
 *   candidate  [rows][candidate_stride]       one row per candidate
 *
 * Under cat and dcn_v2 a row is the concatenation of its side's vectors. Strides are multiples of 16 floats. What no
 * vector covers must be zero. */
#ifndef RANKD_MODEL_INTERACTION_H
#define RANKD_MODEL_INTERACTION_H

#include "model/context_part.h"
#include "model/scratch.h"
#include "model/spec.h"
#include "model/tile.h"
#include "model/tower.h"
#include "model/towers.h"

/* Where a vector lies. */
struct rk_vector {
    enum rk_side side;
    uint32_t column, dim;
};

struct rk_interaction; /* holds scratch: one thread at a time */

/* The spec (checked) and the towers must outlive it. */
enum rk_status rk_interaction_create(const struct rk_model_spec *spec, const struct rk_towers *towers,
                                     struct rk_interaction **interaction, struct rk_error *error);
void rk_interaction_destroy(struct rk_interaction *interaction);

uint32_t rk_interaction_context_stride(const struct rk_interaction *interaction); /* in floats */
uint32_t rk_interaction_candidate_stride(const struct rk_interaction *interaction);
/* NULL when the model has no dense inputs. */
const struct rk_vector *rk_interaction_x(const struct rk_interaction *interaction);
const struct rk_vector *rk_interaction_feature(const struct rk_interaction *interaction, uint32_t feature);

/* Cuts its scratch for tiles of up to `rows` (and requests). */
void rk_interaction_cut(struct rk_interaction *interaction, uint32_t rows, struct rk_scratch *scratch);

/* top: what the context's part of the top MLP's first layer reads is set for the new requests of the tile. out: the
 * rows of the tile in the format of the other part, or of the layer as a whole. */
void rk_interaction_run(struct rk_interaction *interaction, const struct rk_tile *tile,
                        const struct rk_observer *observer, struct rk_context_part *top, struct rk_matrix *out);

/* What was computed for request `request` of the last tile is kept for the first one of the next. */
void rk_interaction_carry(struct rk_interaction *interaction, uint32_t request);

#endif
