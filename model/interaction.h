/* The interaction: from the bottom output and the pooled features to what the top MLP reads.
 *
 * Its inputs are vectors, x (the bottom output, where there are dense inputs) and then the features in the spec's
 * order. A vector belongs to the request (context side) or to the candidate; x belongs to the request when no candidate
 * brings dense values. Each side has one matrix in which a vector keeps its column for good:
 *
 *   context    [segments][context_width]      one row per request in the tile
 *   candidate  [rows][candidate_width]        one row per candidate
 */
#ifndef RANKD_MODEL_INTERACTION_H
#define RANKD_MODEL_INTERACTION_H

#include "model/spec.h"
#include "model/tower.h"
#include "quant/kernels.h"

/* Consecutive candidates of one request. */
struct rk_segment {
    uint32_t first_row, num_rows;
};

/* Some candidates on their way through the engine together. */
struct rk_tile {
    const struct rk_segment *segments; /* in row order, covering all rows */
    uint32_t num_segments, num_rows;
    float *context, *candidate;
};

/* Where a vector lies. */
struct rk_vector {
    enum rk_side side;
    uint32_t column, dim;
};

struct rk_interaction; /* holds scratch: one thread at a time */

/* The spec (checked), the weights and the kernels must outlive it. */
enum rk_status rk_interaction_create(const struct rk_model_spec *spec, const void *weights,
                                     const struct rk_kernels *kernels, struct rk_interaction **interaction,
                                     struct rk_error *error);
void rk_interaction_destroy(struct rk_interaction *interaction);

uint32_t rk_interaction_context_width(const struct rk_interaction *interaction);
uint32_t rk_interaction_candidate_width(const struct rk_interaction *interaction);
/* NULL when the model has no dense inputs. */
const struct rk_vector *rk_interaction_x(const struct rk_interaction *interaction);
const struct rk_vector *rk_interaction_feature(const struct rk_interaction *interaction, uint32_t feature);

/* Floats per row that running it needs as scratch. */
size_t rk_interaction_scratch_floats(const struct rk_interaction *interaction);

/* out [tile rows][widths.top_in]; scratch: tile rows * rk_interaction_scratch_floats(). */
void rk_interaction_run(struct rk_interaction *interaction, const struct rk_tile *tile,
                        const struct rk_observer *observer, float *scratch, float *out);

#endif
