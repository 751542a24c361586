/* ModelInfer of the Open Inference Protocol, as a way to ask for scores. */
#ifndef RANKD_SERVER_INFERENCE_PROTOCOL_H
#define RANKD_SERVER_INFERENCE_PROTOCOL_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/rank_protocol.h"

/* Of one model's ModelInfer calls on one event loop; any thread adds, any reads. */
struct rk_inference_stats {
    _Atomic uint64_t requests, candidates, batches, last_ms;
    _Atomic uint64_t total_ns, input_ns, queue_ns, infer_ns, output_ns;
};

/* Its entry's context: struct rk_inference_stats [models of the registry]. */
extern const struct rk_rank_protocol rk_inference_protocol;

/* A version as the protocol writes it: "" is 0, the one being served. RK_INVALID names what else it is. */
enum rk_status rk_inference_version(const char *text, int64_t *version, struct rk_error *error);

#endif
