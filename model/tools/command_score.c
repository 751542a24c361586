/* rankpack score: scores without a server, as JSON lines or as a table of the best. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tools/commands.h"
#include "model/tools/compare.h"

static void report_open(void *context, const char *what, uint64_t done, uint64_t total)
{
    cli_progress(context, what, done, total);
}

struct printing {
    const struct rk_model_spec *spec;
    const struct rk_value_model *value; /* NULL: by the head */
    uint32_t top, head;
    double *values;
    uint32_t capacity;
    struct rk_arena arena; /* of a formula that was typed */
};

struct place {
    double score;
    uint32_t candidate;
};

static int best_first(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->candidate > y->candidate) - (x->candidate < y->candidate);
}

static enum rk_status compute_values(struct printing *printing, const float *logits, const float *probabilities,
                                     uint32_t num_candidates, struct rk_error *error)
{
    if (printing->value == NULL)
        return RK_OK;
    if (num_candidates > printing->capacity) {
        free(printing->values);
        printing->values = malloc(num_candidates * sizeof *printing->values);
        printing->capacity = printing->values != NULL ? num_candidates : 0;
        if (printing->values == NULL)
            return rk_error_set(error, RK_NO_MEMORY, "out of memory for %u values", num_candidates);
    }
    return rk_value_compute(printing->value, printing->spec->num_heads, logits, probabilities, num_candidates,
                            printing->values, error);
}

static enum rk_status print_json(void *context, const struct rk_named_request *named, const float *logits,
                                 const float *probabilities, uint32_t num_candidates, struct rk_error *error)
{
    struct printing *printing = context;
    enum rk_status status = compute_values(printing, logits, probabilities, num_candidates, error);
    if (status == RK_OK)
        rk_jsonl_print_scores(stdout, named->id, logits, probabilities,
                              printing->value != NULL ? printing->values : NULL, num_candidates,
                              printing->spec->num_heads);
    return status;
}

static enum rk_status print_table(void *context, const struct rk_named_request *named, const float *logits,
                                  const float *probabilities, uint32_t num_candidates, struct rk_error *error)
{
    struct printing *printing = context;
    const uint32_t heads = printing->spec->num_heads;
    char formula[200];
    enum rk_status status = compute_values(printing, logits, probabilities, num_candidates, error);
    if (status != RK_OK)
        return status;
    struct place *places = malloc((size_t)num_candidates * sizeof *places);
    if (places == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for a table of %u candidates", num_candidates);
    for (uint32_t c = 0; c < num_candidates; c++)
        places[c] = (struct place){printing->value != NULL ? printing->values[c]
                                                           : (double)logits[(size_t)c * heads + printing->head],
                                   c};
    qsort(places, num_candidates, sizeof *places, best_first);
    printf("request %s: best %u of %u by %s\n  rank  candidate", named->id,
           printing->top < num_candidates ? printing->top : num_candidates, num_candidates,
           printing->value != NULL ? rk_value_print(printing->value, printing->spec->heads, formula, sizeof formula)
                                   : printing->spec->heads[printing->head]);
    if (printing->value != NULL)
        printf("  %12s", "value");
    for (uint32_t h = 0; h < heads; h++)
        printf("  %12s", printing->spec->heads[h]);
    putchar('\n');
    for (uint32_t i = 0; i < num_candidates && i < printing->top; i++) {
        printf("  %4u  %9u", i + 1, places[i].candidate);
        if (printing->value != NULL)
            printf("  %12.6g", places[i].score);
        for (uint32_t h = 0; h < heads; h++)
            printf("  %12.6f", (double)probabilities[(size_t)places[i].candidate * heads + h]);
        putchar('\n');
    }
    free(places);
    return RK_OK;
}

/* The head called `name`; complains when there is none. */
static bool find_head(const struct rk_model_spec *spec, const char *name, uint32_t *head)
{
    for (*head = 0; *head < spec->num_heads; ++*head)
        if (name == NULL || strcmp(spec->heads[*head], name) == 0)
            return true;
    cli_say("--head is '%s', the model has no such head; its first is '%s'", name, spec->heads[0]);
    return false;
}

/* The formula or the name that was given, else, unless a head was, the model's default. Complains. */
static bool choose_value(const struct cli_arguments *arguments, struct printing *printing)
{
    const struct rk_model_spec *spec = printing->spec;
    const char *formula = cli_get(arguments, "value"), *name = cli_get(arguments, "value-model");
    struct rk_error error = {0};
    struct rk_named_value named;
    if (formula != NULL) {
        struct rk_value_model *value = rk_arena_alloc(&printing->arena, sizeof *value);
        printing->value = value;
        if (value == NULL || rk_value_parse(formula, &printing->arena, &named, &error) != RK_OK ||
            rk_value_bind(&named, "--value", spec->heads, spec->num_heads, &printing->arena, value, &error) != RK_OK) {
            cli_say("%s", value != NULL ? error.text : "out of memory");
            return false;
        }
        return true;
    }
    for (uint32_t v = 0; name != NULL && v < spec->num_value_models; v++)
        if (strcmp(spec->value_models[v].name, name) == 0)
            printing->value = &spec->value_models[v];
    if (name != NULL && printing->value == NULL) {
        cli_say("--value-model is '%s', the model has no such value model%s%s%s", name,
                spec->num_value_models > 0 ? "; its first is '" : "; it has none",
                spec->num_value_models > 0 ? spec->value_models[0].name : "", spec->num_value_models > 0 ? "'" : "");
        return false;
    }
    if (name == NULL && !cli_has(arguments, "head"))
        printing->value = spec->default_value;
    return true;
}

int command_score(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    struct printing printing = {0};
    struct comparison comparison;
    uint32_t batch = 256;
    const char *expected = cli_get(arguments, "expected");
    int code = EXIT_FAILED;
    if (!cli_number_u32(arguments, "batch", 1, 65536, &batch) ||
        !cli_number_u32(arguments, "top", 1, UINT32_MAX, &printing.top))
        return EXIT_USAGE;
    if (cli_has(arguments, "head") + cli_has(arguments, "value") + cli_has(arguments, "value-model") > 1)
        return cli_usage_error("give one of --head, --value and --value-model");
    if (cli_has(arguments, "head") && !cli_has(arguments, "top"))
        return cli_usage_error("--head has a meaning only with --top");
    if (cli_has(arguments, "top") && expected != NULL)
        return cli_usage_error("--top and --expected exclude each other");
    const struct rk_model_open_options options = {.progress = report_open};
    if (rk_model_open(arguments->operand, &options, &model, &error) != RK_OK)
        return cli_failed(&error);
    cli_progress_end();
    printing.spec = rk_model_spec_of(model);
    comparison_init(&comparison, printing.spec->num_heads);
    rk_arena_init(&printing.arena, 1024);
    if (!find_head(printing.spec, cli_get(arguments, "head"), &printing.head) || !choose_value(arguments, &printing))
        goto done;
    score_visit_fn *visit = expected != NULL ? NULL : printing.top > 0 ? print_table : print_json;
    if (score_file(model, cli_get(arguments, "requests"), expected, batch, visit, &printing, &comparison, &error) !=
        RK_OK) {
        fflush(stdout);
        code = cli_failed(&error);
        goto done;
    }
    bool fine = expected == NULL || comparison_print(&comparison, printing.spec);
    code = cli_finish_output();
    if (!fine)
        code = EXIT_FAILED;
done:
    free(printing.values);
    rk_arena_deinit(&printing.arena);
    comparison_deinit(&comparison);
    rk_model_close(model);
    return code;
}
