/* rankpack synth: turns widths and counts into the shape of a model, then has it made. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/synth.h"
#include "model/tools/commands.h"

/* The storage behind the options. */
struct shape {
    struct rk_synth_options options;
    struct rk_synth_table *tables;
    char (*names)[RK_MAX_NAME_BYTES + 1];
    uint32_t bottom[RK_MAX_LAYERS + 1], top[RK_MAX_LAYERS + 2];
    uint64_t top_in; /* as given; 0: whatever it is */
};

/* "13-512-256" into widths[]. */
static bool parse_widths(const char *option, const char *text, uint32_t min_first, uint32_t *widths, size_t most,
                         size_t *count)
{
    char *copy = strdup(text), *rest = copy;
    bool fine = copy != NULL;
    *count = 0;
    while (fine && rest != NULL) {
        const char *part = strsep(&rest, "-");
        uint64_t width;
        if (*count == most) {
            cli_usage_error("%s has more than %zu widths", option, most);
            fine = false;
        } else if ((fine = cli_parse_number(option, part, false, *count == 0 ? min_first : 1, RK_MAX_WIDTH, &width))) {
            widths[(*count)++] = (uint32_t)width;
        }
    }
    free(copy);
    return fine;
}

static bool new_tables(struct shape *shape, uint32_t count)
{
    shape->tables = calloc((size_t)count + 1, sizeof *shape->tables);
    shape->names = calloc((size_t)count + 1, sizeof *shape->names);
    if (shape->tables == NULL || shape->names == NULL) {
        cli_say("out of memory for %u tables", count);
        return false;
    }
    for (uint32_t t = 0; t < count; t++)
        shape->tables[t] = (struct rk_synth_table){.name = shape->names[t], .ids_per_bag = 1};
    shape->options.tables = shape->tables;
    shape->options.num_tables = count;
    return true;
}

/* "name:rows:dim" */
static bool parse_table(const char *text, struct rk_synth_table *table, char *name)
{
    const char *rows = strchr(text, ':'), *dim = rows != NULL ? strchr(rows + 1, ':') : NULL;
    char number[32];
    uint64_t wide;
    if (dim == NULL || rows == text || (size_t)(rows - text) > RK_MAX_NAME_BYTES ||
        (size_t)(dim - rows) > sizeof number) {
        cli_usage_error("--table is '%s', must be NAME:ROWS:DIM", text);
        return false;
    }
    memcpy(name, text, (size_t)(rows - text));
    memcpy(number, rows + 1, (size_t)(dim - rows - 1));
    number[dim - rows - 1] = '\0';
    if (!cli_parse_number("--table ROWS", number, false, 1, RK_MAX_ROWS, &table->rows) ||
        !cli_parse_number("--table DIM", dim + 1, false, 1, RK_MAX_WIDTH, &wide))
        return false;
    table->dim = (uint32_t)wide;
    return true;
}

static bool set_tables(const struct cli_arguments *arguments, struct shape *shape)
{
    uint32_t named = 0, count = 8, dim = 16;
    uint64_t rows = 100000;
    for (uint32_t i = 0; i < arguments->num_values; i++)
        named += strcmp(arguments->values[i].option->name, "table") == 0;
    bool uniform = cli_has(arguments, "tables") || cli_has(arguments, "rows") || cli_has(arguments, "dim");
    if (named > 0 && uniform) {
        cli_usage_error("--table and --tables, --rows, --dim exclude each other");
        return false;
    }
    if (!cli_number_u32(arguments, "tables", 0, RK_MAX_TABLES, &count) ||
        !cli_number(arguments, "rows", false, 1, RK_MAX_ROWS, &rows) ||
        !cli_number_u32(arguments, "dim", 1, RK_MAX_WIDTH, &dim))
        return false;
    if (named > 0) {
        uint32_t t = 0;
        if (!new_tables(shape, named))
            return false;
        for (uint32_t i = 0; i < arguments->num_values; i++)
            if (strcmp(arguments->values[i].option->name, "table") == 0) {
                if (!parse_table(arguments->values[i].text, &shape->tables[t], shape->names[t]))
                    return false;
                t++;
            }
    } else if (shape->options.tables != NULL && !uniform) {
        /* The named shape's: copied, so that the options behind may change them. */
        const struct rk_synth_table *known = shape->options.tables;
        if (!new_tables(shape, shape->options.num_tables))
            return false;
        memcpy(shape->tables, known, shape->options.num_tables * sizeof *known);
    } else {
        if (!new_tables(shape, count))
            return false;
        for (uint32_t t = 0; t < count; t++) {
            snprintf(shape->names[t], sizeof shape->names[t], "table_%u", t);
            shape->tables[t].rows = rows;
            shape->tables[t].dim = dim;
        }
    }
    uint64_t max_rows = RK_MAX_ROWS;
    uint32_t ids = 0;
    if (!cli_number(arguments, "max-rows", false, 1, RK_MAX_ROWS, &max_rows) ||
        !cli_number_u32(arguments, "pooling-factor", 0, 65536, &ids))
        return false;
    for (uint32_t t = 0; t < shape->options.num_tables; t++) {
        if (shape->tables[t].rows > max_rows)
            shape->tables[t].rows = max_rows;
        if (cli_has(arguments, "pooling-factor"))
            shape->tables[t].ids_per_bag = ids;
    }
    return true;
}

