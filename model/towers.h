/* The packed layers of a model, shared by all engines: made once when the model is loaded, read-only from then on. */
#ifndef RANKD_MODEL_TOWERS_H
#define RANKD_MODEL_TOWERS_H

#include "model/spec.h"
#include "quant/linear.h"

struct rk_towers {
    struct rk_linear **layers[RK_STAGE_COUNT]; /* [stage][num_layers[stage]] */
    uint32_t num_layers[RK_STAGE_COUNT];
    /* Of the stage's first layer, what reads the context alone, with the layer's bias (model/columns.h).
     * layers[stage][0] is then the rest: the candidate's columns, or none but a column of zeros where there are none.
     * NULL: the layer is not in two parts. */
    struct rk_linear *context_part[RK_STAGE_COUNT];
    size_t bytes; /* of memory that the packed layers take */
};

/* Packs the layers of a checked spec from the weights file's bytes, which are not needed afterwards. */
enum rk_status rk_towers_create(const struct rk_model_spec *spec, const void *weights, struct rk_towers **towers,
                                struct rk_error *error);
void rk_towers_destroy(struct rk_towers *towers);

#endif
