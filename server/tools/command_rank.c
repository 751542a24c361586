/* rankctl rank: each request of the file becomes one call; its scores are printed before the next is read: as a line
 * like those of `rankpack score`, with --top as a table of the best, with --json as a line with all that the answer
 * says. */
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "model/jsonl.h"
#include "proto/rank_codec.h"
#include "server/tools/rank_message.h"
#include "server/tools/rankctl.h"
#include "server/tools/titles.h"

#define MAX_TITLE_COLUMNS 48

struct ranking {
    const struct rk_ctl_options *options;
    struct rk_grpc_client *client;
    struct rk_titles titles;
    uint64_t num_requests;
};

/* The answer must have the shape that we asked for before anything indexes into it. */
static enum rk_status check_shape(const struct rk_ctl_options *options, const struct rk_named_request *named,
                                  const Rankd__V1__RankResponse *response, size_t *rows, struct rk_error *error)
{
    size_t heads = response->n_heads;
    size_t asked = options->top > 0 && options->top < named->num_candidates ? options->top : named->num_candidates;
    *rows = heads == 0 ? 0 : response->n_probabilities / heads;
    bool fits = heads > 0 && response->n_probabilities == asked * heads && response->n_logits == asked * heads &&
                (options->top == 0 || response->n_positions == asked) &&
                (response->n_values == 0 || response->n_values == asked) &&
                (response->costs != NULL || !options->costs) &&
                (response->n_candidate_ids == 0 || response->n_candidate_ids == asked);
    for (size_t i = 0; fits && i < response->n_positions; i++)
        fits = response->positions[i] < named->num_candidates;
    if (fits)
        return RK_OK;
    return rk_error_set(
        error, RK_INTERNAL,
        "the server's answer does not fit the question: %zu heads, %zu probabilities, %zu logits, %zu positions, "
        "%zu ids, %zu values, %s costs for %zu candidates",
        heads, response->n_probabilities, response->n_logits, response->n_positions, response->n_candidate_ids,
        response->n_values, response->costs != NULL ? "with" : "without", asked);
}

static const char *title_of(const struct ranking *ranking, const Rankd__V1__RankResponse *response, size_t row)
{
    const char *title =
        row < response->n_candidate_ids ? rk_titles_find(&ranking->titles, response->candidate_ids[row]) : NULL;
    return title != NULL ? title : "";
}