static bool set_interaction(const struct cli_arguments *arguments, struct rk_interaction_spec *interaction)
{
    static const struct {
        const char *name;
        enum rk_interaction_op op;
    } ops[] = {{"dot", RK_INTERACTION_DOT}, {"cat", RK_INTERACTION_CAT}, {"dcn_v2", RK_INTERACTION_DCN_V2}};
    const char *name = cli_get(arguments, "interaction");
    if (name != NULL) {
        size_t i = 0;
        while (i < 3 && strcmp(ops[i].name, name) != 0)
            i++;
        if (i == 3) {
            cli_usage_error("--interaction is '%s', must be dot, cat or dcn_v2", name);
            return false;
        }
        if (ops[i].op != interaction->op)
            *interaction = (struct rk_interaction_spec){.op = ops[i].op};
    }
    if (interaction->op != RK_INTERACTION_DCN_V2) {
        if (cli_has(arguments, "cross-layers") || cli_has(arguments, "cross-rank")) {
            cli_usage_error("--cross-layers and --cross-rank have a meaning only with --interaction dcn_v2");
            return false;
        }
        return true;
    }
    if (interaction->num_cross == 0)
        interaction->num_cross = 3;
    if (interaction->rank == 0)
        interaction->rank = 512;
    return cli_number_u32(arguments, "cross-layers", 1, RK_MAX_LAYERS, &interaction->num_cross) &&
           cli_number_u32(arguments, "cross-rank", 1, RK_MAX_WIDTH, &interaction->rank);
}

/* --bottom DENSE-WIDTH-..., --top IN-WIDTH-...-HEADS */
static bool set_towers(const struct cli_arguments *arguments, struct shape *shape)
{
    struct rk_synth_options *options = &shape->options;
    const char *bottom = cli_get(arguments, "bottom"), *top = cli_get(arguments, "top");
    size_t count;
    if (bottom != NULL) {
        if (!parse_widths("--bottom", bottom, 0, shape->bottom, RK_MAX_LAYERS + 1, &count))
            return false;
        options->num_dense = shape->bottom[0];
        options->bottom = shape->bottom + 1;
        options->num_bottom = (uint32_t)count - 1;
    }
    if (top != NULL) {
        if (!parse_widths("--top", top, 0, shape->top, RK_MAX_LAYERS + 2, &count))
            return false;
        if (count < 2) {
            cli_usage_error("--top is '%s', must be INPUT-...-HEADS, for example 0-64-1", top);
            return false;
        }
        shape->top_in = shape->top[0];
        options->top = shape->top + 1;
        options->num_top = (uint32_t)count - 2;
        options->num_heads = shape->top[count - 1];
        if (options->num_heads > RK_MAX_HEADS) {
            cli_usage_error("--top ends in %u heads, at most %u are possible", options->num_heads, RK_MAX_HEADS);
            return false;
        }
    }
    return cli_number_u32(arguments, "heads", 1, RK_MAX_HEADS, &options->num_heads);
}

static bool set_sides(const struct cli_arguments *arguments, struct rk_synth_options *options)
{
    if (!cli_has(arguments, "shape") || options->num_context_features > options->num_tables)
        options->num_context_features = options->num_tables / 2;
    if (!cli_has(arguments, "shape") || options->num_context_dense > options->num_dense)
        options->num_context_dense = options->num_dense / 2;
    return cli_number_u32(arguments, "context-features", 0, options->num_tables, &options->num_context_features) &&
           cli_number_u32(arguments, "context-dense", 0, options->num_dense, &options->num_context_dense);
}

