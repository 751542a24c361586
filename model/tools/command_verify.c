/* rankpack verify: everything that a server checks before it serves a package, and every row, and the result in words.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "model/golden.h"
#include "model/model_open.h"
#include "model/tools/commands.h"
#include "model/tools/compare.h"

static void report_open(void *context, const char *what, uint64_t done, uint64_t total)
{
    cli_progress(context, what, done, total);
}

struct row_check {
    uint64_t done, total;
};

static bool report_rows(void *context, uint64_t bytes)
{
    struct row_check *check = context;
    check->done += bytes;
    return cli_progress(NULL, "decoding rows", check->done, check->total);
}

static void print_json(const char *path, const struct rk_model *model, const struct comparison *comparison,
                       bool compared, const struct rk_error *error)
{
    json_t *root = json_pack("{s:s, s:b}", "path", path, "ok", error->status == RK_OK);
    if (error->status != RK_OK) {
        json_object_set_new(root, "error", json_string(error->text));
    } else {
        const struct rk_golden_result *golden = rk_model_golden(model);
        json_object_set_new(root, "model", json_string(rk_model_spec_of(model)->name));
        json_object_set_new(root, "bytes", json_integer((json_int_t)rk_model_bytes(model)));
        json_object_set_new(root, "golden_requests", json_integer(golden->num_requests));
        json_object_set_new(root, "golden_largest_error", json_real(golden->largest_error));
    }
    if (error->status == RK_OK && compared) {
        const struct rk_model_spec *spec = rk_model_spec_of(model);
        json_object_set_new(root, "compared_logits", json_integer((json_int_t)comparison->num_logits));
        json_object_set_new(root, "largest_error", json_real(comparison->error));
        json_t *auc = json_object();
        for (uint32_t h = 0; comparison->labelled && comparison->num_samples > 0 && h < spec->num_heads; h++)
            json_object_set_new(auc, spec->heads[h], json_real(comparison_auc(comparison, h)));
        json_object_set_new(root, "auc", auc);
        json_object_set_new(root, "ok", json_boolean(comparison->error <= RK_GOLDEN_TOLERANCE));
    }
    json_dumpf(root, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(root);
}

int command_verify(const struct cli_arguments *arguments)
{
    struct rk_error error = {0};
    struct rk_model *model = NULL;
    struct comparison comparison = {0};
    const char *requests = cli_get(arguments, "requests"), *expected = cli_get(arguments, "expected");
    bool json = cli_has(arguments, "json");
    if ((requests != NULL) != (expected != NULL))
        return cli_usage_error("--requests and --expected belong together");
    const struct rk_model_open_options options = {.progress = report_open, .read_once = true};
    enum rk_status status = rk_model_open(arguments->operand, &options, &model, &error);
    if (status == RK_OK) {
        struct row_check check = {.total = rk_model_bytes(model)};
        status = rk_model_check_rows(model, report_rows, &check, &error);
    }
    if (status == RK_OK && expected != NULL) {
        comparison_init(&comparison, rk_model_spec_of(model)->num_heads);
        status = score_file(model, requests, expected, 256, NULL, NULL, &comparison, &error);
    }
    cli_progress_end();
    bool fine = status == RK_OK;
    if (json) {
        print_json(arguments->operand, model, &comparison, expected != NULL, &error);
        fine = fine && (expected == NULL || comparison.error <= RK_GOLDEN_TOLERANCE);
    } else if (fine) {
        const struct rk_golden_result *golden = rk_model_golden(model);
        printf("model      %s\n", rk_model_spec_of(model)->name);
        printf("checksums  fine: %s of rows and weights\n", cli_bytes(rk_model_bytes(model)));
        printf("rows       fine: all numbers are finite\n");
        printf("golden     fine: %u requests, largest difference %.3g of max(1, |logit|)\n", golden->num_requests,
               golden->largest_error);
        fine = expected == NULL || comparison_print(&comparison, rk_model_spec_of(model));
    } else {
        cli_failed(&error);
    }
    comparison_deinit(&comparison);
    rk_model_close(model);
    int code = cli_finish_output();
    return fine ? code : EXIT_FAILED;
}
