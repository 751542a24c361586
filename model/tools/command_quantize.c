/* rankpack quantize: a package in, the same model in smaller number formats out, and what that cost. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "model/quantize.h"
#include "model/tools/commands.h"

static double ratio(uint64_t before, uint64_t after)
{
    return after > 0 ? (double)before / (double)after : 0.0;
}

static void print_text(const struct rk_model_spec *spec, const struct rk_quantize_options *options,
                       const struct rk_quantize_result *result)
{
    printf("%-24s %14s %14s %22s %10s %10s %6s %13s %13s\n", "table", "rows", "kept", "format", "before", "after",
           "ratio", "largest error", "mean error");
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_quantized_table *table = &result->tables[t];
        char formats[64];
        snprintf(formats, sizeof formats, "%s -> %s", rk_row_format_name(table->from), rk_row_format_name(table->to));
        printf("%-24s %14" PRIu64 " %14" PRIu64 " %22s %10s %10s %6.2f %13.3g %13.3g\n", spec->tables[t].name,
               table->rows, table->kept, formats, cli_bytes(table->bytes_before), cli_bytes(table->bytes_after),
               ratio(table->bytes_before, table->bytes_after), table->largest_error, table->mean_error);
    }
    if (result->calibrated_rows > 0)
        printf("\ncalibrated with %" PRIu64 " candidates of %s\n", result->calibrated_rows, options->calibrate);
    printf("\nlargest difference of a logit over %u golden requests: %.3g\n", result->num_golden,
           result->largest_golden_error);
    printf("wrote %s: %s, %.2f times smaller\n", options->output, cli_bytes(result->bytes_after),
           ratio(result->bytes_before, result->bytes_after));
}

static void print_json(const struct rk_model_spec *spec, const struct rk_quantize_options *options,
                       const struct rk_quantize_result *result)
{
    json_t *tables = json_array();
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_quantized_table *table = &result->tables[t];
        json_array_append_new(tables,
                              json_pack("{s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:f, s:f}", "name", spec->tables[t].name,
                                        "rows", (json_int_t)table->rows, "kept", (json_int_t)table->kept, "from",
                                        rk_row_format_name(table->from), "to", rk_row_format_name(table->to),
                                        "bytes_before", (json_int_t)table->bytes_before, "bytes_after",
                                        (json_int_t)table->bytes_after, "largest_error", table->largest_error,
                                        "mean_error", table->mean_error));
    }
    json_t *root =
        json_pack("{s:s, s:s, s:o, s:I, s:I, s:f, s:I, s:i, s:f}", "model", spec->name, "output", options->output,
                  "tables", tables, "bytes_before", (json_int_t)result->bytes_before, "bytes_after",
                  (json_int_t)result->bytes_after, "ratio", ratio(result->bytes_before, result->bytes_after),
                  "calibrated_candidates", (json_int_t)result->calibrated_rows, "golden_requests",
                  (int)result->num_golden, "golden_largest_difference", result->largest_golden_error);
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

static enum rk_status read_plan(const struct cli_arguments *arguments, const struct rk_model_spec *spec,
                                struct rk_arena *arena, struct rk_plan *plan, struct rk_error *error)
{
    const char *path = cli_get(arguments, "plan");
    return path != NULL ? rk_plan_read(path, arena, plan, error)
                        : rk_plan_from_options(spec, cli_get(arguments, "rows"), cli_get(arguments, "towers"), arena,
                                               plan, error);
}

static void report_open(void *context, const char *what, uint64_t done, uint64_t total)
{
    cli_progress(context, what, done, total);
}

int command_quantize(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    struct rk_arena arena;
    struct rk_plan plan;
    struct rk_quantize_result result;
    struct rk_shard_limits cut = {.max_rows = UINT64_MAX, .max_bytes = RK_SHARD_BYTES};
    const bool formats = cli_has(arguments, "rows") || cli_has(arguments, "towers");
    if (formats == cli_has(arguments, "plan"))
        return cli_usage_error("give either --plan, or --rows and --towers (one of them at least)");
    if (!cli_number(arguments, "shard-bytes", true, 1, UINT64_MAX, &cut.max_bytes) ||
        !cli_number(arguments, "shard-rows", false, 1, UINT64_MAX, &cut.max_rows))
        return EXIT_USAGE;
    struct rk_quantize_options options = {
        .model_dir = arguments->operand,
        .output = cli_get(arguments, "output"),
        .plan = &plan,
        .calibrate = cli_get(arguments, "calibrate"),
        .cut = cli_has(arguments, "shard-bytes") || cli_has(arguments, "shard-rows") ? &cut : NULL,
        .progress = cli_progress,
    };
    rk_arena_init(&arena, 1u << 20);
    cli_catch_interrupts();
    const struct rk_model_open_options open = {.progress = report_open, .read_once = true};
    enum rk_status status = rk_model_open(options.model_dir, &open, &model, &error);
    if (status == RK_OK)
        status = read_plan(arguments, rk_model_spec_of(model), &arena, &plan, &error);
    if (status == RK_OK)
        status = rk_quantize(model, &options, &arena, &result, &error);
    cli_progress_end();
    int code;
    if (status != RK_OK) {
        code = cli_failed(&error);
    } else {
        (cli_has(arguments, "json") ? print_json : print_text)(rk_model_spec_of(model), &options, &result);
        code = cli_finish_output();
    }
    rk_model_close(model);
    rk_arena_deinit(&arena);
    return code;
}
