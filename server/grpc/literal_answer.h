/* A trailers-only answer as one HEADERS frame that leaves HPACK's tables alone, so that it may stand between any two
 * header blocks that nghttp2 writes. For streams that nghttp2 itself resets: it sends nothing more on those. */
#ifndef RANKD_SERVER_GRPC_LITERAL_ANSWER_H
#define RANKD_SERVER_GRPC_LITERAL_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "server/grpc/status.h"

#define RK_LITERAL_ANSWER_BYTES(message_bytes) (80 + 3 * (message_bytes))

/* `frame` has RK_LITERAL_ANSWER_BYTES(strlen(message)) bytes, the message at most 4096; returns how many it took. */
size_t rk_literal_answer_print(uint8_t *frame, int32_t stream_id, enum rk_grpc_status status, const char *message);

#endif
