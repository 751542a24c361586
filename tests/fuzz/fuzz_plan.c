/* Any bytes as a plan: refused with a reason, or a plan that can be printed, read again and held against a model. */
#include <stdlib.h>
#include <string.h>

#include "model/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct rk_table_spec tables[] = {{.name = "user", .num_embeddings = 100, .embedding_dim = 4},
                                                  {.name = "game", .num_embeddings = 10, .embedding_dim = 4}};
    static const struct rk_model_spec spec = {.name = "steam", .tables = tables, .num_tables = 2};
    struct rk_arena arena;
    struct rk_error error = {0};
    struct rk_plan plan, again;
    rk_arena_init(&arena, 4096);
    const enum rk_status status = rk_plan_parse("plan.json", (const char *)data, size, &arena, &plan, &error);
    if ((status == RK_OK) != (error.text[0] == '\0'))
        abort();
    if (status == RK_OK) {
        const bool fits = rk_plan_check(&plan, &spec, &error) == RK_OK;
        for (uint32_t t = 0; fits && t < plan.num_tables; t++) {
            const struct rk_table_plan *table = &plan.tables[t];
            const uint64_t rows = strcmp(table->name, "user") == 0 ? 100 : 10;
            uint64_t end = 0;
            for (size_t r = 0; r < table->num_kept; r++) {
                if (table->kept[r].first < end || table->kept[r].count == 0)
                    abort();
                end = table->kept[r].first + table->kept[r].count;
            }
            if (end > rows)
                abort();
        }
        char *text = rk_plan_print(&plan);
        if (text == NULL || rk_plan_parse("plan.json", text, strlen(text), &arena, &again, &error) != RK_OK ||
            again.num_tables != plan.num_tables)
            abort();
        free(text);
    }
    rk_arena_deinit(&arena);
    return 0;
}
