/* What inspect --plan says in words: shards with a bar for their bytes and one for their reads, then every piece. */
#include "model/tools/shards_view.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/jsonl.h"

enum { BAR = 28 };

/* ---- what requests read ---- */

/* Sums over a file of requests. */
struct sample {
    const struct rk_model_spec *spec;
    uint64_t requests, candidates;
    double *ids; /* [num_features] */
};

static enum rk_status count_request(void *context, uint64_t line, struct rk_named_request *named,
                                    struct rk_arena *arena, struct rk_error *error)
{
    (void)line;
    struct sample *sample = context;
    struct rk_request request = {0};
    const enum rk_status status =
        rk_request_bind(sample->spec, &RK_REQUEST_LIMITS_DEFAULT, named, arena, &request, error);
    if (status != RK_OK)
        return status;
    sample->requests++;
    sample->candidates += request.num_candidates;
    for (uint32_t f = 0; f < sample->spec->num_features; f++) {
        const uint32_t bags = sample->spec->features[f].side == RK_SIDE_CONTEXT ? 1 : request.num_candidates;
        sample->ids[f] += request.bags[f].offsets[bags];
    }
    return RK_OK;
}

static enum rk_status count_requests(struct shards_view *view, const char *path, struct rk_error *error)
{
    struct sample sample = {.spec = view->spec, .ids = view->ids_per_bag};
    memset(sample.ids, 0, view->spec->num_features * sizeof *sample.ids);
    const enum rk_status status = rk_jsonl_read(path, count_request, &sample, error);
    if (status != RK_OK)
        return status;
    if (sample.requests == 0)
        return rk_error_set(error, RK_INVALID, "%s holds no requests", path);
    for (uint32_t f = 0; f < view->spec->num_features; f++)
        sample.ids[f] /=
            view->spec->features[f].side == RK_SIDE_CONTEXT ? (double)sample.requests : (double)sample.candidates;
    view->candidates = (double)sample.candidates / (double)sample.requests;
    view->sampled_requests = sample.requests;
    return RK_OK;
}

int shards_view_init(struct shards_view *view, const struct cli_arguments *arguments, const struct rk_model_spec *spec,
                     double ids_per_feature)
{
    struct rk_error error = {0};
    uint32_t num_shards = 1, candidates = RK_USUAL_CANDIDATES;
    const char *requests = cli_get(arguments, "requests");
    *view = (struct shards_view){.spec = spec};
    if (!cli_number_u32(arguments, "shards", 1, RK_MAX_PLACEMENT_SHARDS, &num_shards) ||
        !cli_number_u32(arguments, "candidates", 1, UINT32_MAX, &candidates) ||
        !cli_number(arguments, "capacity", true, 1, INT64_MAX, &view->capacity_bytes))
        return EXIT_USAGE;
    if (requests != NULL && (cli_has(arguments, "candidates") || cli_has(arguments, "ids-per-feature")))
        return cli_usage_error("--requests says what a request reads; leave --candidates and --ids-per-feature out");
    view->candidates = candidates;
    view->ids_per_bag = calloc((size_t)spec->num_features + 1, sizeof *view->ids_per_bag);
    if (view->ids_per_bag == NULL)
        rk_error_set(&error, RK_NO_MEMORY, "out of memory");
    for (uint32_t f = 0; view->ids_per_bag != NULL && f < spec->num_features; f++)
        view->ids_per_bag[f] = ids_per_feature;
    if (view->ids_per_bag != NULL && (requests == NULL || count_requests(view, requests, &error) == RK_OK)) {
        const struct rk_row_traffic traffic = {.candidates = view->candidates, .ids_per_bag = view->ids_per_bag};
        const struct rk_placement_limits limits = {.num_shards = num_shards, .capacity_bytes = view->capacity_bytes};
        rk_model_plan_rows(spec, &traffic, &limits, &view->placement, &error);
    }
    if (error.status != RK_OK) {
        shards_view_deinit(view);
        return cli_failed(&error);
    }
    for (uint32_t s = 0; s < num_shards; s++)
        view->load += view->placement.shards[s].load;
    return EXIT_FINE;
}

void shards_view_deinit(struct shards_view *view)
{
    rk_placement_deinit(&view->placement);
    free(view->ids_per_bag);
    view->ids_per_bag = NULL;
}

/* ---- words ---- */

