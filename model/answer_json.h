/* The parts of a spec that say what becomes of the logits, as config.json and manifest.json write them. */
#ifndef RANKD_MODEL_ANSWER_JSON_H
#define RANKD_MODEL_ANSWER_JSON_H

#include "model/json_read.h"
#include "model/spec.h"

/* calibration, value_models, default_value_model: each may be left out. After the heads. False with the document's
 * error set. */
bool rk_answer_json_read(const struct rk_json_at *root, struct rk_model_spec *spec);

/* Adds those that the spec has to a manifest; false when memory runs out. */
bool rk_answer_json_print(const struct rk_model_spec *spec, json_t *root);

#endif
