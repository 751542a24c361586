/* Choosing between a head, one of the model's value models and the caller's own. Any thread; the arena's owner. */
#include "server/rank_order.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* "a, b, c": as much as fits. */
static void append_name(char *list, size_t size, size_t *end, const char *name)
{
    if (*end < size)
        *end += (size_t)snprintf(list + *end, size - *end, "%s%s", *end > 0 ? ", " : "", name);
}

static enum rk_status find_head(const struct rk_model_spec *spec, const char *name, uint32_t *head,
                                struct rk_error *error)
{
    char heads[300];
    size_t end = 0;
    for (uint32_t i = 0; i < spec->num_heads; i++) {
        if (strcmp(spec->heads[i], name) == 0) {
            *head = i;
            return RK_OK;
        }
        append_name(heads, sizeof heads, &end, spec->heads[i]);
    }
    return rk_error_set(error, RK_INVALID, "order_by is '%.*s'; the model's heads are: %s", (int)RK_MAX_NAME_BYTES,
                        name, heads);
}

static enum rk_status find_value(const struct rk_model_spec *spec, const char *name,
                                 const struct rk_value_model **value, struct rk_error *error)
{
    char names[300] = "none";
    size_t end = 0;
    for (uint32_t i = 0; i < spec->num_value_models; i++) {
        if (strcmp(spec->value_models[i].name, name) == 0) {
            *value = &spec->value_models[i];
            return RK_OK;
        }
        append_name(names, sizeof names, &end, spec->value_models[i].name);
    }
    return rk_error_set(error, RK_INVALID, "value_model is '%.*s'; the model's value models are: %s",
                        (int)RK_MAX_NAME_BYTES, name, names);
}

static enum rk_status bind_value(const Rankd__V1__ValueModel *message, const struct rk_model_spec *spec,
                                 struct rk_arena *arena, const struct rk_value_model **value, struct rk_error *error)
{
    /* The wire's numbers are one more: 0 is what was left out. */
    const int kind = (int)message->kind - 1;
    if (kind < 0 || kind >= RK_VALUE_KIND_COUNT)
        return rk_error_set(error, RK_INVALID,
                            "value.kind is %d; it takes SUM_OF_PROBABILITIES (1), SUM_OF_LOGITS (2) or "
                            "PRODUCT_OF_POWERS (3)",
                            (int)message->kind);
    /* Terms past the number of heads are counted, not read. */
    const size_t num_terms = message->n_terms < spec->num_heads ? message->n_terms : spec->num_heads;
    struct rk_named_term *terms = rk_arena_array(arena, num_terms, sizeof *terms);
    struct rk_value_model *bound = rk_arena_alloc(arena, sizeof *bound);
    if (terms == NULL || bound == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the value model");
    for (size_t i = 0; i < num_terms; i++)
        terms[i] = (struct rk_named_term){message->terms[i]->head, message->terms[i]->weight};
    const struct rk_named_value named = {.kind = (enum rk_value_kind)kind,
                                         .factor = message->factor == 0.0f ? 1.0f : message->factor,
                                         .terms = terms,
                                         .num_terms = message->n_terms};
    *value = bound;
    return rk_value_bind(&named, "value", spec->heads, spec->num_heads, arena, bound, error);
}

enum rk_status rk_rank_order_choose(const Rankd__V1__RankRequest *message, const struct rk_model_spec *spec,
                                    struct rk_arena *arena, struct rk_rank_order *order, struct rk_error *error)
{
    const bool head = message->order_by[0] != '\0', name = message->value_model[0] != '\0',
               formula = message->value != NULL;
    *order = (struct rk_rank_order){.value = spec->default_value};
    if (head + name + formula > 1)
        return rk_error_set(error, RK_INVALID, "%s and %s are both given; give one of order_by, value_model and value",
                            head ? "order_by" : "value_model", formula ? "value" : "value_model");
    if (head) {
        order->value = NULL;
        return find_head(spec, message->order_by, &order->head, error);
    }
    if (name)
        return find_value(spec, message->value_model, &order->value, error);
    return formula ? bind_value(message->value, spec, arena, &order->value, error) : RK_OK;
}
