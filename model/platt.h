/* Fitting a head's calibration to what came of its candidates. */
#ifndef RANKD_MODEL_PLATT_H
#define RANKD_MODEL_PLATT_H

#include "model/metrics.h"
#include "model/spec.h"

/* The scale and shift of the greatest likelihood, with Platt's targets: a positive counts as (P + 1) / (P + 2) and a
 * negative as 1 / (N + 2), so that a few samples cannot make it sure of anything (Platt 1999; the method is that of
 * Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs for support vector machines"). RK_INVALID when there
 * are not both kinds of samples, or when the logits do not rise with the labels: no scale above 0 fits then. `head` is
 * for the text. */
enum rk_status rk_platt_fit(const struct rk_scored *samples, size_t count, const char *head,
                            struct rk_calibration *calibration, struct rk_error *error);

#endif