static const char *bar(double part, double whole, char text[BAR + 1])
{
    const double share = whole > 0 ? fmin(part / whole, 1) : 0;
    const int full = (int)ceil(share * BAR - 1e-9); /* what there is can be seen, however little */
    memset(text, '.', BAR);
    memset(text, '#', (size_t)full);
    text[BAR] = '\0';
    return text;
}

static double percent(const struct shards_view *view, double load)
{
    return view->load > 0 ? 100 * load / view->load : 0;
}

void shards_view_print(const struct shards_view *view)
{
    const struct rk_placement *placement = &view->placement;
    double most_bytes = (double)view->capacity_bytes, most_load = 0;
    for (uint32_t s = 0; s < placement->num_shards; s++) {
        most_bytes = fmax(most_bytes, (double)placement->shards[s].bytes);
        most_load = fmax(most_load, placement->shards[s].load);
    }
    printf("\nrows on %u shard%s", placement->num_shards, placement->num_shards == 1 ? "" : "s");
    if (view->capacity_bytes > 0)
        printf(" of %s", cli_bytes(view->capacity_bytes));
    if (view->sampled_requests > 0)
        printf(", for what %" PRIu64 " request%s read: %.4g candidates each, %.0f cache lines of rows\n",
               view->sampled_requests, view->sampled_requests == 1 ? "" : "s", view->candidates, view->load);
    else
        printf(", for requests of %.0f candidates that read %.0f cache lines of rows\n", view->candidates, view->load);
    printf("\n%-6s %10s  %-*s %6s  %s\n", "shard", "bytes", BAR, "", "reads", "");
    for (uint32_t s = 0; s < placement->num_shards; s++) {
        const struct rk_shard_use *shard = &placement->shards[s];
        char bytes[BAR + 1], reads[BAR + 1];
        printf("%-6u %10s  %s %5.1f%%  %s\n", s, cli_bytes(shard->bytes), bar((double)shard->bytes, most_bytes, bytes),
               percent(view, shard->load), bar(shard->load, most_load, reads));
    }
    printf("\n%-24s %6s %14s %14s %10s %6s\n", "table", "shard", "first row", "rows", "bytes", "reads");
    for (size_t p = 0; p < placement->num_pieces; p++) {
        const struct rk_piece *piece = &placement->pieces[p];
        const bool kept = piece->item >= view->spec->num_tables;
        printf("%-24s %6u ", view->spec->tables[rk_model_item_table(view->spec, piece->item)].name, piece->shard);
        if (kept)
            printf("%29s", "which rows are kept");
        else
            printf("%14" PRIu64 " %14" PRIu64, piece->first_row, piece->num_rows);
        printf(" %10s %5.1f%%\n", cli_bytes(piece->bytes), percent(view, piece->load));
    }
}

json_t *shards_view_json(const struct shards_view *view)
{
    const struct rk_placement *placement = &view->placement;
    json_t *shards = json_array(), *pieces = json_array();
    for (uint32_t s = 0; s < placement->num_shards; s++)
        json_array_append_new(shards, json_pack("{s:I, s:f}", "bytes", (json_int_t)placement->shards[s].bytes,
                                                "lines_per_request", placement->shards[s].load));
    for (size_t p = 0; p < placement->num_pieces; p++) {
        const struct rk_piece *piece = &placement->pieces[p];
        const char *table = view->spec->tables[rk_model_item_table(view->spec, piece->item)].name;
        json_t *item = json_pack("{s:s, s:i, s:I, s:f}", "table", table, "shard", (int)piece->shard, "bytes",
                                 (json_int_t)piece->bytes, "lines_per_request", piece->load);
        if (piece->item < view->spec->num_tables) {
            json_object_set_new(item, "first_row", json_integer((json_int_t)piece->first_row));
            json_object_set_new(item, "rows", json_integer((json_int_t)piece->num_rows));
        } else {
            json_object_set_new(item, "kept_list", json_true());
        }
        json_array_append_new(pieces, item);
    }
    json_t *plan = json_pack("{s:f, s:I, s:o, s:o}", "candidates_per_request", view->candidates, "sampled_requests",
                             (json_int_t)view->sampled_requests, "shards", shards, "pieces", pieces);
    if (view->capacity_bytes > 0)
        json_object_set_new(plan, "capacity_bytes", json_integer((json_int_t)view->capacity_bytes));
    return plan;
}
