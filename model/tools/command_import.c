/* rankpack import: options in, a package out. */
#include <stdio.h>

#include "model/import.h"
#include "model/tools/commands.h"

static void warn(void *context, const char *text)
{
    (void)context;
    cli_say("warning: %s", text);
}

int command_import(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct rk_import_options options = RK_IMPORT_OPTIONS_DEFAULT;
    options.config = cli_get(arguments, "config");
    options.weights = cli_get(arguments, "weights");
    options.output = cli_get(arguments, "output");
    options.golden_requests = cli_get(arguments, "golden-requests");
    options.golden_scores = cli_get(arguments, "golden-scores");
    options.progress = cli_progress;
    options.warn = warn;
    if (!cli_number_u32(arguments, "golden-count", 1, 1000, &options.num_golden) ||
        !cli_number(arguments, "shard-bytes", true, 1, UINT64_MAX, &options.shards.max_bytes) ||
        !cli_number(arguments, "shard-rows", false, 1, UINT64_MAX, &options.shards.max_rows))
        return EXIT_USAGE;
    if (options.golden_scores != NULL && options.golden_requests == NULL)
        return cli_usage_error("--golden-scores needs --golden-requests: the requests that were scored");
    cli_catch_interrupts();
    if (rk_import(&options, &error) != RK_OK)
        return cli_failed(&error);
    cli_progress_end();
    printf("wrote %s\n", options.output);
    return cli_finish_output();
}
