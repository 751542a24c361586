/* Calibration, then the sigmoid over all of it at once: its kernels give every element the same bits wherever it
 * stands. Any thread. */
#include "model/probability.h"

#include "quant/kernels.h"

void rk_probabilities(const struct rk_model_spec *spec, const float *logits, size_t count, float *probabilities)
{
    const size_t heads = spec->num_heads;
    const float *inputs = logits;
    if (spec->calibration != NULL) {
        for (size_t c = 0; c < count; c++)
            for (size_t h = 0; h < heads; h++)
                probabilities[c * heads + h] =
                    spec->calibration[h].scale * logits[c * heads + h] + spec->calibration[h].shift;
        inputs = probabilities;
    }
    rk_kernels_get()->sigmoid(inputs, count * heads, probabilities);
}
