/* rankpack plan: limits in, a plan for rankpack quantize out, and a table that says why. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/plan.h"
#include "model/planner.h"
#include "model/tools/commands.h"

static const enum rk_row_format default_formats[] = {
    RK_ROWS_F16,        RK_ROWS_INT8,       RK_ROWS_INT4,       RK_ROWS_INT2,   RK_ROWS_MXFP8_E4M3,
    RK_ROWS_MXFP6_E2M3, RK_ROWS_MXFP6_E3M2, RK_ROWS_MXFP4_E2M1, RK_ROWS_MXINT8,
};

struct planning {
    struct rk_sample_files files[RK_SAMPLE_SETS];
    enum rk_row_format formats[RK_ROW_FORMAT_COUNT];
    struct rk_planner_options options;
    const char *output;
    bool json;
};

static void report_open(void *context, const char *what, uint64_t done, uint64_t total)
{
    cli_progress(context, what, done, total);
}

static bool report_planning(void *context, const char *what, uint64_t done, uint64_t total)
{
    (void)context;
    return cli_progress_count(what, done, total);
}

/* ---- options ---- */

/* "int8,int4" */
static bool parse_formats(const char *text, struct planning *planning)
{
    char *copy = strdup(text), *rest = copy;
    bool fine = copy != NULL;
    size_t count = 0;
    while (fine && rest != NULL) {
        const char *name = strsep(&rest, ",");
        enum rk_row_format format;
        fine = rk_row_format_parse(name, &format);
        if (!fine)
            cli_usage_error("--formats has '%s', which is no row format", name);
        for (size_t i = 0; fine && i < count; i++)
            if (planning->formats[i] == format) {
                cli_usage_error("--formats has '%s' twice", name);
                fine = false;
            }
        if (fine)
            planning->formats[count++] = format;
    }
    free(copy);
    planning->options.num_formats = count;
    return fine;
}

static bool parse_loss(const char *text, double *loss)
{
    char *end;
    *loss = strtod(text, &end);
    if (end != text && *end == '\0' && *loss >= 0 && *loss <= 1)
        return true;
    cli_usage_error("--max-auc-loss is '%s', must be a number from 0 to 1, such as 0.001", text);
    return false;
}

static bool parse_options(const struct cli_arguments *arguments, struct planning *planning)
{
    struct rk_planner_options *options = &planning->options;
    const char *formats = cli_get(arguments, "formats"), *loss = cli_get(arguments, "max-auc-loss");
    planning->files[RK_SAMPLE_FIT] =
        (struct rk_sample_files){cli_get(arguments, "requests"), cli_get(arguments, "expected")};
    planning->files[RK_SAMPLE_HOLDOUT] =
        (struct rk_sample_files){cli_get(arguments, "holdout-requests"), cli_get(arguments, "holdout-expected")};
    planning->output = cli_get(arguments, "output");
    planning->json = cli_has(arguments, "json");
    memcpy(planning->formats, default_formats, sizeof default_formats);
    options->formats = planning->formats;
    options->num_formats = sizeof default_formats / sizeof *default_formats;
    options->prune = cli_has(arguments, "prune");
    options->limit_bytes = cli_has(arguments, "max-bytes");
    options->progress = report_planning;
    if (options->limit_bytes == (loss != NULL)) {
        cli_usage_error("plan needs either --max-auc-loss or --max-bytes");
        return false;
    }
    if (loss != NULL && planning->files[RK_SAMPLE_FIT].expected == NULL) {
        cli_usage_error("--max-auc-loss needs --expected: a file with labels");
        return false;
    }
    if (planning->files[RK_SAMPLE_HOLDOUT].expected != NULL && planning->files[RK_SAMPLE_HOLDOUT].requests == NULL) {
        cli_usage_error("--holdout-expected needs --holdout-requests");
        return false;
    }
    return (formats == NULL || parse_formats(formats, planning)) &&
           (loss == NULL || parse_loss(loss, &options->max_auc_loss)) &&
           cli_number(arguments, "max-bytes", true, 1, UINT64_MAX, &options->max_bytes);
}

