/* The short way from an encoded message to protobuf-c's struct. */
#ifndef RANKD_PROTO_WIRE_DECODE_H
#define RANKD_PROTO_WIRE_DECODE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/arena.h"

/* What rk_wire_check and protobuf_c_message_unpack would make of the message, in the arena; arrays are 16-byte aligned.
 * NULL says nothing about the message: it is written in a way that stock clients do not write, or it is none, or it
 * does not fit into the arena. The arena keeps what was taken from it. */
ProtobufCMessage *rk_wire_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                                 struct rk_arena *arena);

#endif
