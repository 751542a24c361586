/* The engine: turns slices of bound requests into logits. One engine per compute thread and model; it owns its scratch
 * memory, sized once for max_batch candidates, and allocates nothing while it runs. */
#ifndef RANKD_MODEL_ENGINE_H
#define RANKD_MODEL_ENGINE_H

#include <stdint.h>

#include "model/model.h"
#include "model/request.h"
#include "model/tower.h"

/* Candidates [first, first + count) of one request. */
struct rk_slice {
    const struct rk_request *request;
    uint32_t first, count;
    float *logits; /* [count][num_heads], written by the engine */
};

/* Where the time of a run went; together they are all of it. */
struct rk_run_cost {
    uint64_t lookup_ns, interaction_ns, towers_ns, rest_ns;
    uint64_t transfer_ns; /* to and from a device's memory; 0 on the processor */
};

struct rk_engine_counters { /* since create; read by the owner's thread */
    uint64_t batches, candidates, lookups, rows;
};

struct rk_engine;

/* The model must outlive the engine. */
enum rk_status rk_engine_create(const struct rk_model *model, uint32_t max_batch, struct rk_engine **engine,
                                struct rk_error *error);
void rk_engine_destroy(struct rk_engine *engine);

/* Scores all slices in one batch, each candidate with the very bits that it gets in any other batch; the counts must
 * sum to at most max_batch. cost: where the time went, or NULL, which saves reading the clock a few times per tile.
 * RK_CORRUPT when the model's files were damaged meanwhile: the logits are then worthless. */
enum rk_status rk_engine_run(struct rk_engine *engine, const struct rk_slice *slices, uint32_t num_slices,
                             struct rk_run_cost *cost);

/* From now on `see` is shown what every linear layer reads, once for each candidate; of a layer in two parts
 * (model/columns.h), what each part reads. Only of a bottom MLP that reads the context alone, once for each request and
 * run. see NULL: no more. RK_UNSUPPORTED unless all layers are float32. */
enum rk_status rk_engine_observe(struct rk_engine *engine, rk_observe_fn *see, void *context);

const struct rk_engine_counters *rk_engine_counters_of(const struct rk_engine *engine);

/* Scores a whole request, in batches of at most max_batch. logits [num_candidates][num_heads]. */
enum rk_status rk_engine_score(struct rk_engine *engine, const struct rk_request *request, float *logits);

/* One line for people: "cpu (avx512_vnni: linear_int8; avx512: pool_f32 ...)". Static storage. */
const char *rk_engine_describe(void);

#endif