/* ---- for people ---- */

static void print_loss(double loss)
{
    if (isnan(loss))
        printf("  %9s", "-");
    else
        printf("  %+9.5f", loss);
}

static void print_tables(const struct rk_model_spec *spec, const struct rk_sample *sample,
                         const struct rk_planned *planned)
{
    printf("%-20s %12s %12s  %-10s  %-11s %10s %10s  %9s  %9s\n", "table", "rows", "touched", "was", "becomes",
           "before", "after", "error", "AUC loss");
    for (uint32_t t = 0; t < planned->num_tables; t++) {
        const struct rk_planned_table *table = &planned->tables[t];
        size_t touched;
        rk_sample_touched(sample, t, &touched);
        printf("%-20s %12" PRIu64 " %12zu  %-10s  %-11s %10s %10s  %9.2e", spec->tables[t].name,
               spec->tables[t].num_embeddings, touched, rk_row_format_name(spec->tables[t].format),
               rk_row_format_name(table->choice.format), cli_bytes(table->bytes_before), cli_bytes(table->bytes_after),
               table->logit_error);
        print_loss(table->auc_loss);
        printf("%s\n", table->choice.pruned ? "  pruned" : "");
    }
}

static void print_heads(const struct rk_model_spec *spec, const struct rk_planned *planned, enum rk_sample_set set,
                        const char *name)
{
    for (uint32_t h = 0; h < planned->num_heads; h++) {
        const struct rk_head_metrics *before = &planned->before[set][h], *after = &planned->after[set][h];
        printf("%-10s %s:", h == 0 ? name : "", spec->heads[h]);
        if (!isnan(before->auc))
            printf(" AUC %.5f becomes %.5f, loss %+.5f (+-%.5f); NE %+.5f;", before->auc, after->auc,
                   before->auc - after->auc, rk_metric_auc_loss_error(before, after),
                   after->normalised_entropy - before->normalised_entropy);
        printf(" logit error: p99.9 %.3g, largest %.3g; top 10 %.2f%%\n", after->p999_error, after->largest_error,
               100 * after->top_overlap);
    }
}

static void print_text(const struct rk_model *model, const struct rk_sample *sample, const struct rk_planned *planned)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    print_tables(spec, sample, planned);
    printf("%-20s %12s %12s  %-10s  %-11s %10s %10s  %9.2e", "(towers)", "", "", "", "", cli_bytes(spec->weights_bytes),
           cli_bytes(rk_sample_towers(sample)->weights_bytes), planned->towers_logit_error);
    print_loss(planned->towers_auc_loss);
    printf("\n\nsize       %s becomes %s, %.2fx smaller\n", cli_bytes(planned->bytes_before),
           cli_bytes(planned->bytes_after), (double)planned->bytes_before / (double)planned->bytes_after);
    printf("error      %.2e of the logits' variance, the sum over tables predicted %.2e\n",
           planned->logit_error[RK_SAMPLE_FIT], planned->predicted_logit_error);
    if (!isnan(planned->auc_loss[RK_SAMPLE_FIT]))
        printf("AUC loss   %+.5f, the sum over tables predicted %+.5f\n", planned->auc_loss[RK_SAMPLE_FIT],
               planned->predicted_auc_loss);
    print_heads(spec, planned, RK_SAMPLE_FIT, "requests");
    if (rk_sample_truth(sample, RK_SAMPLE_HOLDOUT)->num_requests > 0)
        print_heads(spec, planned, RK_SAMPLE_HOLDOUT, "holdout");
}

/* ---- for programs ---- */

