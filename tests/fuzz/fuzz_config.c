/* Any bytes as a config.json: refused with a reason, or read. */
#include <stdlib.h>

#include "model/config_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_arena arena;
    struct rk_error error = {0};
    struct rk_config config;
    struct rk_draft draft;
    const struct rk_shard_limits limits = {.max_rows = UINT64_MAX, .max_bytes = (uint64_t)1 << 30};
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_config_parse("f", (const char *)data, size, &arena, &config, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
    /* No checkpoint has its tensors: the draft must say so. */
    if (status == RK_OK && rk_draft_create(&config, "f", NULL, 0, "w", &limits, &arena, &draft, &error) == RK_OK)
        abort();
    rk_arena_deinit(&arena);
    return 0;
}
