/* rankpack eval: several models over the same requests, side by side: what they weigh and what their scores are worth.
 * Models are opened and scored one after the other; what is kept of each is its figures. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/metrics.h"
#include "model/tools/commands.h"
#include "model/tools/compare.h"
#include "model/tools/plot_svg.h"

struct evaluated {
    const char *path;
    uint64_t rows_bytes, weights_bytes;
    struct rk_head_metrics *heads; /* [num_heads] */
};

struct evaluation {
    const char *requests, *expected; /* expected NULL: the baseline's scores are the truth */
    struct evaluated *models;
    uint32_t num_models, baseline;
    uint32_t num_heads; /* 0 until the baseline is open */
    char **heads;       /* names */
    struct rk_score_list truth;
};

static uint64_t bytes_of(const struct evaluated *model)
{
    return model->rows_bytes + model->weights_bytes;
}

static double ratio_of(const struct evaluation *e, const struct evaluated *model)
{
    return (double)bytes_of(&e->models[e->baseline]) / (double)bytes_of(model);
}

/* ---- scoring ---- */

static void report_open(void *context, const char *what, uint64_t done, uint64_t total)
{
    cli_progress(context, what, done, total);
}

/* The baseline's heads are what every model must have. */
static enum rk_status check_heads(struct evaluation *e, const struct rk_model_spec *spec, struct rk_error *error)
{
    const char *baseline = e->models[e->baseline].path;
    if (e->num_heads == 0) {
        e->num_heads = spec->num_heads;
        e->heads = calloc(spec->num_heads, sizeof *e->heads);
        for (uint32_t h = 0; e->heads != NULL && h < spec->num_heads; h++)
            if ((e->heads[h] = strdup(spec->heads[h])) == NULL)
                return rk_error_set(error, RK_NO_MEMORY, "out of memory");
        return e->heads != NULL ? RK_OK : rk_error_set(error, RK_NO_MEMORY, "out of memory");
    }
    if (spec->num_heads != e->num_heads)
        return rk_error_set(error, RK_INVALID, "it has %u heads, %s has %u", spec->num_heads, baseline, e->num_heads);
    for (uint32_t h = 0; h < spec->num_heads; h++)
        if (strcmp(spec->heads[h], e->heads[h]) != 0)
            return rk_error_set(error, RK_INVALID, "head %u is '%s', that of %s is '%s'", h, spec->heads[h], baseline,
                                e->heads[h]);
    return RK_OK;
}

/* The truth is read, or taken from the baseline, with the first model. */
static enum rk_status measure(struct evaluation *e, struct evaluated *model, const struct rk_model_spec *spec,
                              struct rk_score_list *scores, struct rk_error *error)
{
    const char *truth_name = e->expected != NULL ? e->expected : e->models[e->baseline].path;
    if (e->expected == NULL && model == &e->models[e->baseline]) {
        for (size_t r = 0; r < scores->num_requests; r++) {
            const size_t first = scores->first[r], count = scores->first[r + 1] - first;
            enum rk_status status = rk_score_list_add(&e->truth, scores->ids[r], (uint32_t)count,
                                                      scores->logits + first * scores->num_heads, NULL, error);
            if (status != RK_OK)
                return status;
        }
    }
    enum rk_status status = rk_score_list_match(scores, e->requests, &e->truth, truth_name, error);
    if (status == RK_OK && scores->num_requests == 0)
        status = rk_error_set(error, RK_INVALID, "%s holds no requests", e->requests);
    return status == RK_OK ? rk_metrics_measure(&e->truth, scores, spec->calibration, model->heads, error) : status;
}

static enum rk_status evaluate(struct evaluation *e, struct evaluated *evaluated, struct rk_error *error)
{
    const struct rk_model_open_options options = {.progress = report_open};
    struct rk_model *model = NULL;
    struct rk_score_list scores;
    enum rk_status status = rk_model_open(evaluated->path, &options, &model, error);
    if (status != RK_OK)
        return status;
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    const bool first = e->num_heads == 0;
    rk_score_list_init(&scores, spec->num_heads);
    status = check_heads(e, spec, error);
    if (status == RK_OK && first) {
        rk_score_list_init(&e->truth, spec->num_heads);
        if (e->expected != NULL)
            status = rk_score_list_read(&e->truth, e->expected, error);
        else
            e->truth.labelled = false;
    }
    evaluated->weights_bytes = spec->weights_bytes;
    evaluated->rows_bytes = rk_model_bytes(model) - spec->weights_bytes;
    evaluated->heads = calloc(e->num_heads, sizeof *evaluated->heads);
    if (status == RK_OK && evaluated->heads == NULL)
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
    if (status == RK_OK)
        status = score_list_file(model, e->requests, e->truth.num_requests, &scores, error);
    if (status == RK_OK)
        status = measure(e, evaluated, spec, &scores, error);
    if (status != RK_OK)
        rk_error_prefix(error, "%s", evaluated->path);
    rk_score_list_deinit(&scores);
    rk_model_close(model);
    return status;
}

/* ---- for people ---- */