static json_t *number_or_null(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static json_t *set_to_json(const struct rk_model_spec *spec, const struct rk_planned *planned, enum rk_sample_set set)
{
    json_t *heads = json_array();
    for (uint32_t h = 0; h < planned->num_heads; h++) {
        const struct rk_head_metrics *before = &planned->before[set][h], *after = &planned->after[set][h];
        json_array_append_new(heads,
                              json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:f, s:f}", "name", spec->heads[h],
                                        "auc_before", number_or_null(before->auc), "auc", number_or_null(after->auc),
                                        "auc_loss", number_or_null(before->auc - after->auc), "auc_loss_error",
                                        number_or_null(rk_metric_auc_loss_error(before, after)),
                                        "normalised_entropy_loss",
                                        number_or_null(after->normalised_entropy - before->normalised_entropy),
                                        "largest_error", after->largest_error, "p999_error", after->p999_error,
                                        "top_10_overlap", after->top_overlap));
    }
    return json_pack("{s:o, s:o, s:o}", "logit_error", number_or_null(planned->logit_error[set]), "auc_loss",
                     number_or_null(planned->auc_loss[set]), "heads", heads);
}

static void print_json(const struct rk_model *model, const struct rk_sample *sample, const struct rk_planned *planned)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    json_t *tables = json_array();
    for (uint32_t t = 0; t < planned->num_tables; t++) {
        const struct rk_planned_table *table = &planned->tables[t];
        size_t touched;
        rk_sample_touched(sample, t, &touched);
        json_array_append_new(
            tables,
            json_pack("{s:s, s:I, s:I, s:s, s:s, s:b, s:I, s:I, s:o, s:o}", "name", spec->tables[t].name, "rows",
                      (json_int_t)spec->tables[t].num_embeddings, "touched", (json_int_t)touched, "was",
                      rk_row_format_name(spec->tables[t].format), "format", rk_row_format_name(table->choice.format),
                      "pruned", (int)table->choice.pruned, "bytes_before", (json_int_t)table->bytes_before,
                      "bytes_after", (json_int_t)table->bytes_after, "logit_error", number_or_null(table->logit_error),
                      "auc_loss", number_or_null(table->auc_loss)));
    }
    json_t *towers =
        json_pack("{s:I, s:I, s:o, s:o}", "bytes_before", (json_int_t)spec->weights_bytes, "bytes_after",
                  (json_int_t)rk_sample_towers(sample)->weights_bytes, "logit_error",
                  number_or_null(planned->towers_logit_error), "auc_loss", number_or_null(planned->towers_auc_loss));
    json_t *root =
        json_pack("{s:b, s:I, s:I, s:f, s:I, s:o, s:o, s:o, s:o, s:o}", "met", (int)planned->met, "bytes_before",
                  (json_int_t)planned->bytes_before, "bytes_after", (json_int_t)planned->bytes_after, "ratio",
                  (double)planned->bytes_before / (double)planned->bytes_after, "measurements",
                  (json_int_t)planned->num_measurements, "tables", tables, "towers", towers, "predicted_logit_error",
                  number_or_null(planned->predicted_logit_error), "predicted_auc_loss",
                  number_or_null(planned->predicted_auc_loss), "measured", set_to_json(spec, planned, RK_SAMPLE_FIT));
    if (rk_sample_truth(sample, RK_SAMPLE_HOLDOUT)->num_requests > 0)
        json_object_set_new(root, "holdout", set_to_json(spec, planned, RK_SAMPLE_HOLDOUT));
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

/* ---- the plan ---- */

/* Consecutive touched rows become one range. */
static enum rk_status keep_touched(const struct rk_sample *sample, uint32_t t, struct rk_arena *arena,
                                   struct rk_table_plan *table)
{
    size_t count;
    const int64_t *touched = rk_sample_touched(sample, t, &count);
    struct rk_row_range *ranges = rk_arena_array(arena, count + 1, sizeof *ranges);
    if (ranges == NULL)
        return RK_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || touched[i] != touched[i - 1] + 1)
            ranges[table->num_kept++].first = (uint64_t)touched[i];
        ranges[table->num_kept - 1].count++;
    }
    table->pruned = true;
    table->kept = ranges;
    return RK_OK;
}

