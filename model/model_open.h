/* Inside the model room only: opening a model whose manifest is not on the disk (yet), and looking at its golden
 * requests. */
#ifndef RANKD_MODEL_MODEL_OPEN_H
#define RANKD_MODEL_MODEL_OPEN_H

#include "model/manifest.h"
#include "model/model.h"

/* Maps the files of a checked spec below dir_fd, without checksums or golden requests. The spec must outlive the model.
 */
enum rk_status rk_model_open_draft(int dir_fd, const struct rk_model_spec *spec, struct rk_model **model,
                                   struct rk_error *error);

/* What the package's manifest says; of a draft, nothing. */
const struct rk_manifest *rk_model_manifest(const struct rk_model *model);

/* The result of the golden replay at open. */
struct rk_golden_result {
    uint32_t num_requests;
    double largest_error; /* relative to max(1, |logit|) */
};
const struct rk_golden_result *rk_model_golden(const struct rk_model *model);

#endif
