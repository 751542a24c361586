/* From logits to probabilities. */
#ifndef RANKD_MODEL_PROBABILITY_H
#define RANKD_MODEL_PROBABILITY_H

#include <stddef.h>

#include "model/spec.h"

/* probabilities[count][num_heads] = 1 / (1 + exp(-(scale * logit + shift))) of logits [count][num_heads], with the
 * heads' calibration, without overflow, in float32: the product is rounded, then the sum. The arrays must not overlap.
 */
void rk_probabilities(const struct rk_model_spec *spec, const float *logits, size_t count, float *probabilities);

#endif
