/* Any bytes as a safetensors file: refused, or every tensor can be read to its end. */
#include <stdlib.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_arena arena;
    struct rk_error error = {0};
    struct rk_tensor *tensors;
    size_t count;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_safetensors_parse("f", data, size, &arena, &tensors, &count, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort(); /* a failure without a reason, or a reason without a failure */
    uint64_t covered = 0;
    for (size_t i = 0; status == RK_OK && i < count; i++) {
        float values[64];
        covered += tensors[i].bytes;
        for (uint64_t at = 0; at < tensors[i].elements && rk_dtype_is_float(tensors[i].dtype); at += 64) {
            uint64_t left = tensors[i].elements - at;
            rk_tensor_read(&tensors[i], at, left < 64 ? left : 64, values);
        }
    }
    if (covered > size)
        abort();
    rk_arena_deinit(&arena);
    return 0;
}
