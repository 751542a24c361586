/* The parts of a spec that config.json and manifest.json write in the same way: read once, here. */
#ifndef RANKD_MODEL_SPEC_JSON_H
#define RANKD_MODEL_SPEC_JSON_H

#include "model/json_read.h"
#include "model/spec.h"

/* Lists that end with NULL, in the order of the enums. */
extern const char *const rk_side_names[], *const rk_pooling_names[], *const rk_interaction_names[],
                                                                         *const rk_pairs_names[];

/* Each returns false with the document's error set. */
bool rk_spec_json_names(const struct rk_json_at *root, struct rk_model_spec *spec); /* name, dense, heads */
bool rk_spec_json_table(const struct rk_json_at *at, struct rk_table_spec *table);  /* name, rows, dim, out_of_range */
bool rk_spec_json_features(const struct rk_json_at *root, struct rk_model_spec *spec); /* after the tables */

/* `interaction`, whole for dot and cat. dcn_v2 names its tensors differently in the two files: of it only the op is
 * read, and *at is left on the object for the caller to read the rest. with_format: dot may have a number format. */
bool rk_spec_json_interaction(const struct rk_json_at *root, bool with_format, struct rk_json_at *at,
                              struct rk_interaction_spec *interaction);

/* The field `format` of a layer or of an interaction: a dense format, fp32 where there is none. */
bool rk_spec_json_dense_format(const struct rk_json_at *at, enum rk_dense_format *format);

#endif
