/* Checks encoded protobuf messages before they are decoded: protobuf-c accepts field 0 and text that is not UTF-8 or
 * has a NUL inside, and when it refuses something it cannot say what. Source:
 * https://protobuf.dev/programming-guides/encoding/ */
#ifndef RANKD_PROTO_WIRE_CHECK_H
#define RANKD_PROTO_WIRE_CHECK_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

/* RK_INVALID with a text that names the field ("candidates.ids[3].feature") and the byte: a varint that is too long,
 * field number 0, groups and unknown wire types, a known field with another wire type, lengths past the end or no
 * multiple of their elements, strings that are not UTF-8 or contain NUL. Fields that the type does not have are
 * skipped. No memory is taken; arrays are not read. */
enum rk_status rk_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                             struct rk_error *error);

#endif