static enum rk_status write_text(const char *path, const char *text, struct rk_error *error)
{
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return rk_error_set(error, RK_IO, "failed to open %s: %s", path, strerror(errno));
    const bool written = fputs(text, file) >= 0 && fputc('\n', file) != EOF;
    if (fclose(file) == 0 && written)
        return RK_OK;
    rk_error_set(error, RK_IO, "failed to write %s: %s", path, strerror(errno));
    remove(path);
    return RK_IO;
}

/* `plan` brings the towers' formats. */
static enum rk_status write_plan(const char *path, const struct rk_model *model, const struct rk_sample *sample,
                                 const struct rk_planned *planned, struct rk_arena *arena, struct rk_plan *plan,
                                 struct rk_error *error)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    struct rk_table_plan *tables = rk_arena_array(arena, (size_t)spec->num_tables + 1, sizeof *tables);
    enum rk_status status = tables != NULL ? RK_OK : RK_NO_MEMORY;
    plan->model = spec->name;
    plan->tables = tables;
    for (uint32_t t = 0; status == RK_OK && t < spec->num_tables; t++) {
        const struct rk_table_choice *choice = &planned->tables[t].choice;
        const bool changed = choice->format != spec->tables[t].format;
        if (!changed && !choice->pruned)
            continue;
        struct rk_table_plan *table = &tables[plan->num_tables++];
        *table = (struct rk_table_plan){.name = spec->tables[t].name, .has_format = changed, .format = choice->format};
        if (choice->pruned)
            status = keep_touched(sample, t, arena, table);
    }
    char *text = status == RK_OK ? rk_plan_print(plan) : NULL;
    status =
        text != NULL ? write_text(path, text, error) : rk_error_set(error, RK_NO_MEMORY, "out of memory for %s", path);
    free(text);
    return status;
}

/* ---- the command ---- */

static int not_met(const struct planning *planning, const struct rk_planned *planned)
{
    if (planning->options.limit_bytes)
        cli_say("no plan: the smallest that the formats give is %" PRIu64 " bytes, --max-bytes is %" PRIu64 "%s",
                planned->bytes_after, planning->options.max_bytes,
                planning->options.prune ? "" : "; --prune makes it smaller");
    else
        cli_say("no plan: the AUC loss is %.5f with no table quantised, --max-auc-loss is %g",
                planned->auc_loss[RK_SAMPLE_FIT], planning->options.max_auc_loss);
    return EXIT_FAILED;
}

int command_plan(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct planning planning = {0};
    struct rk_model *model = NULL;
    struct rk_sample *sample = NULL;
    struct rk_planned *planned = NULL;
    struct rk_plan plan = {0};
    struct rk_arena arena;
    const char *temporary = getenv("TMPDIR");
    const struct rk_model_open_options open_options = {.progress = report_open};
    if (!parse_options(arguments, &planning))
        return EXIT_USAGE;
    rk_arena_init(&arena, 1u << 16);
    cli_catch_interrupts();
    enum rk_status status = rk_model_open(arguments->operand, &open_options, &model, &error);
    if (status == RK_OK)
        status =
            rk_plan_from_options(rk_model_spec_of(model), NULL, cli_get(arguments, "towers"), &arena, &plan, &error);
    if (status == RK_OK)
        status =
            rk_sample_create(model, planning.files, &plan, temporary != NULL ? temporary : "/tmp", &sample, &error);
    if (status == RK_OK)
        status = rk_planner_run(model, sample, &planning.options, &planned, &error);
    cli_progress_end();
    int code = EXIT_FAILED;
    if (status != RK_OK) {
        cli_failed(&error);
    } else {
        planning.json ? print_json(model, sample, planned) : print_text(model, sample, planned);
        code = cli_finish_output();
        if (!planned->met)
            code = not_met(&planning, planned);
        else if (write_plan(planning.output, model, sample, planned, &arena, &plan, &error) != RK_OK)
            code = cli_failed(&error);
        else if (!planning.json)
            printf("wrote %s\n", planning.output);
    }
    rk_arena_deinit(&arena);
    rk_planned_destroy(planned);
    rk_sample_destroy(sample);
    rk_model_close(model);
    return code;
}
