/* Synthetic models: any shape opens, the same seed gives the same bytes, requests fit their model. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/engine.h"
#include "model/synth.h"
#include "tests/unit/model/tiny_model.h"
#include "tests/unit/random.h"

static struct tiny tiny;

static void setup(void)
{
    tiny_create(&tiny);
}

static void teardown(void)
{
    tiny_destroy(&tiny);
}

TestSuite(synth, .init = setup, .fini = teardown, .timeout = 120);

static const struct rk_synth_table tables[] = {{"u", 50, 8, 2}, {"v", 7, 8, 0}, {"w", 1, 8, 3}};
static const uint32_t bottom[] = {12, 8}, top[] = {16};

static struct rk_synth_options options_of(enum rk_interaction_op op)
{
    return (struct rk_synth_options){.name = "s",
                                     .tables = tables,
                                     .num_tables = 3,
                                     .num_context_features = 1,
                                     .num_context_dense = 2,
                                     .num_dense = 5,
                                     .bottom = bottom,
                                     .num_bottom = 2,
                                     .top = top,
                                     .num_top = 1,
                                     .num_heads = 2,
                                     .interaction = {.op = op,
                                                     .num_cross = op == RK_INTERACTION_DCN_V2 ? 2 : 0,
                                                     .rank = op == RK_INTERACTION_DCN_V2 ? 4 : 0},
                                     .weighted = true,
                                     .seed = 3,
                                     .shards = {.max_rows = 20, .max_bytes = UINT64_MAX},
                                     .output = tiny.package};
}

struct scoring {
    struct rk_model *model;
    struct rk_engine *engine;
    unsigned requests;
};

static enum rk_status score(void *context, uint64_t line, struct rk_named_request *named, struct rk_arena *arena,
                            struct rk_error *error)
{
    struct scoring *scoring = context;
    struct rk_request request;
    (void)line;
    enum rk_status status =
        rk_request_bind(rk_model_spec_of(scoring->model), &RK_REQUEST_LIMITS_DEFAULT, named, arena, &request, error);
    if (status != RK_OK)
        return status;
    float *logits = rk_arena_array(arena, (size_t)request.num_candidates * 2, sizeof *logits);
    cr_assert_eq(rk_engine_score(scoring->engine, &request, logits), RK_OK);
    for (uint32_t i = 0; i < 2 * request.num_candidates; i++)
        cr_assert_lt(fabsf(logits[i]), 50, "logit %g is of no ordinary size", (double)logits[i]);
    scoring->requests++;
    return RK_OK;
}

Test(synth, its_requests_fit_its_model)
{
    for (int op = RK_INTERACTION_DOT; op <= RK_INTERACTION_DCN_V2; op++) {
        struct rk_synth_options options = options_of((enum rk_interaction_op)op);
        struct rk_error error = {0};
        char package[96], requests[96];
        snprintf(package, sizeof package, "%s/package%d", tiny.path, op);
        snprintf(requests, sizeof requests, "%s/requests.jsonl", tiny.path);
        options.output = package;
        cr_assert_eq(rk_synth(&options, &error), RK_OK, "%s", error.text);
        FILE *stream = fopen(requests, "w");
        cr_assert_eq(rk_synth_requests(&options, 20, 9, stream, &error), RK_OK, "%s", error.text);
        fclose(stream);
        struct scoring scoring = {0};
        cr_assert_eq(rk_model_open(package, NULL, &scoring.model, &error), RK_OK, "%s", error.text);
        cr_assert_eq(rk_engine_create(scoring.model, 16, &scoring.engine, &error), RK_OK, "%s", error.text);
        cr_assert_eq(rk_jsonl_read(requests, score, &scoring, &error), RK_OK, "%s", error.text);
        cr_assert_eq(scoring.requests, 20);
        rk_engine_destroy(scoring.engine);
        rk_model_close(scoring.model);
    }
}

Test(synth, the_same_seed_gives_the_same_bytes_and_another_does_not)
{
    struct rk_synth_options options = options_of(RK_INTERACTION_DOT);
    struct rk_error error = {0};
    unsigned char *manifests[3];
    size_t bytes[3];
    for (int i = 0; i < 3; i++) {
        char package[96], name[32];
        snprintf(package, sizeof package, "%s/p%d", tiny.path, i);
        snprintf(name, sizeof name, "p%d/manifest.json", i);
        options.output = package;
        options.seed = i < 2 ? 11 : 12;
        cr_assert_eq(rk_synth(&options, &error), RK_OK, "%s", error.text);
        manifests[i] = tiny_read(&tiny, name, &bytes[i]);
    }
    cr_assert(bytes[0] == bytes[1] && memcmp(manifests[0], manifests[1], bytes[0]) == 0,
              "checksums differ with the same seed");
    cr_assert(bytes[0] != bytes[2] || memcmp(manifests[0], manifests[2], bytes[0]) != 0,
              "checksums are equal with another seed");
    for (int i = 0; i < 3; i++)
        free(manifests[i]);
}

Test(synth, the_known_shapes_are_those_published)
{
    struct rk_synth_options options = {0};
    cr_assert(rk_synth_shape("dlrm-26x128", &options));
    cr_assert_eq(rk_synth_top_in(&options), 479);
    cr_assert(rk_synth_shape("mlperf-dlrm-dcnv2", &options));
    uint64_t rows = 0, ids = 0;
    for (uint32_t t = 0; t < options.num_tables; t++) {
        rows += options.tables[t].rows;
        ids += options.tables[t].ids_per_bag;
    }
    cr_assert_eq(rows, 204184588, "%llu", (unsigned long long)rows);
    cr_assert_eq(ids, 214, "%llu", (unsigned long long)ids);
    cr_assert_eq(rk_synth_top_in(&options), 3456);
    cr_assert_eq(options.interaction.rank, 512);
    cr_assert_not(rk_synth_shape("resnet", &options));
}

Test(synth, shapes_that_do_not_fit_are_refused)
{
    struct rk_error error = {0};
    struct rk_synth_options options = options_of(RK_INTERACTION_DOT);
    static const uint32_t narrow[] = {6};
    options.bottom = narrow; /* dot needs one width for all */
    options.num_bottom = 1;
    cr_assert_eq(rk_synth(&options, &error), RK_INVALID);
    cr_assert_not_null(strstr(error.text, "dot"), "'%s'", error.text);
    options = options_of(RK_INTERACTION_DOT);
    options.num_context_features = 4;
    error = (struct rk_error){0};
    cr_assert_eq(rk_synth(&options, &error), RK_INVALID);
    cr_assert_eq(tiny_count_entries(&tiny), 2);
}
