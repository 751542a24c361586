/* The sample model.
 *
 * Requests are parsed and bound once, against the whole model; then each id becomes its row's place among the rows of
 * its table that any request touches, so that the bound requests fit the sample and nothing else. The folder holds the
 * towers' weights and the files of rows (model/sample_rows.h). */
#include "model/sample.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/engine.h"
#include "model/model_open.h"
#include "model/package.h"
#include "model/quantize_towers.h"
#include "model/sample_rows.h"

#define NEW_WEIGHTS "new.weights"

enum { BATCH = 256 };

struct sample_request {
    const char *id;
    struct rk_request bound;
};

struct rk_sample {
    const struct rk_model *model;
    const struct rk_model_spec *spec; /* the model's */
    char folder[256];
    int dir_fd;
    struct rk_sample_rows *rows;
    struct sample_request *requests[RK_SAMPLE_SETS];
    size_t num_requests[RK_SAMPLE_SETS], capacity[RK_SAMPLE_SETS];
    struct rk_arena arena;       /* of the requests and of the layers in `towers` */
    struct rk_model_spec towers; /* the model's, with its layers in new formats */
    struct rk_score_list truth[RK_SAMPLE_SETS];
};

static enum rk_status no_memory(struct rk_error *error)
{
    return rk_error_set(error, RK_NO_MEMORY, "out of memory for the sample of requests");
}

/* ---- reading requests ---- */

/* How many ids a feature of a request has; they begin at ids[offsets[0]]. */
static size_t count_ids(const struct rk_sample *sample, const struct rk_request *request, uint32_t feature)
{
    const uint32_t bags = sample->spec->features[feature].side == RK_SIDE_CONTEXT ? 1 : request->num_candidates;
    return request->bags[feature].offsets[bags] - request->bags[feature].offsets[0];
}

static enum rk_status note_rows(struct rk_sample *sample, const struct rk_request *request, bool held,
                                struct rk_error *error)
{
    enum rk_status status = RK_OK;
    for (uint32_t f = 0; status == RK_OK && f < sample->spec->num_features; f++) {
        const struct rk_bags *bags = &request->bags[f];
        status = rk_sample_rows_note(sample->rows, sample->spec->features[f].table, bags->ids + bags->offsets[0],
                                     count_ids(sample, request, f), held, error);
    }
    return status;
}

/* Ids of the model become places in the sample. */
static void renumber(struct rk_sample *sample, const struct rk_request *request)
{
    for (uint32_t f = 0; f < sample->spec->num_features; f++) {
        const struct rk_bags *bags = &request->bags[f];
        int64_t *ids = (int64_t *)bags->ids + bags->offsets[0]; /* in the sample's arena */
        for (size_t i = 0; i < count_ids(sample, request, f); i++)
            ids[i] = rk_sample_rows_place(sample->rows, sample->spec->features[f].table, ids[i]);
    }
}

static enum rk_status add_request(struct rk_sample *sample, enum rk_sample_set set, const char *line, size_t length,
                                  struct rk_error *error)
{
    struct rk_named_request named;
    struct rk_request bound;
    enum rk_status status = rk_jsonl_parse(line, length, &sample->arena, &named, error);
    if (status == RK_OK)
        status = rk_request_bind(sample->spec, &RK_REQUEST_LIMITS_DEFAULT, &named, &sample->arena, &bound, error);
    if (status != RK_OK)
        return status;
    if (sample->num_requests[set] == sample->capacity[set]) {
        const size_t capacity = 2 * sample->capacity[set] + 64;
        struct sample_request *requests = reallocarray(sample->requests[set], capacity, sizeof *requests);
        if (requests == NULL)
            return no_memory(error);
        sample->requests[set] = requests;
        sample->capacity[set] = capacity;
    }
    sample->requests[set][sample->num_requests[set]++] = (struct sample_request){named.id, bound};
    return note_rows(sample, &bound, set == RK_SAMPLE_HOLDOUT, error);
}

static enum rk_status read_requests(struct rk_sample *sample, enum rk_sample_set set, const char *path,
                                    struct rk_error *error)
{
    struct rk_error local = {0};
    struct rk_jsonl_reader *reader;
    const char *line;
    size_t length;
    uint64_t number;
    enum rk_status status = rk_jsonl_open(path, &reader, error);
    if (status != RK_OK)
        return status;
    while ((status = rk_jsonl_next(reader, &line, &length, &number, &local)) == RK_OK && line != NULL) {
        status = add_request(sample, set, line, length, &local);
        if (status != RK_OK) {
            rk_error_prefix(&local, "%s:%" PRIu64, path, number);
            break;
        }
    }
    rk_jsonl_close(reader);
    if (status == RK_OK && sample->num_requests[set] == 0)
        status = rk_error_set(&local, RK_INVALID, "%s holds no requests", path);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}

