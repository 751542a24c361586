/* rankpack inspect: what a package holds and what a candidate costs, without reading rows. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/answer_json.h"
#include "model/model.h"
#include "model/spec_json.h"
#include "model/tools/commands.h"
#include "model/tools/shards_view.h"

static uint64_t all_rows_bytes(const struct rk_model_spec *spec)
{
    uint64_t bytes = 0;
    for (uint32_t t = 0; t < spec->num_tables; t++)
        bytes += rk_table_spec_bytes(&spec->tables[t]);
    return bytes;
}

static uint64_t kept_rows(const struct rk_table_spec *table)
{
    return table->kept.file != NULL ? table->kept.num_rows : table->num_embeddings;
}

static void print_tables(const struct rk_model_spec *spec)
{
    printf("\n%-24s %14s %6s %-10s %14s %6s %10s  %s\n", "table", "rows", "dim", "format", "kept", "shards", "bytes",
           "ids out of range");
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_table_spec *table = &spec->tables[t];
        printf("%-24s %14" PRIu64 " %6u %-10s %14" PRIu64 " %6u %10s  %s", table->name, table->num_embeddings,
               table->embedding_dim, rk_row_format_name(table->format), kept_rows(table), table->num_shards,
               cli_bytes(rk_table_spec_bytes(table)), rk_out_of_range_name(table->out_of_range));
        if (table->out_of_range == RK_OUT_OF_RANGE_DEFAULT)
            printf(" %" PRIu64, table->default_row);
        putchar('\n');
    }
}

static void print_features(const struct rk_model_spec *spec)
{
    printf("\n%-24s %-24s %-10s %s\n", "feature", "table", "side", "pooling");
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_feature_spec *feature = &spec->features[f];
        printf("%-24s %-24s %-10s %s%s\n", feature->name, spec->tables[feature->table].name,
               rk_side_names[feature->side], rk_pooling_names[feature->pooling], feature->weighted ? ", weighted" : "");
    }
}

static const char *calibration(const struct rk_linear_spec *layer)
{
    return layer->calibrated ? ", calibrated" : "";
}

/* "512 -> 256 in int8, calibrated", or where layers differ "512 in int8 -> 256 in fp32". */
static void print_mlp(const struct rk_mlp_spec *mlp)
{
    for (uint32_t i = 0; i < mlp->num_layers; i++) {
        const struct rk_linear_spec *layer = &mlp->layers[i], *next = layer + 1;
        printf("%s%u", i == 0 ? "" : " -> ", layer->weight.rows);
        if (i + 1 == mlp->num_layers || next->format != layer->format || next->calibrated != layer->calibrated)
            printf(" in %s%s", rk_dense_format_name(layer->format), calibration(layer));
    }
}

/* The way of the numbers, from inputs to logits. */
static void print_architecture(const struct rk_model_spec *spec)
{
    struct rk_model_widths widths = rk_model_spec_widths(spec);
    const struct rk_interaction_spec *interaction = &spec->interaction;
    printf("\narchitecture\n");
    if (widths.dense > 0) {
        printf("  dense %u (%u context + %u candidate)", widths.dense, spec->num_context_dense,
               spec->num_candidate_dense);
        if (spec->bottom.num_layers > 0) {
            printf(" -> bottom MLP ");
            print_mlp(&spec->bottom);
        }
        printf(" --+\n");
    }
    uint32_t context = 0;
    for (uint32_t f = 0; f < spec->num_features; f++)
        context += spec->features[f].side == RK_SIDE_CONTEXT;
    printf("  features %u (%u context + %u candidate), %u pooled values --+\n", spec->num_features, context,
           spec->num_features - context, widths.pooled);
    printf("    +--> interaction %s", rk_interaction_names[interaction->op]);
    if (interaction->op == RK_INTERACTION_DOT)
        printf(" (%s%s of %u vectors in %s)", rk_pairs_names[interaction->pairs],
               interaction->self ? " with the diagonal" : "", widths.num_vectors,
               rk_dense_format_name(interaction->format));
    if (interaction->op == RK_INTERACTION_DCN_V2)
        printf(" (%u layers, rank %u, in %s%s)", interaction->num_cross, interaction->rank,
               rk_dense_format_name(interaction->cross[0].v.format), calibration(&interaction->cross[0].v));
    printf(" -> %u\n    +--> top MLP ", widths.top_in);
    print_mlp(&spec->top);
    printf("\n    +--> logits:");
    for (uint32_t h = 0; h < spec->num_heads; h++)
        printf(" %s", spec->heads[h]);
    putchar('\n');
    for (uint32_t h = 0; spec->calibration != NULL && h < spec->num_heads; h++)
        printf("    +--> %s: sigmoid(%g * logit %c %g)\n", spec->heads[h], (double)spec->calibration[h].scale,
               spec->calibration[h].shift < 0 ? '-' : '+', fabs((double)spec->calibration[h].shift));
    for (uint32_t v = 0; v < spec->num_value_models; v++) {
        const struct rk_value_model *value = &spec->value_models[v];
        char formula[400];
        printf("    +--> value %s%s: %s\n", value->name, value == spec->default_value ? " (default)" : "",
               rk_value_print(value, spec->heads, formula, sizeof formula));
    }
}

