/* Measures what the models cost on this machine, once, before anything is served. */
#ifndef RANKD_SERVER_COST_MEASURE_H
#define RANKD_SERVER_COST_MEASURE_H

#include <stdint.h>

#include "quant/base/status.h"
#include "server/registry.h"

/* Fills every served model's `cost` for batches of up to max_batch candidates with made-up requests. Takes at most
 * about 0.2 s a model on a quiet machine; sizes that would take longer are extrapolated. Fails with the backend's
 * status. */
enum rk_status rk_cost_measure(struct rk_registry *registry, uint32_t max_batch, struct rk_error *error);

#endif
