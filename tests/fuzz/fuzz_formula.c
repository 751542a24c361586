/* Any text as a formula: refused with a reason, or what its printed form reads back to. */
#include <stdlib.h>
#include <string.h>

#include "model/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The heads of the formula itself, so that any name is one; false when it has too many. */
static uint32_t name_heads(const struct rk_named_value *named, const char **heads, uint32_t most)
{
    uint32_t count = 0;
    for (size_t i = 0; i < named->num_terms && count < most; i++)
        heads[count++] = named->terms[i].head;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MAX_HEADS = 64 };
    const char *heads[MAX_HEADS];
    char printed[1 << 12], again[1 << 12];
    struct rk_arena arena;
    struct rk_named_value named;
    struct rk_value_model value;
    struct rk_error error = {0};
    rk_arena_init(&arena, 4096);
    const char *text = rk_arena_string(&arena, (const char *)data, size);
    enum rk_status status = rk_value_parse(text, &arena, &named, &error);
    if ((status == RK_OK) != (error.text[0] == '\0') || (status == RK_OK && named.num_terms == 0))
        abort();
    if (status == RK_OK) {
        const uint32_t num_heads = name_heads(&named, heads, MAX_HEADS);
        status = rk_value_bind(&named, "value", heads, num_heads, &arena, &value, &error);
        if ((status == RK_OK) != (error.text[0] == '\0'))
            abort();
    }
    if (status == RK_OK && strlen(rk_value_print(&value, heads, printed, sizeof printed)) + 1 < sizeof printed) {
        const enum rk_value_kind kind = value.kind;
        if (rk_value_parse(printed, &arena, &named, &error) != RK_OK || named.kind != kind ||
            named.num_terms != value.num_terms)
            abort();
        /* Six digits do not restore a weight, but print the same again. */
        if (rk_value_bind(&named, "value", heads, value.num_terms, &arena, &value, &error) == RK_OK &&
            strcmp(rk_value_print(&value, heads, again, sizeof again), printed) != 0)
            abort();
    }
    rk_arena_deinit(&arena);
    return 0;
}
