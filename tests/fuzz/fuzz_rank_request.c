/* Any bytes as a RankRequest: refused with a reason, or a message within the memory bound that encodes again; and where
 * the short way takes it, it is the same message that protobuf-c reads. */
#include <stdlib.h>
#include <string.h>

#include "proto/rank_codec.h"
#include "proto/wire_check.h"
#include "proto/wire_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void compare(const uint8_t *data, size_t size)
{
    const ProtobufCMessageDescriptor *type = &rankd__v1__rank_request__descriptor;
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    const ProtobufCMessage *ours = rk_wire_decode(type, data, size, &arena);
    if (ours != NULL) {
        ProtobufCMessage *theirs = protobuf_c_message_unpack(type, NULL, size, data);
        if (theirs == NULL || rk_wire_check(type, data, size, NULL) != RK_OK)
            abort();
        const size_t packed = protobuf_c_message_get_packed_size(theirs);
        if (protobuf_c_message_get_packed_size(ours) != packed)
            abort();
        uint8_t *one = malloc(packed + 1), *other = malloc(packed + 1);
        protobuf_c_message_pack(ours, one);
        protobuf_c_message_pack(theirs, other);
        if (memcmp(one, other, packed) != 0)
            abort();
        free(one);
        free(other);
        protobuf_c_message_free_unpacked(theirs, NULL);
    }
    rk_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    compare(data, size);
    struct rk_arena arena;
    struct rk_error error = {0};
    Rankd__V1__RankRequest *request;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_rank_request_decode(data, size, &arena, &request, &error);
    if ((status == RK_OK) != (request != NULL) || (status == RK_OK) != (error.text[0] == '\0'))
        abort();
    if (arena.used_bytes > RK_DECODE_MEMORY_FACTOR * size + RK_DECODE_MEMORY_BYTES)
        abort();
    if (request != NULL) {
        uint8_t *bytes;
        size_t length;
        Rankd__V1__RankRequest *again;
        if (rk_message_encode(&request->base, &arena, &bytes, &length) != RK_OK)
            abort();
        status = rk_rank_request_decode(bytes, length, &arena, &again, &error);
        if (status != RK_OK && status != RK_EXHAUSTED) /* packing may shrink the message and with it its bound */
            abort();
    }
    rk_arena_deinit(&arena);
    return 0;
}
