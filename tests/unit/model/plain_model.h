/* What a small model scores, by plain double-precision mathematics that can be read: the oracle of the engine. */
#ifndef RANKD_TESTS_UNIT_MODEL_PLAIN_MODEL_H
#define RANKD_TESTS_UNIT_MODEL_PLAIN_MODEL_H

#include "tests/unit/model/small_model.h"

/* Logits of one candidate, in the arena. */
const double *plain_logits(const struct rk_model *model, const struct rk_request *request, uint32_t candidate,
                           struct rk_arena *arena);

#endif