static void print_cost(const struct rk_model_spec *spec, double ids_per_feature)
{
    struct rk_model_cost cost = rk_model_spec_cost(spec, ids_per_feature);
    printf("\ncost, with %g id%s per feature\n", ids_per_feature, ids_per_feature == 1 ? "" : "s");
    printf("  multiply-adds per request        %" PRIu64 "\n", cost.context_multiply_adds);
    printf("  multiply-adds per candidate      %" PRIu64 "\n", cost.multiply_adds - cost.context_multiply_adds);
    printf("  bytes of rows per candidate      %" PRIu64 "\n", cost.candidate_bytes);
    printf("  bytes of rows per request        %" PRIu64 "\n", cost.context_bytes);
    printf("  bytes of weights per batch       %" PRIu64 "\n", cost.weight_bytes);
}

static json_t *layer_widths(const struct rk_mlp_spec *mlp)
{
    json_t *widths = json_array();
    for (uint32_t i = 0; i < mlp->num_layers; i++)
        json_array_append_new(widths, json_integer(mlp->layers[i].weight.rows));
    return widths;
}

static json_t *layer_formats(const struct rk_mlp_spec *mlp)
{
    json_t *formats = json_array();
    for (uint32_t i = 0; i < mlp->num_layers; i++)
        json_array_append_new(formats, json_string(rk_dense_format_name(mlp->layers[i].format)));
    return formats;
}

static bool is_calibrated(const struct rk_model_spec *spec)
{
    struct rk_layer_use uses[RK_MAX_LAYER_USES];
    const size_t count = rk_model_spec_layers(spec, uses);
    bool calibrated = false;
    for (size_t l = 0; l < count; l++)
        calibrated |= uses[l].layer->calibrated;
    return calibrated;
}

static json_t *name_list(const char *const *names, uint32_t count)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(names[i]));
    return list;
}

static void print_json(const struct rk_model *model, double ids_per_feature, const struct shards_view *view)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    struct rk_model_widths widths = rk_model_spec_widths(spec);
    struct rk_model_cost cost = rk_model_spec_cost(spec, ids_per_feature);
    json_t *tables = json_array(), *features = json_array();
    for (uint32_t t = 0; t < spec->num_tables; t++) {
        const struct rk_table_spec *table = &spec->tables[t];
        json_t *item = json_pack("{s:s, s:I, s:I, s:i, s:s, s:i, s:I, s:s}", "name", table->name, "rows",
                                 (json_int_t)table->num_embeddings, "kept", (json_int_t)kept_rows(table), "dim",
                                 (int)table->embedding_dim, "format", rk_row_format_name(table->format), "shards",
                                 (int)table->num_shards, "bytes", (json_int_t)rk_table_spec_bytes(table),
                                 "out_of_range", rk_out_of_range_name(table->out_of_range));
        if (table->out_of_range == RK_OUT_OF_RANGE_DEFAULT)
            json_object_set_new(item, "default_row", json_integer((json_int_t)table->default_row));
        json_array_append_new(tables, item);
    }
    for (uint32_t f = 0; f < spec->num_features; f++) {
        const struct rk_feature_spec *feature = &spec->features[f];
        json_array_append_new(features,
                              json_pack("{s:s, s:s, s:s, s:s, s:b}", "name", feature->name, "table",
                                        spec->tables[feature->table].name, "side", rk_side_names[feature->side],
                                        "pooling", rk_pooling_names[feature->pooling], "weighted",
                                        (int)feature->weighted));
    }
    json_t *interaction =
        json_pack("{s:s, s:i}", "op", rk_interaction_names[spec->interaction.op], "width", (int)widths.top_in);
    if (spec->interaction.op == RK_INTERACTION_DOT) {
        json_object_set_new(interaction, "pairs", json_string(rk_pairs_names[spec->interaction.pairs]));
        json_object_set_new(interaction, "self", json_boolean(spec->interaction.self));
        json_object_set_new(interaction, "format", json_string(rk_dense_format_name(spec->interaction.format)));
    }
    if (spec->interaction.op == RK_INTERACTION_DCN_V2) {
        json_object_set_new(interaction, "layers", json_integer(spec->interaction.num_cross));
        json_object_set_new(interaction, "rank", json_integer(spec->interaction.rank));
        json_object_set_new(interaction, "format",
                            json_string(rk_dense_format_name(spec->interaction.cross[0].v.format)));
    }
    json_t *root =
        json_pack("{s:s, s:I, s:I, s:I, s:{s:o, s:o}, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:f, s:I, s:I, s:I, s:I, s:I}}",
                  "name", spec->name, "bytes", (json_int_t)rk_model_bytes(model), "rows_bytes",
                  (json_int_t)all_rows_bytes(spec), "weights_bytes", (json_int_t)spec->weights_bytes, "dense",
                  "context", name_list(spec->context_dense, spec->num_context_dense), "candidate",
                  name_list(spec->candidate_dense, spec->num_candidate_dense), "tables", tables, "features", features,
                  "bottom_mlp", layer_widths(&spec->bottom), "interaction", interaction, "top_mlp",
                  layer_widths(&spec->top), "heads", name_list(spec->heads, spec->num_heads), "cost", "ids_per_feature",
                  ids_per_feature, "multiply_adds_per_request", (json_int_t)cost.context_multiply_adds,
                  "multiply_adds_per_candidate", (json_int_t)(cost.multiply_adds - cost.context_multiply_adds),
                  "row_bytes_per_candidate", (json_int_t)cost.candidate_bytes, "row_bytes_per_request",
                  (json_int_t)cost.context_bytes, "weight_bytes_per_batch", (json_int_t)cost.weight_bytes);
    json_object_set_new(root, "bottom_mlp_formats", layer_formats(&spec->bottom));
    json_object_set_new(root, "top_mlp_formats", layer_formats(&spec->top));
    json_object_set_new(root, "calibrated", json_boolean(is_calibrated(spec)));
    rk_answer_json_print(spec, root);
    if (view != NULL)
        json_object_set_new(root, "plan", shards_view_json(view));
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

