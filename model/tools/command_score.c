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
    uint32_t top, head;
};

struct place {
    float logit;
    uint32_t candidate;
};

static int best_first(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->candidate > y->candidate) - (x->candidate < y->candidate);
}

static enum rk_status print_json(void *context, const struct rk_named_request *named, const float *logits,
                                 const float *probabilities, uint32_t num_candidates, struct rk_error *error)
{
    (void)error;
    const struct printing *printing = context;
    rk_jsonl_print_scores(stdout, named->id, logits, probabilities, num_candidates, printing->spec->num_heads);
    return RK_OK;
}

static enum rk_status print_table(void *context, const struct rk_named_request *named, const float *logits,
                                  const float *probabilities, uint32_t num_candidates, struct rk_error *error)
{
    const struct printing *printing = context;
    const uint32_t heads = printing->spec->num_heads;
    struct place *places = malloc((size_t)num_candidates * sizeof *places);
    if (places == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for a table of %u candidates", num_candidates);
    for (uint32_t c = 0; c < num_candidates; c++)
        places[c] = (struct place){logits[(size_t)c * heads + printing->head], c};
    qsort(places, num_candidates, sizeof *places, best_first);
    printf("request %s: best %u of %u by %s\n  rank  candidate", named->id,
           printing->top < num_candidates ? printing->top : num_candidates, num_candidates,
           printing->spec->heads[printing->head]);
    for (uint32_t h = 0; h < heads; h++)
        printf("  %12s", printing->spec->heads[h]);
    putchar('\n');
    for (uint32_t i = 0; i < num_candidates && i < printing->top; i++) {
        printf("  %4u  %9u", i + 1, places[i].candidate);
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
    if (!find_head(printing.spec, cli_get(arguments, "head"), &printing.head))
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
    comparison_deinit(&comparison);
    rk_model_close(model);
    return code;
}
