/* Any bytes as a RankRequest: refused with a reason, or a message within the memory bound that encodes again. */
#include <stdlib.h>

#include "proto/rank_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
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