/* ---- scoring ---- */

static enum rk_status score_requests(const struct rk_sample *sample, enum rk_sample_set set,
                                     const struct rk_model *model, struct rk_score_list *scores, struct rk_error *error)
{
    struct rk_engine *engine = NULL;
    float *logits = NULL;
    double *wide = NULL;
    size_t most = 0;
    for (size_t r = 0; r < sample->num_requests[set]; r++)
        if (sample->requests[set][r].bound.num_candidates > most)
            most = sample->requests[set][r].bound.num_candidates;
    enum rk_status status = rk_engine_create(model, BATCH, &engine, error);
    if (status != RK_OK)
        goto done;
    logits = calloc(most * scores->num_heads + 1, sizeof *logits);
    wide = calloc(most * scores->num_heads + 1, sizeof *wide);
    if (logits == NULL || wide == NULL)
        status = no_memory(error);
    for (size_t r = 0; status == RK_OK && r < sample->num_requests[set]; r++) {
        const struct sample_request *request = &sample->requests[set][r];
        status = rk_engine_score(engine, &request->bound, logits);
        if (status != RK_OK) {
            rk_error_set(error, status, "the engine failed: %s", rk_status_name(status));
            break;
        }
        for (size_t i = 0; i < (size_t)request->bound.num_candidates * scores->num_heads; i++)
            wide[i] = (double)logits[i];
        status = rk_score_list_add(scores, request->id, request->bound.num_candidates, wide, NULL, error);
    }
done:
    free(logits);
    free(wide);
    rk_engine_destroy(engine);
    return status;
}

enum rk_status rk_sample_score(struct rk_sample *sample, enum rk_sample_set set, const struct rk_table_choice *choices,
                               bool towers, struct rk_score_list *scores, struct rk_error *error)
{
    const uint32_t num_tables = sample->spec->num_tables;
    struct rk_stored_rows *stored = calloc((size_t)num_tables + 1, sizeof *stored);
    struct rk_table_spec *tables = calloc((size_t)num_tables + 1, sizeof *tables);
    struct rk_model_spec spec = towers ? sample->towers : *sample->spec;
    struct rk_model *model = NULL;
    enum rk_status status = RK_OK;
    rk_score_list_init(scores, spec.num_heads);
    if (stored == NULL || tables == NULL)
        status = no_memory(error);
    for (uint32_t t = 0; status == RK_OK && t < num_tables; t++) {
        status = rk_sample_rows_store(sample->rows, t, choices[t], &stored[t], error);
        tables[t] = stored[t].table;
    }
    spec.tables = tables;
    spec.weights_file = towers ? NEW_WEIGHTS : RK_PACKAGE_WEIGHTS;
    if (status == RK_OK)
        status = rk_model_open_draft(sample->dir_fd, &spec, &model, error);
    if (status == RK_OK)
        status = score_requests(sample, set, model, scores, error);
    rk_model_close(model);
    free(tables);
    free(stored);
    return status;
}

enum rk_status rk_sample_row_error(struct rk_sample *sample, uint32_t table, enum rk_row_format format, double *mean,
                                   struct rk_error *error)
{
    return rk_sample_rows_error(sample->rows, table, format, mean, error);
}

/* ---- life ---- */

