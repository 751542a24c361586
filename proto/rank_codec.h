/* Messages to and from their bytes, in an arena: nothing to free but the arena. */
#ifndef RANKD_PROTO_RANK_CODEC_H
#define RANKD_PROTO_RANK_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "proto/rankd.pb-c.h"
#include "quant/base/arena.h"
#include "quant/base/status.h"

/* Decodes a message of any type. Its arrays are 16-byte aligned and, like its strings, may be rewritten. Takes at most
 * RK_DECODE_MEMORY_FACTOR times the encoded size and RK_DECODE_MEMORY_BYTES more from the arena.
 * RK_INVALID: see rk_wire_check; RK_EXHAUSTED: the memory bound or the arena's own limit; RK_NO_MEMORY. */
#define RK_DECODE_MEMORY_FACTOR 4
#define RK_DECODE_MEMORY_BYTES  ((size_t)512 << 10)
enum rk_status rk_message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                                 struct rk_arena *arena, ProtobufCMessage **message, struct rk_error *error);

/* RK_NO_MEMORY when the arena refuses. */
enum rk_status rk_message_encode(const ProtobufCMessage *message, struct rk_arena *arena, uint8_t **bytes,
                                 size_t *length);

enum rk_status rk_rank_request_decode(const uint8_t *bytes, size_t length, struct rk_arena *arena,
                                      Rankd__V1__RankRequest **request, struct rk_error *error);
enum rk_status rk_rank_response_encode(const Rankd__V1__RankResponse *response, struct rk_arena *arena, uint8_t **bytes,
                                       size_t *length);

#endif
