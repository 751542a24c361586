/* TorchRec's predictor.Predictor/Predict, as a way to ask for scores. */
#ifndef RANKD_SERVER_PREDICTOR_PROTOCOL_H
#define RANKD_SERVER_PREDICTOR_PROTOCOL_H

#include "server/rank_protocol.h"

/* Its entry's context: const char *, the model's name where the call's metadata `model` does not say; "": the only one.
 */
extern const struct rk_rank_protocol rk_predictor_protocol;

#endif