static void print_number(const char *format, int width, double number)
{
    if (isnan(number))
        printf("  %*s", width, "-");
    else
        printf(format, number);
}

static void print_head(const struct evaluation *e, uint32_t head, int name_width)
{
    const struct rk_head_metrics *base = &e->models[e->baseline].heads[head];
    printf("\nhead %s\n%-*s  %10s  %7s", e->heads[head], name_width, "model", "size", "smaller");
    if (e->truth.labelled)
        printf("  %8s  %9s  %8s  %8s  %9s", "AUC", "AUC loss", "+-", "NE", "NE loss");
    printf("  %10s  %10s  %7s\n", "max error", "p99.9", "top 10");
    for (uint32_t m = 0; m < e->num_models; m++) {
        const struct evaluated *model = &e->models[m];
        const struct rk_head_metrics *figures = &model->heads[head];
        printf("%-*s  %10s  %6.2fx", name_width, model->path, cli_bytes(bytes_of(model)), ratio_of(e, model));
        if (e->truth.labelled) {
            print_number("  %8.5f", 8, figures->auc);
            print_number("  %+9.5f", 9, m == e->baseline ? NAN : base->auc - figures->auc);
            print_number("  %8.5f", 8, m == e->baseline ? NAN : rk_metric_auc_loss_error(base, figures));
            print_number("  %8.5f", 8, figures->normalised_entropy);
            print_number("  %+9.5f", 9,
                         m == e->baseline ? NAN : figures->normalised_entropy - base->normalised_entropy);
        }
        printf("  %10.3g  %10.3g  %6.2f%%\n", figures->largest_error, figures->p999_error, 100 * figures->top_overlap);
    }
}

static void print_text(const struct evaluation *e)
{
    const char *baseline = e->models[e->baseline].path;
    int name_width = 5;
    for (uint32_t m = 0; m < e->num_models; m++)
        if ((int)strlen(e->models[m].path) > name_width)
            name_width = (int)strlen(e->models[m].path);
    printf("requests   %zu with %zu candidates, %s\n", e->truth.num_requests, e->truth.num_candidates,
           e->truth.labelled ? "labelled" : "without labels: AUC and normalised entropy (NE) are left out");
    printf("baseline   %s: sizes and losses are relative to it%s\n", baseline,
           e->truth.labelled ? "; +- is the standard error of the AUC loss" : "");
    printf("errors     of logits, and shared top 10, against %s\n", e->expected != NULL ? e->expected : baseline);
    for (uint32_t h = 0; h < e->num_heads; h++)
        print_head(e, h, name_width);
}

/* ---- for programs ---- */

static json_t *number_or_null(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static void print_json(const struct evaluation *e)
{
    json_t *models = json_array();
    for (uint32_t m = 0; m < e->num_models; m++) {
        const struct evaluated *model = &e->models[m];
        json_t *heads = json_array();
        for (uint32_t h = 0; h < e->num_heads; h++) {
            const struct rk_head_metrics *figures = &model->heads[h], *base = &e->models[e->baseline].heads[h];
            json_array_append_new(
                heads,
                json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f, s:f}", "name", e->heads[h], "auc",
                          number_or_null(figures->auc), "auc_loss", number_or_null(base->auc - figures->auc),
                          "auc_loss_error", number_or_null(rk_metric_auc_loss_error(base, figures)),
                          "normalised_entropy", number_or_null(figures->normalised_entropy), "normalised_entropy_loss",
                          number_or_null(figures->normalised_entropy - base->normalised_entropy), "largest_error",
                          figures->largest_error, "p999_error", figures->p999_error, "mean_squared_error",
                          figures->mean_squared_error, "top_10_overlap", figures->top_overlap));
        }
        json_array_append_new(models,
                              json_pack("{s:s, s:I, s:I, s:I, s:f, s:o}", "path", model->path, "bytes",
                                        (json_int_t)bytes_of(model), "rows_bytes", (json_int_t)model->rows_bytes,
                                        "weights_bytes", (json_int_t)model->weights_bytes, "ratio", ratio_of(e, model),
                                        "heads", heads));
    }
    const char *baseline = e->models[e->baseline].path;
    json_t *root =
        json_pack("{s:I, s:I, s:b, s:s, s:s, s:o}", "requests", (json_int_t)e->truth.num_requests, "candidates",
                  (json_int_t)e->truth.num_candidates, "labelled", (int)e->truth.labelled, "baseline", baseline,
                  "truth", e->expected != NULL ? e->expected : baseline, "models", models);
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

/* ---- the plot ---- */

/* How many bytes of directories all paths begin with, and with how many they end ("/1"). */
static void find_shared(const struct evaluation *e, size_t *before, size_t *behind)
{
    const char *first = e->models[0].path, *slash = strrchr(first, '/');
    *before = slash != NULL ? (size_t)(slash - first) + 1 : 0;
    *behind = slash != NULL && slash != first ? strlen(slash) : 0;
    for (uint32_t m = 1; m < e->num_models; m++) {
        const char *path = e->models[m].path, *last = strrchr(path, '/');
        while (*before > 0 && strncmp(first, path, *before) != 0)
            for (--*before; *before > 0 && first[*before - 1] != '/'; --*before)
                ;
        if (last == NULL || slash == NULL || strcmp(slash, last) != 0)
            *behind = 0;
    }
    for (uint32_t m = 0; m < e->num_models; m++)
        if (strlen(e->models[m].path) <= *before + *behind)
            *behind = 0; /* nothing would be left */
}

