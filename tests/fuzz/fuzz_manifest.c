/* Any bytes as a manifest: refused with a reason, or a model whose manifest can be printed and read again. */
#include <stdlib.h>
#include <string.h>

#include "model/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rk_arena arena;
    struct rk_error error = {0};
    struct rk_manifest manifest;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_manifest_parse((const char *)data, size, &arena, &manifest, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
    if (status == RK_OK) {
        struct rk_model_widths widths = rk_model_spec_widths(&manifest.spec);
        char *text = rk_manifest_print(&manifest);
        struct rk_manifest again;
        if (widths.top_in == 0 || text == NULL ||
            rk_manifest_parse(text, strlen(text), &arena, &again, &error) != RK_OK)
            abort();
        free(text);
    }
    rk_arena_deinit(&arena);
    return 0;
}