/* Columns on a terminal: code points, which is right for most titles. */
static int columns(const char *text)
{
    int count = 0;
    for (; *text != '\0'; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static void print_cell(const char *text, int width)
{
    int left = width;
    for (; *text != '\0'; text++) {
        bool starts = ((unsigned char)*text & 0xc0) != 0x80;
        if (starts && left-- == 0)
            break;
        putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text); /* no control codes to the terminal */
    }
    printf("%*s", left > 0 ? left : 0, "");
}

static void print_table(const struct ranking *ranking, const struct rk_named_request *named, const char *title_feature,
                        const Rankd__V1__RankResponse *response, size_t rows)
{
    int width = 5;
    for (size_t row = 0; row < rows; row++) {
        int wanted = columns(title_of(ranking, response, row));
        width = wanted > width ? wanted : width;
    }
    width = width > MAX_TITLE_COLUMNS ? MAX_TITLE_COLUMNS : width;
    bool has_ids = response->n_candidate_ids > 0, has_titles = has_ids && ranking->titles.count > 0;

    printf("%s%s: the best %zu of %u candidates, by %s version %lld%s%s\n", ranking->num_requests > 1 ? "\n" : "",
           named->id[0] != '\0' ? named->id : "request", rows, named->num_candidates, response->model,
           (long long)response->version, response->value_model[0] != '\0' ? ", value model " : "",
           response->value_model);
    printf("%5s  %8s", "rank", "position");
    if (has_ids)
        printf("  %12.12s", title_feature);
    if (has_titles)
        printf("  %-*s", width, "title");
    if (response->n_values > 0)
        printf("  %12s", "value");
    for (size_t head = 0; head < response->n_heads; head++)
        printf("  %9.9s", response->heads[head]);
    putchar('\n');
    for (size_t row = 0; row < rows; row++) {
        printf("%5zu  %8u", row + 1, response->positions[row]);
        if (has_ids)
            printf("  %12lld", (long long)response->candidate_ids[row]);
        if (has_titles) {
            printf("  ");
            print_cell(title_of(ranking, response, row), width);
        }
        if (response->n_values > 0)
            printf("  %12.6g", response->values[row]);
        for (size_t head = 0; head < response->n_heads; head++)
            printf("  %9.6f", (double)response->probabilities[row * response->n_heads + head]);
        putchar('\n');
    }
}

static json_t *float_rows(const float *values, size_t rows, size_t columns_per_row)
{
    json_t *list = json_array();
    for (size_t row = 0; row < rows; row++) {
        json_t *inner = json_array();
        for (size_t i = 0; i < columns_per_row; i++)
            json_array_append_new(inner, json_real((double)values[row * columns_per_row + i]));
        json_array_append_new(list, inner);
    }
    return list;
}

/* What `--costs` shows, in the order of the stages. */
static const struct {
    const char *name, *key;
    size_t offset;
} stages[] = {
#define STAGE(name, field)                                                                                             \
    {                                                                                                                  \
        name, #field, offsetof(Rankd__V1__Costs, field)                                                                \
    }
    STAGE("receive", receive_us),         STAGE("queue", queue_us),   STAGE("lookup", lookup_us),
    STAGE("interaction", interaction_us), STAGE("towers", towers_us), STAGE("rest", rest_us),
    STAGE("answer", answer_us),           STAGE("total", total_us),
};
#define NUM_STAGES (sizeof stages / sizeof *stages)

static double stage_us(const Rankd__V1__Costs *costs, size_t stage)
{
    return *(const double *)((const char *)costs + stages[stage].offset);
}

/* On standard error, a line for each request. */
static void print_costs(const struct ranking *ranking, const char *id, const Rankd__V1__Costs *costs)
{
    if (ranking->num_requests == 1) {
        fprintf(stderr, "%-20s", "microseconds");
        for (size_t i = 0; i < NUM_STAGES; i++)
            fprintf(stderr, " %11s", stages[i].name);
        fprintf(stderr, "  batches  candidates in them\n");
    }
    fprintf(stderr, "%-20.20s", id[0] != '\0' ? id : "request");
    for (size_t i = 0; i < NUM_STAGES; i++)
        fprintf(stderr, " %11.1f", stage_us(costs, i));
    fprintf(stderr, "  %7u  %18llu\n", costs->batches, (unsigned long long)costs->batch_candidates);
}

static json_t *costs_object(const Rankd__V1__Costs *costs)
{
    json_t *object = json_object();
    for (size_t i = 0; i < NUM_STAGES; i++)
        json_object_set_new(object, stages[i].key, json_real(stage_us(costs, i)));
    json_object_set_new(object, "batches", json_integer(costs->batches));
    json_object_set_new(object, "batch_candidates", json_integer((json_int_t)costs->batch_candidates));
    return object;
}

static enum rk_status print_json(const struct ranking *ranking, const struct rk_named_request *named,
                                 const Rankd__V1__RankResponse *response, size_t rows)
{
    json_t *line = json_object(), *heads = json_array(), *positions = json_array(), *ids = json_array(),
           *titles = json_array(), *values = json_array(), *out_of_range = json_object();
    for (size_t head = 0; head < response->n_heads; head++)
        json_array_append_new(heads, json_string(response->heads[head]));
    for (size_t row = 0; row < rows; row++) {
        if (response->n_positions > 0)
            json_array_append_new(positions, json_integer(response->positions[row]));
        if (response->n_candidate_ids > 0)
            json_array_append_new(ids, json_integer(response->candidate_ids[row]));
        if (ranking->titles.count > 0)
            json_array_append_new(titles, json_string(title_of(ranking, response, row)));
        if (response->n_values > 0)
            json_array_append_new(values, json_real(response->values[row]));
    }
    for (size_t i = 0; i < response->n_out_of_range; i++)
        json_object_set_new(out_of_range, response->out_of_range[i]->feature,
                            json_integer((json_int_t)response->out_of_range[i]->count));
    json_object_set_new(line, "id", json_string(named->id));
    json_object_set_new(line, "model", json_string(response->model));
    json_object_set_new(line, "version", json_integer(response->version));
    json_object_set_new(line, "heads", heads);
    json_object_set_new(line, "positions", positions);
    json_object_set_new(line, "candidate_ids", ids);
    json_object_set_new(line, "titles", titles);
    json_object_set_new(line, "value_model", json_string(response->value_model));
    json_object_set_new(line, "values", values);
    json_object_set_new(line, "logits", float_rows(response->logits, rows, response->n_heads));
    json_object_set_new(line, "probabilities", float_rows(response->probabilities, rows, response->n_heads));
    json_object_set_new(line, "out_of_range", out_of_range);
    if (response->costs != NULL)
        json_object_set_new(line, "costs", costs_object(response->costs));
    int failed = json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
    json_decref(line);
    return failed == 0 ? RK_OK : RK_IO;
}

static enum rk_status rank_one(void *context, uint64_t line, struct rk_named_request *named, struct rk_arena *arena,
                               struct rk_error *error)
{
    (void)line;
    struct ranking *ranking = context;
    const struct rk_ctl_options *options = ranking->options;
    struct rk_rank_message message;
    enum rk_status status = rk_rank_message_build(options, named, arena, &message, error);
    if (status != RK_OK)
        return status;
    struct rk_grpc_reply reply;
    status = rk_grpc_client_call(ranking->client, RK_PATH_RANK, message.bytes, message.length,
                                 rk_ctl_timeout_us(options), &reply, error);
    if (status != RK_OK)
        return status;
    if (reply.status != RK_GRPC_OK)
        return rk_error_set(error, RK_INVALID, "%s: %s", rk_grpc_status_name(reply.status), reply.message);

    ProtobufCMessage *decoded;
    status =
        rk_message_decode(&rankd__v1__rank_response__descriptor, reply.bytes, reply.length, arena, &decoded, error);
    if (status != RK_OK)
        return rk_error_prefix(error, "the server's answer");
    const Rankd__V1__RankResponse *response = (const Rankd__V1__RankResponse *)decoded;
    size_t rows;
    status = check_shape(options, named, response, &rows, error);
    if (status != RK_OK)
        return status;
    ranking->num_requests++;
    if (options->json && print_json(ranking, named, response, rows) != RK_OK)
        return rk_error_set(error, RK_IO, "cannot write to standard output");
    if (!options->json && options->top == 0)
        rk_jsonl_print_scores(stdout, named->id, response->logits, response->probabilities,
                              response->n_values > 0 ? response->values : NULL, (uint32_t)rows,
                              (uint32_t)response->n_heads);
    if (!options->json && options->top > 0)
        print_table(ranking, named, message.title_feature, response, rows);
    if (!options->json && response->costs != NULL)
        print_costs(ranking, named->id, response->costs);
    return ferror(stdout) ? rk_error_set(error, RK_IO, "cannot write to standard output") : RK_OK;
}

enum rk_exit rk_ctl_rank(const struct rk_ctl_options *options)
{
    struct ranking ranking = {.options = options};
    struct rk_error error = {0};
    if (options->titles != NULL && rk_titles_read(options->titles, &ranking.titles, &error) != RK_OK)
        return rk_ctl_fail(&error);
    enum rk_exit result = rk_ctl_connect(options, &ranking.client);
    if (result == RK_EXIT_OK && rk_jsonl_read(options->requests, rank_one, &ranking, &error) != RK_OK)
        result = rk_ctl_fail(&error);
    rk_grpc_client_close(ranking.client);
    rk_titles_deinit(&ranking.titles);
    return result;
}
