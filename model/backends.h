/* Backends from the side of those who use one: the one that is built in, plug-ins and how they are found, and what is
 * the same for all of them. */
#ifndef RANKD_MODEL_BACKENDS_H
#define RANKD_MODEL_BACKENDS_H

#include <stddef.h>

#include "model/backend.h"

/* Scores with the engine (model/engine.h) on the calling thread, exactly. Takes no options. */
extern const struct rk_backend rk_backend_cpu;

/* What backends get from here. */
extern const struct rk_backend_host rk_backend_host;

/* "cpu"; or the name of a plug-in, rankd-NAME.so, which is taken from the first of the folders that has it; or the path
 * of one, with a slash in it. A plug-in stays in the process: vendors' libraries leave threads and exit handlers
 * behind. Code of a plug-in runs as rankd: its file and the folder of it must belong to root or to this user, and not
 * be writable for everybody.
 * RK_INVALID: no name, RK_NOT_FOUND: no such file (the text says where it was looked for), RK_UNSUPPORTED: not a
 * plug-in, or one for another rankd (the text says what to rebuild), RK_IO otherwise. */
enum rk_status rk_backend_find(const char *name, const char *const *folders, size_t num_folders,
                               const struct rk_backend **backend, struct rk_error *error);

/* RK_UNSUPPORTED, naming the backend and the first thing in the model that it cannot do. */
enum rk_status rk_backend_check_model(const struct rk_backend *backend, const struct rk_capabilities *capabilities,
                                      const struct rk_model_spec *spec, struct rk_error *error);

/* Of this model; zeros when the backend is exact. */
struct rk_error_bound rk_backend_error_bound(const struct rk_capabilities *capabilities,
                                             const struct rk_model_spec *spec);

/* Scores a whole request in batches of at most max_batch, which the runner was made for. logits
 * [num_candidates][num_heads]. */
enum rk_status rk_backend_score(const struct rk_backend *backend, struct rk_runner *runner, uint32_t max_batch,
                                uint32_t num_heads, const struct rk_request *request, float *logits,
                                struct rk_error *error);

#endif