static enum rk_status make_folder(struct rk_sample *sample, const char *parent, struct rk_error *error)
{
    const int length = snprintf(sample->folder, sizeof sample->folder, "%s/rankpack-XXXXXX", parent);
    if (length >= (int)sizeof sample->folder || mkdtemp(sample->folder) == NULL) {
        sample->folder[0] = '\0';
        return rk_error_set(error, RK_IO, "failed to make a temporary folder in %s: %s", parent, strerror(errno));
    }
    sample->dir_fd = open(sample->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (sample->dir_fd < 0)
        return rk_error_set(error, RK_IO, "failed to open %s: %s", sample->folder, strerror(errno));
    return RK_OK;
}

static enum rk_status write_weights(const struct rk_sample *sample, const char *name, const void *weights,
                                    uint64_t bytes, struct rk_error *error)
{
    FILE *file = rk_sample_file_create(sample->dir_fd, sample->folder, name, error);
    if (file == NULL)
        return RK_IO;
    fwrite(weights, 1, bytes, file);
    return rk_sample_file_close(file, sample->folder, name, error);
}

/* The towers as they are, and in their new formats. */
static enum rk_status make_towers(struct rk_sample *sample, const struct rk_plan *plan, struct rk_error *error)
{
    unsigned char *image = NULL;
    sample->towers = *sample->spec;
    enum rk_status status =
        write_weights(sample, RK_PACKAGE_WEIGHTS, rk_model_weights(sample->model), sample->spec->weights_bytes, error);
    if (status == RK_OK)
        status = rk_quantize_layers(plan, NULL, &sample->arena, &sample->towers, error);
    if (status == RK_OK)
        status = rk_quantize_weights(sample->model, &sample->towers, &image, error);
    if (status == RK_OK)
        status = write_weights(sample, NEW_WEIGHTS, image, sample->towers.weights_bytes, error);
    free(image);
    return status;
}

/* The model's own scores, with the labels of the file. */
static enum rk_status find_truth(struct rk_sample *sample, enum rk_sample_set set, const struct rk_sample_files *files,
                                 struct rk_error *error)
{
    struct rk_score_list *truth = &sample->truth[set], expected;
    struct rk_table_choice *own = calloc((size_t)sample->spec->num_tables + 1, sizeof *own);
    if (own == NULL)
        return no_memory(error);
    for (uint32_t t = 0; t < sample->spec->num_tables; t++)
        own[t].format = sample->spec->tables[t].format;
    rk_score_list_deinit(truth);
    enum rk_status status = rk_sample_score(sample, set, own, false, truth, error);
    free(own);
    truth->labelled = false;
    if (status != RK_OK || files->expected == NULL)
        return status;
    rk_score_list_init(&expected, sample->spec->num_heads);
    status = rk_score_list_read(&expected, files->expected, error);
    if (status == RK_OK)
        status = rk_score_list_match(truth, files->requests, &expected, files->expected, error);
    if (status == RK_OK) {
        truth->labelled = expected.labelled;
        memcpy(truth->labels, expected.labels, truth->num_candidates * truth->num_heads * sizeof *truth->labels);
    }
    rk_score_list_deinit(&expected);
    return status;
}

enum rk_status rk_sample_create(const struct rk_model *model, const struct rk_sample_files files[RK_SAMPLE_SETS],
                                const struct rk_plan *towers, const char *parent, struct rk_sample **out,
                                struct rk_error *error)
{
    struct rk_sample *sample = calloc(1, sizeof *sample);
    if (sample == NULL)
        return no_memory(error);
    sample->model = model;
    sample->spec = rk_model_spec_of(model);
    sample->dir_fd = -1;
    rk_arena_init(&sample->arena, 1u << 20);
    for (int set = 0; set < RK_SAMPLE_SETS; set++)
        rk_score_list_init(&sample->truth[set], sample->spec->num_heads);
    enum rk_status status = make_folder(sample, parent, error);
    if (status == RK_OK)
        status = make_towers(sample, towers, error);
    if (status == RK_OK)
        status = rk_sample_rows_create(model, sample->dir_fd, sample->folder, &sample->rows, error);
    for (int set = 0; status == RK_OK && set < RK_SAMPLE_SETS; set++)
        if (files[set].requests != NULL)
            status = read_requests(sample, set, files[set].requests, error);
    if (status == RK_OK)
        status = rk_sample_rows_settle(sample->rows, error);
    for (int set = 0; status == RK_OK && set < RK_SAMPLE_SETS; set++)
        for (size_t r = 0; r < sample->num_requests[set]; r++)
            renumber(sample, &sample->requests[set][r].bound);
    for (int set = 0; status == RK_OK && set < RK_SAMPLE_SETS; set++)
        if (files[set].requests != NULL)
            status = find_truth(sample, set, &files[set], error);
    if (status == RK_OK)
        *out = sample;
    else
        rk_sample_destroy(sample);
    return status;
}

static void remove_folder(struct rk_sample *sample)
{
    DIR *directory = sample->dir_fd >= 0 ? fdopendir(sample->dir_fd) : NULL;
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        unlinkat(sample->dir_fd, entry->d_name, 0); /* fails for "." and ".." */
    if (directory != NULL)
        closedir(directory); /* and dir_fd */
    else if (sample->dir_fd >= 0)
        close(sample->dir_fd);
    if (sample->folder[0] != '\0')
        rmdir(sample->folder);
}

void rk_sample_destroy(struct rk_sample *sample)
{
    if (sample == NULL)
        return;
    remove_folder(sample);
    rk_sample_rows_destroy(sample->rows);
    for (int set = 0; set < RK_SAMPLE_SETS; set++) {
        free(sample->requests[set]);
        rk_score_list_deinit(&sample->truth[set]);
    }
    rk_arena_deinit(&sample->arena);
    free(sample);
}

const struct rk_score_list *rk_sample_truth(const struct rk_sample *sample, enum rk_sample_set set)
{
    return &sample->truth[set];
}

const int64_t *rk_sample_touched(const struct rk_sample *sample, uint32_t table, size_t *count)
{
    return rk_sample_rows_touched(sample->rows, table, count);
}

const struct rk_model_spec *rk_sample_towers(const struct rk_sample *sample)
{
    return &sample->towers;
}