/* view: what --plan asks for, instead of all that the package is; otherwise NULL. */
static void print_text(const char *path, const struct rk_model *model, double ids_per_feature,
                       const struct shards_view *view)
{
    const struct rk_model_spec *spec = rk_model_spec_of(model);
    printf("model      %s\npackage    %s\nsize       %s: %s of rows in %u table%s, %s of weights\n", spec->name, path,
           cli_bytes(rk_model_bytes(model)), cli_bytes(all_rows_bytes(spec)), spec->num_tables,
           spec->num_tables == 1 ? "" : "s", cli_bytes(spec->weights_bytes));
    if (view != NULL) {
        shards_view_print(view);
        return;
    }
    print_architecture(spec);
    print_tables(spec);
    print_features(spec);
    print_cost(spec, ids_per_feature);
}

int command_inspect(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    double ids_per_feature = 1;
    const char *text = cli_get(arguments, "ids-per-feature");
    if (text != NULL) {
        char *end;
        ids_per_feature = strtod(text, &end);
        if (end == text || *end != '\0' || !(ids_per_feature >= 0 && ids_per_feature <= 1e6))
            return cli_usage_error("--ids-per-feature is '%s', must be a number from 0 to 1000000", text);
    }
    static const char *const of_plan[] = {"shards", "capacity", "candidates", "requests", "plot"};
    const bool plan = cli_has(arguments, "plan");
    for (size_t i = 0; i < sizeof of_plan / sizeof *of_plan; i++)
        if (!plan && cli_has(arguments, of_plan[i]))
            return cli_usage_error("--%s has a meaning only with --plan", of_plan[i]);
    const struct rk_model_open_options options = {.skip_checksums = true, .skip_golden = true, .skip_towers = true};
    if (rk_model_open(arguments->operand, &options, &model, &error) != RK_OK)
        return cli_failed(&error);
    struct shards_view view = {0};
    const char *plot = cli_get(arguments, "plot");
    int code = plan ? shards_view_init(&view, arguments, rk_model_spec_of(model), ids_per_feature) : EXIT_FINE;
    if (code == EXIT_FINE && plot != NULL && shards_view_plot(&view, plot, &error) != RK_OK)
        code = cli_failed(&error);
    if (code == EXIT_FINE) {
        if (cli_has(arguments, "json"))
            print_json(model, ids_per_feature, plan ? &view : NULL);
        else
            print_text(arguments->operand, model, ids_per_feature, plan ? &view : NULL);
        code = cli_finish_output();
    }
    shards_view_deinit(&view);
    rk_model_close(model);
    return code;
}