static enum rk_status plot(const struct evaluation *e, const char *path, struct rk_error *error)
{
    size_t before, behind;
    find_shared(e, &before, &behind);
    struct plot_point *points = calloc((size_t)e->num_heads * e->num_models, sizeof *points);
    struct plot_panel *panels = calloc(e->num_heads, sizeof *panels);
    char **labels = calloc(e->num_models, sizeof *labels);
    char subtitle[160];
    bool fine = points != NULL && panels != NULL && labels != NULL;
    for (uint32_t m = 0; fine && m < e->num_models; m++)
        fine = asprintf(&labels[m], "%.*s (%.3gx)", (int)(strlen(e->models[m].path) - before - behind),
                        e->models[m].path + before, ratio_of(e, &e->models[m])) >= 0;
    if (!fine) {
        rk_error_set(error, RK_NO_MEMORY, "out of memory for the plot");
        goto done;
    }
    for (uint32_t h = 0; h < e->num_heads; h++) {
        panels[h] = (struct plot_panel){.title = e->heads[h], .points = points + (size_t)h * e->num_models};
        for (uint32_t m = 0; m < e->num_models; m++) {
            const struct rk_head_metrics *figures = &e->models[m].heads[h], *base = &e->models[e->baseline].heads[h];
            points[(size_t)h * e->num_models + m] = (struct plot_point){
                .bytes = (double)bytes_of(&e->models[m]),
                .y = e->truth.labelled ? base->auc - figures->auc : figures->p999_error,
                .label = labels[m],
            };
        }
    }
    snprintf(subtitle, sizeof subtitle,
             "%zu candidates of %zu requests; in brackets: how many times smaller than the baseline",
             e->truth.num_candidates, e->truth.num_requests);
    const struct plot plot = {
        .title = e->truth.labelled ? "Size against AUC loss: lower left is better"
                                   : "Size against logit error: lower left is better",
        .subtitle = subtitle,
        .y_label = e->truth.labelled ? "AUC loss against the baseline" : "99.9th percentile of |logit error|",
        .y_linear = e->truth.labelled ? 1e-4 : 1e-3,
        .panels = panels,
        .num_panels = e->num_heads,
        .num_points = e->num_models,
    };
    plot_svg_write(path, &plot, error);
done:
    for (uint32_t m = 0; labels != NULL && m < e->num_models; m++)
        free(labels[m]);
    free(labels);
    free(panels);
    free(points);
    return error->status;
}

/* ---- the command ---- */

/* The model named by --baseline, or the first. */
static bool find_baseline(const struct cli_arguments *arguments, uint32_t *baseline)
{
    const char *name = cli_get(arguments, "baseline");
    for (*baseline = 0; *baseline < arguments->num_operands; ++*baseline)
        if (name == NULL || strcmp(arguments->operands[*baseline], name) == 0)
            return true;
    cli_usage_error("--baseline is '%s', which is none of the models given; the first is '%s'", name,
                    arguments->operands[0]);
    return false;
}

int command_eval(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct evaluation e = {
        .requests = cli_get(arguments, "requests"),
        .expected = cli_get(arguments, "expected"),
        .num_models = arguments->num_operands,
    };
    if (!find_baseline(arguments, &e.baseline))
        return EXIT_USAGE;
    if (strcmp(e.requests, "-") == 0)
        return cli_usage_error("--requests must be a file: every model reads it again");
    e.models = calloc(e.num_models, sizeof *e.models);
    if (e.models == NULL)
        return cli_usage_error("out of memory for %u models", e.num_models);
    for (uint32_t m = 0; m < e.num_models; m++)
        e.models[m].path = arguments->operands[m];
    enum rk_status status = evaluate(&e, &e.models[e.baseline], &error);
    for (uint32_t m = 0; status == RK_OK && m < e.num_models; m++)
        if (m != e.baseline)
            status = evaluate(&e, &e.models[m], &error);
    cli_progress_end();
    const char *plot_path = cli_get(arguments, "plot");
    if (status == RK_OK && plot_path != NULL)
        status = plot(&e, plot_path, &error);
    int code;
    if (status == RK_OK) {
        cli_has(arguments, "json") ? print_json(&e) : print_text(&e);
        code = cli_finish_output();
    } else {
        code = cli_failed(&error);
    }
    for (uint32_t m = 0; m < e.num_models; m++)
        free(e.models[m].heads);
    for (uint32_t h = 0; e.heads != NULL && h < e.num_heads; h++)
        free(e.heads[h]);
    free(e.heads);
    free(e.models);
    rk_score_list_deinit(&e.truth);
    return code;
}
