/* rankpack calibrate: a package and labelled requests in; each head's scale and shift, what they do to its normalised
 * entropy, and the package with them out. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/platt.h"
#include "model/quantize.h"
#include "model/tools/commands.h"
#include "model/tools/compare.h"

/* A head under one calibration. */
struct figures {
    double mean_probability, normalised_entropy;
};

struct fitted {
    double rate; /* of positives */
    struct figures before, after;
};

struct fitting {
    const struct rk_model *model;
    const struct rk_model_spec *spec;
    struct rk_score_list truth, scores;
    struct rk_scored *samples;          /* [candidates] of one head */
    struct rk_calibration *calibration; /* [num_heads]: the result */
    struct fitted *heads;               /* [num_heads] */
};

static void report_open(void *context, const char *what, uint64_t done, uint64_t total)
{
    cli_progress(context, what, done, total);
}

static struct figures measure(const struct fitting *f, const struct rk_calibration *calibration)
{
    static const struct rk_calibration none = {1, 0};
    const struct rk_calibration *c = calibration != NULL ? calibration : &none;
    const size_t count = f->truth.num_candidates;
    struct figures figures = {.normalised_entropy = rk_metric_normalised_entropy(f->samples, count, c)};
    for (size_t i = 0; i < count; i++)
        figures.mean_probability +=
            1 / (1 + exp(-((double)c->scale * (double)f->samples[i].logit + (double)c->shift))) / (double)count;
    return figures;
}

static enum rk_status fit_head(struct fitting *f, uint32_t head, struct rk_error *error)
{
    const size_t count = f->truth.num_candidates, heads = f->spec->num_heads;
    struct fitted *fitted = &f->heads[head];
    for (size_t i = 0; i < count; i++) {
        f->samples[i] = (struct rk_scored){.logit = (float)f->scores.logits[i * heads + head],
                                           .positive = f->truth.labels[i * heads + head]};
        fitted->rate += (double)f->samples[i].positive / (double)count;
    }
    enum rk_status status = rk_platt_fit(f->samples, count, f->spec->heads[head], &f->calibration[head], error);
    fitted->before = measure(f, f->spec->calibration != NULL ? &f->spec->calibration[head] : NULL);
    fitted->after = measure(f, &f->calibration[head]);
    return status;
}

static enum rk_status fit(struct fitting *f, const char *requests, const char *expected, struct rk_error *error)
{
    enum rk_status status = rk_score_list_read(&f->truth, expected, error);
    if (status == RK_OK && !f->truth.labelled)
        status = rk_error_set(error, RK_INVALID, "%s has no labels for some requests", expected);
    if (status == RK_OK)
        status = score_list_file(f->model, requests, f->truth.num_requests, &f->scores, error);
    if (status == RK_OK)
        status = rk_score_list_match(&f->scores, requests, &f->truth, expected, error);
    cli_progress_end();
    if (status != RK_OK)
        return status;
    f->samples = calloc(f->truth.num_candidates + 1, sizeof *f->samples);
    f->calibration = calloc(f->spec->num_heads, sizeof *f->calibration);
    f->heads = calloc(f->spec->num_heads, sizeof *f->heads);
    if (f->samples == NULL || f->calibration == NULL || f->heads == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %zu candidates", f->truth.num_candidates);
    for (uint32_t h = 0; status == RK_OK && h < f->spec->num_heads; h++)
        status = fit_head(f, h, error);
    return status;
}

static enum rk_status write_package(const struct fitting *f, const char *model_dir, const char *output,
                                    struct rk_error *error)
{
    const struct rk_plan as_it_is = {0};
    const struct rk_quantize_options options = {.model_dir = model_dir,
                                                .output = output,
                                                .plan = &as_it_is,
                                                .calibration = f->calibration,
                                                .progress = cli_progress};
    struct rk_quantize_result result;
    struct rk_arena arena;
    rk_arena_init(&arena, 1u << 20);
    enum rk_status status = rk_quantize(f->model, &options, &arena, &result, error);
    rk_arena_deinit(&arena);
    cli_progress_end();
    return status;
}

static void print_text(const struct fitting *f, const char *output)
{
    printf("requests   %zu with %zu candidates\n\n", f->truth.num_requests, f->truth.num_candidates);
    printf("%-24s %9s %9s  %10s %21s  %21s\n", "", "", "", "", "mean probability", "normalised entropy");
    printf("%-24s %9s %9s  %10s %10s %10s  %10s %10s\n", "head", "scale", "shift", "positive", "before", "after",
           "before", "after");
    for (uint32_t h = 0; h < f->spec->num_heads; h++) {
        const struct fitted *head = &f->heads[h];
        printf("%-24s %9.5f %9.5f  %10.6f %10.6f %10.6f  %10.6f %10.6f\n", f->spec->heads[h],
               (double)f->calibration[h].scale, (double)f->calibration[h].shift, head->rate,
               head->before.mean_probability, head->after.mean_probability, head->before.normalised_entropy,
               head->after.normalised_entropy);
    }
    if (output != NULL)
        printf("\nwrote %s\n", output);
}

static void print_json(const struct fitting *f)
{
    json_t *calibration = json_array(), *heads = json_array();
    for (uint32_t h = 0; h < f->spec->num_heads; h++) {
        const struct fitted *head = &f->heads[h];
        json_array_append_new(calibration,
                              json_pack("{s:s, s:f, s:f}", "head", f->spec->heads[h], "scale",
                                        (double)f->calibration[h].scale, "shift", (double)f->calibration[h].shift));
        json_array_append_new(heads, json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "name", f->spec->heads[h], "positive",
                                               head->rate, "mean_probability_before", head->before.mean_probability,
                                               "mean_probability_after", head->after.mean_probability,
                                               "normalised_entropy_before", head->before.normalised_entropy,
                                               "normalised_entropy_after", head->after.normalised_entropy));
    }
    json_t *root = json_pack("{s:I, s:I, s:o, s:o}", "requests", (json_int_t)f->truth.num_requests, "candidates",
                             (json_int_t)f->truth.num_candidates, "heads", heads, "calibration", calibration);
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)); /* a float32 whole */
    putchar('\n');
    json_decref(root);
}

int command_calibrate(const struct cli_arguments *arguments)
{
    const char *output = cli_get(arguments, "output");
    const struct rk_model_open_options options = {.progress = report_open};
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    cli_catch_interrupts();
    if (rk_model_open(arguments->operand, &options, &model, &error) != RK_OK)
        return cli_failed(&error);
    struct fitting f = {.model = model, .spec = rk_model_spec_of(model)};
    rk_score_list_init(&f.truth, f.spec->num_heads);
    rk_score_list_init(&f.scores, f.spec->num_heads);
    enum rk_status status = fit(&f, cli_get(arguments, "requests"), cli_get(arguments, "expected"), &error);
    if (status == RK_OK && output != NULL)
        status = write_package(&f, arguments->operand, output, &error);
    int code;
    if (status == RK_OK) {
        cli_has(arguments, "json") ? print_json(&f) : print_text(&f, output);
        code = cli_finish_output();
    } else {
        code = cli_failed(&error);
    }
    free(f.heads);
    free(f.calibration);
    free(f.samples);
    rk_score_list_deinit(&f.scores);
    rk_score_list_deinit(&f.truth);
    rk_model_close(model);
    return code;
}
