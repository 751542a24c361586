/* Messages as stock clients send them are decoded in one walk (wire_decode.c); for all others, and to tell what is
 * wrong, there is protobuf-c with an arena below it and a check before it. Its in-memory form can be 72 times the size
 * of what was sent (empty submessages, unknown fields), so the arena gets a bound that honest messages keep with room
 * to spare: arrays take their own size, and RK_DECODE_MEMORY_BYTES covers the structs of a request with thousands of
 * features. Any thread; the arena's owner. */
#include "proto/rank_codec.h"

#include <stdbool.h>

#include "proto/wire_check.h"
#include "proto/wire_decode.h"

struct arena_allocator {
    ProtobufCAllocator allocator;
    struct rk_arena *arena;
    bool over_limit, out_of_memory;
};

static void *arena_alloc(void *data, size_t bytes)
{
    struct arena_allocator *from = data;
    struct rk_arena *arena = from->arena;
    void *memory = rk_arena_alloc(arena, bytes);
    if (memory == NULL) {
        /* The arena rounds up, so the last bytes below the limit cannot be had either. */
        bool over_limit =
            arena->limit_bytes - arena->used_bytes < 16 || bytes > arena->limit_bytes - arena->used_bytes - 15;
        *(over_limit ? &from->over_limit : &from->out_of_memory) = true;
    }
    return memory;
}

static void arena_free(void *data, void *memory)
{
    (void)data, (void)memory; /* the arena takes everything back at once */
}

static size_t decode_budget(size_t length)
{
    size_t bytes;
    if (__builtin_mul_overflow(length, RK_DECODE_MEMORY_FACTOR, &bytes) ||
        __builtin_add_overflow(bytes, RK_DECODE_MEMORY_BYTES, &bytes))
        return SIZE_MAX;
    return bytes;
}

enum rk_status rk_message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t length,
                                 struct rk_arena *arena, ProtobufCMessage **message, struct rk_error *error)
{
    const size_t limit_before = arena->limit_bytes, budget = decode_budget(length);
    const struct rk_arena_mark before = rk_arena_mark(arena);
    rk_arena_limit(arena, budget);
    if (arena->limit_bytes > limit_before)
        arena->limit_bytes = limit_before;
    struct arena_allocator from = {.arena = arena};
    from.allocator = (ProtobufCAllocator){arena_alloc, arena_free, &from};
    enum rk_status status = RK_OK;
    *message = rk_wire_decode(type, bytes, length, arena);
    if (*message == NULL) {
        rk_arena_rewind(arena, &before);
        status = rk_wire_check(type, bytes, length, error);
    }
    if (*message == NULL && status == RK_OK)
        *message = protobuf_c_message_unpack(type, &from.allocator, length, bytes);
    arena->limit_bytes = limit_before;

    if (*message != NULL || status != RK_OK)
        return status;
    if (from.over_limit)
        return rk_error_set(
            error, RK_EXHAUSTED,
            "a message of %zu bytes would take more than %zu bytes of memory: it has too many unknown fields "
            "or tiny submessages",
            length, budget);
    if (from.out_of_memory)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory while decoding a message of %zu bytes", length);
    return rk_error_set(error, RK_INVALID, "not a valid %s: the bytes are no protobuf message of this type",
                        type->name);
}

enum rk_status rk_message_encode(const ProtobufCMessage *message, struct rk_arena *arena, uint8_t **bytes,
                                 size_t *length)
{
    *length = protobuf_c_message_get_packed_size(message);
    *bytes = rk_arena_alloc(arena, *length);
    if (*bytes == NULL)
        return RK_NO_MEMORY;
    protobuf_c_message_pack(message, *bytes);
    return RK_OK;
}

enum rk_status rk_rank_request_decode(const uint8_t *bytes, size_t length, struct rk_arena *arena,
                                      Rankd__V1__RankRequest **request, struct rk_error *error)
{
    ProtobufCMessage *message;
    enum rk_status status =
        rk_message_decode(&rankd__v1__rank_request__descriptor, bytes, length, arena, &message, error);
    *request = (Rankd__V1__RankRequest *)message;
    return status;
}

enum rk_status rk_rank_response_encode(const Rankd__V1__RankResponse *response, struct rk_arena *arena, uint8_t **bytes,
                                       size_t *length)
{
    return rk_message_encode(&response->base, arena, bytes, length);
}