static bool parse_shape(const struct cli_arguments *arguments, struct shape *shape)
{
    static const uint32_t default_bottom[] = {64, 16}, default_top[] = {64, 32};
    struct rk_synth_options *options = &shape->options;
    *options = (struct rk_synth_options){.name = "synth",
                                         .num_dense = 8,
                                         .bottom = default_bottom,
                                         .num_bottom = 2,
                                         .top = default_top,
                                         .num_top = 2,
                                         .num_heads = 1,
                                         .seed = 1,
                                         .shards = {.max_rows = UINT64_MAX, .max_bytes = (uint64_t)64 << 30},
                                         .output = cli_get(arguments, "output"),
                                         .progress = cli_progress};
    const char *known = cli_get(arguments, "shape");
    if (known != NULL && !rk_synth_shape(known, options)) {
        cli_usage_error("--shape is '%s', must be one of %s, %s", known, rk_synth_shape_names()[0],
                        rk_synth_shape_names()[1]);
        return false;
    }
    if (cli_has(arguments, "name"))
        options->name = cli_get(arguments, "name");
    options->weighted = cli_has(arguments, "weighted");
    const char *format = cli_get(arguments, "row-format");
    if (format != NULL && !rk_row_format_parse(format, &options->row_format)) {
        cli_usage_error("--row-format is '%s', must be one of fp32, fp16, bf16, int8, int4, int2", format);
        return false;
    }
    if (!set_tables(arguments, shape) || !set_towers(arguments, shape) ||
        !set_interaction(arguments, &options->interaction) || !set_sides(arguments, options) ||
        !cli_number(arguments, "seed", false, 0, UINT64_MAX, &options->seed) ||
        !cli_number(arguments, "shard-bytes", true, 1, UINT64_MAX, &options->shards.max_bytes) ||
        !cli_number(arguments, "shard-rows", false, 1, UINT64_MAX, &options->shards.max_rows))
        return false;
    uint64_t top_in = rk_synth_top_in(options);
    if (shape->top_in != 0 && shape->top_in != top_in) {
        cli_usage_error("--top begins with %llu, but the interaction gives %llu values; 0 leaves it out",
                        (unsigned long long)shape->top_in, (unsigned long long)top_in);
        return false;
    }
    return true;
}

static int write_requests(const struct cli_arguments *arguments, const struct rk_synth_options *options)
{
    const char *path = cli_get(arguments, "requests-output");
    struct rk_error error = {0};
    uint64_t count = 0;
    uint32_t candidates = 100;
    if (!cli_number(arguments, "requests", false, 1, UINT64_MAX, &count) ||
        !cli_number_u32(arguments, "candidates", 1, 65536, &candidates))
        return EXIT_USAGE;
    FILE *stream = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
    if (stream == NULL) {
        cli_say("failed to create %s: %s", path, strerror(errno));
        return EXIT_FAILED;
    }
    enum rk_status status = rk_synth_requests(options, count, candidates, stream, &error);
    if ((stream == stdout ? fflush(stream) : fclose(stream)) != 0 && status == RK_OK)
        status = rk_error_set(&error, RK_IO, "failed to write %s: %s", path, strerror(errno));
    return status == RK_OK ? EXIT_FINE : cli_failed(&error);
}

int command_synth(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct shape shape = {0};
    int code = EXIT_USAGE;
    bool requests = cli_has(arguments, "requests");
    if (requests != cli_has(arguments, "requests-output"))
        return cli_usage_error("--requests and --requests-output belong together");
    if (!requests && !cli_has(arguments, "output"))
        return cli_usage_error("there is nothing to make: --output for a package, --requests and --requests-output for "
                               "requests, or both");
    if (!parse_shape(arguments, &shape))
        goto done;
    cli_catch_interrupts();
    if (shape.options.output != NULL && rk_synth(&shape.options, &error) != RK_OK) {
        code = cli_failed(&error);
        goto done;
    }
    cli_progress_end();
    code = requests ? write_requests(arguments, &shape.options) : EXIT_FINE;
    if (code == EXIT_FINE) {
        if (shape.options.output != NULL)
            fprintf(stderr, "wrote %s\n", shape.options.output);
        code = cli_finish_output();
    }
done:
    free(shape.tables);
    free(shape.names);
    return code;
}
