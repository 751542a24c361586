/* A loaded model: its spec in an arena, its tables mapped or copied, its layers packed. Opening goes from the outside
 * in: the sidecar vouches for the manifest, the manifest for every other file, the golden requests for what they
 * compute together. Immutable once open (but for damage marks, which any thread may set and read). */
#include "model/model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "embeddings/mapped_file.h"
#include "model/golden.h"
#include "model/model_open.h"
#include "model/model_shards.h"
#include "model/package.h"

struct rk_model {
    struct rk_arena arena; /* of the manifest; empty for a draft */
    struct rk_manifest manifest;
    const struct rk_model_spec *spec;
    struct rk_mapped_file *weights;
    struct rk_model_shards shards; /* of copied rows; zeros: rows are mapped */
    struct rk_table **tables;      /* [spec->num_tables] */
    struct rk_towers *towers;      /* packed from the weights; NULL when they were not asked for */
    uint64_t bytes;
    struct rk_mapped_file *golden_requests, *golden_scores; /* NULL for a draft */
    struct rk_golden_result golden;
};

/* Check everything, in silence. */
static const struct rk_model_open_options defaults = {0};

/* A file that the manifest vouches for. */
struct checked_file {
    struct rk_mapped_file *file; /* NULL: what was copied from number `number` of the table's files */
    struct rk_table *table;
    uint32_t number;
    const char *name;
    uint64_t xxh3;
};

/* Progress over several files, from the bytes of each. */
struct hashing {
    const struct rk_model_open_options *options;
    uint64_t done, total;
    const struct rk_mapped_file *file; /* the current one; NULL: a copy */
    uint64_t file_done;
};

static bool report_hashing(void *context, uint64_t bytes)
{
    struct hashing *hashing = context;
    hashing->done += bytes;
    if (hashing->options->read_once && hashing->file != NULL)
        rk_mapped_file_forget(hashing->file, hashing->file_done, bytes);
    hashing->file_done += bytes;
    if (hashing->options->progress != NULL)
        hashing->options->progress(hashing->options->progress_context, "verifying checksums", hashing->done,
                                   hashing->total);
    return true;
}

static enum rk_status check_file(const struct checked_file *file, rk_hash_progress_fn *progress, void *context,
                                 struct rk_error *error)
{
    uint64_t hash;
    enum rk_status status = file->file != NULL ? rk_mapped_file_hash(file->file, progress, context, &hash)
                                               : rk_table_hash(file->table, file->number, progress, context, &hash);
    if (status == RK_CANCELLED)
        return rk_error_set(error, status, "verifying %s was cancelled", file->name);
    if (status != RK_OK || (file->file != NULL && rk_mapped_file_damaged(file->file)))
        return rk_error_set(error, RK_CORRUPT,
                            "%s was truncated or became unreadable while it was read; restore the package", file->name);
    if (hash != file->xxh3)
        return rk_error_set(error, RK_CORRUPT,
                            "%s: xxh3 is %016" PRIx64 ", " RK_PACKAGE_MANIFEST " says %016" PRIx64
                            ": the file is damaged; restore or import the package again",
                            file->name, hash, file->xxh3);
    return RK_OK;
}

/* Fills files[1 + all shards and lists of kept rows]; returns their number. */
static size_t list_files(const struct rk_model *model, struct checked_file *files)
{
    size_t count = 0;
    files[count++] = (struct checked_file){.file = model->weights,
                                           .name = model->spec->weights_file,
                                           .xxh3 = model->spec->weights_xxh3};
    for (uint32_t t = 0; t < model->spec->num_tables; t++) {
        const struct rk_table_spec *spec = &model->spec->tables[t];
        struct rk_table *table = model->tables[t];
        for (uint32_t s = 0; s < spec->num_shards; s++)
            files[count++] = (struct checked_file){.file = rk_table_file(table, s),
                                                   .table = table,
                                                   .number = s,
                                                   .name = spec->shards[s].file,
                                                   .xxh3 = spec->shards[s].xxh3};
        if (spec->kept.file != NULL)
            files[count++] = (struct checked_file){.file = rk_table_kept_file(table),
                                                   .table = table,
                                                   .number = spec->num_shards,
                                                   .name = spec->kept.file,
                                                   .xxh3 = spec->kept.xxh3};
    }
    return count;
}

static struct checked_file *new_file_list(const struct rk_model *model, size_t *count, struct rk_error *error)
{
    size_t most = 1;
    for (uint32_t t = 0; t < model->spec->num_tables; t++)
        most += model->spec->tables[t].num_shards + 1;
    struct checked_file *files = calloc(most, sizeof *files);
    if (files == NULL)
        rk_error_set(error, RK_NO_MEMORY, "out of memory for a list of %zu files", most);
    else
        *count = list_files(model, files);
    return files;
}

static enum rk_status check_files(const struct rk_model *model, const struct rk_model_open_options *options,
                                  struct rk_error *error)
{
    size_t count;
    struct checked_file *files = new_file_list(model, &count, error);
    if (files == NULL)
        return RK_NO_MEMORY;
    struct hashing hashing = {.options = options, .total = model->bytes};
    enum rk_status status = RK_OK;
    for (size_t i = 0; status == RK_OK && i < count; i++) {
        hashing.file = files[i].file;
        hashing.file_done = 0;
        status = check_file(&files[i], report_hashing, &hashing, error);
    }
    free(files);
    return status;
}

/* The first element of a tensor that is not finite, or for scales not a finite number from 0 up, or for int8 not within
 * -127..127; the number of elements if there is none. */
static uint64_t first_bad(const struct rk_tensor_use *use, const void *elements)
{
    const uint64_t count = (uint64_t)use->tensor->rows * use->tensor->columns;
    const float *floats = elements;
    const uint16_t *halves = elements;
    const int8_t *bytes = elements;
    uint64_t i = 0;
    if (use->format == RK_DENSE_F32)
        while (i < count && isfinite(floats[i]) && (use->part != RK_TENSOR_SCALE || floats[i] >= 0.0f))
            i++;
    else if (use->format == RK_DENSE_BF16)
        while (i < count && (halves[i] & 0x7f80) != 0x7f80)
            i++;
    else
        while (i < count && bytes[i] != INT8_MIN)
            i++;
    return i;
}

/* No computation with these weights can give a score when one of them is not a number. */
static enum rk_status check_finite(const struct rk_model *model, struct rk_error *error)
{
    struct rk_tensor_use uses[RK_MAX_TENSOR_USES];
    const size_t num_uses = rk_model_spec_tensors(model->spec, uses);
    const unsigned char *weights = rk_mapped_file_data(model->weights);
    for (size_t i = 0; i < num_uses; i++) {
        const struct rk_tensor_use *use = &uses[i];
        const void *elements = weights + use->tensor->offset;
        const uint64_t bad = first_bad(use, elements);
        if (bad == (uint64_t)use->tensor->rows * use->tensor->columns)
            continue;
        const float value = use->format == RK_DENSE_BF16   ? rk_bf16_to_f32(((const uint16_t *)elements)[bad])
                            : use->format == RK_DENSE_INT8 ? (float)INT8_MIN
                                                           : ((const float *)elements)[bad];
        const char *rule = use->format == RK_DENSE_INT8   ? "an int8 weight is within -127..127"
                           : use->part == RK_TENSOR_SCALE ? "every scale must be finite and not negative"
                                                          : "every weight must be finite";
        char name[RK_TENSOR_NAME_BYTES];
        return rk_error_set(error, RK_CORRUPT, "%s: %s: the %s at byte %" PRIu64 " is %g; %s",
                            model->spec->weights_file, rk_tensor_use_name(use, name),
                            use->part == RK_TENSOR_SCALE ? "scale" : "weight",
                            use->tensor->offset + bad * rk_dense_element_bytes(use->format), (double)value, rule);
    }
    return RK_OK;
}

/* Progress over several tables, from the bytes of each. */
struct copying {
    const struct rk_model_open_options *options;
    uint64_t done, total;
};

static bool report_copying(void *context, uint64_t bytes)
{
    struct copying *copying = context;
    copying->done += bytes;
    if (copying->options->progress != NULL)
        copying->options->progress(copying->options->progress_context, "copying rows", copying->done, copying->total);
    return true;
}

static enum rk_status open_table(struct rk_model *model, uint32_t t, int dir_fd, struct copying *copying,
                                 struct rk_error *error)
{
    const struct rk_table_spec *spec = &model->spec->tables[t];
    const struct rk_model_shards *shards = &model->shards;
    if (shards->shards == NULL)
        return rk_table_open(spec, dir_fd, NULL, &model->tables[t], error);
    struct rk_table_places places = {.shards = shards->shards};
    size_t one;
    places.pieces = rk_placement_pieces(&shards->placement, t, &places.num_pieces);
    if (spec->kept.file != NULL)
        places.kept = rk_placement_pieces(&shards->placement, rk_model_kept_item(model->spec, t), &one);
    const struct rk_table_options options = {.memory = RK_ROWS_HUGE_PAGES,
                                             .progress = report_copying,
                                             .progress_context = copying,
                                             .places = &places};
    return rk_table_open(spec, dir_fd, &options, &model->tables[t], error);
}

/* Maps the weights of model->spec, maps or copies its tables. */
static enum rk_status read_files(struct rk_model *model, int dir_fd, const struct rk_model_open_options *options,
                                 struct rk_error *error)
{
    const struct rk_model_spec *spec = model->spec;
    model->tables = calloc((size_t)spec->num_tables + 1, sizeof(struct rk_table *));
    if (model->tables == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %u tables", spec->num_tables);
    struct copying copying = {.options = options};
    for (uint32_t t = 0; t < spec->num_tables; t++)
        copying.total += rk_table_spec_bytes(&spec->tables[t]);
    model->bytes = spec->weights_bytes + copying.total;
    enum rk_status status =
        rk_mapped_file_open(dir_fd, spec->weights_file, spec->weights_bytes, &model->weights, error);
    if (status == RK_OK && options->rows != NULL && options->rows->memory != RK_ROWS_MAPPED)
        status = rk_model_shards_init(&model->shards, spec, &options->rows->limits, error);
    for (uint32_t t = 0; status == RK_OK && t < spec->num_tables; t++)
        status = open_table(model, t, dir_fd, &copying, error);
    for (uint32_t s = 0; status == RK_OK && s < model->shards.placement.num_shards; s++)
        rk_shard_seal(model->shards.shards[s]);
    return status;
}

/* After the checksums, which bring mapped files into memory and report how far they are. */
static enum rk_status lock_rows(const struct rk_model *model, struct rk_error *error)
{
    enum rk_status status = RK_OK;
    for (uint32_t s = 0; status == RK_OK && s < model->shards.placement.num_shards; s++)
        status = rk_shard_lock(model->shards.shards[s], error);
    for (uint32_t t = 0; status == RK_OK && t < model->spec->num_tables; t++)
        status = rk_table_lock(model->tables[t], error);
    return status;
}

static enum rk_status read_manifest(struct rk_model *model, int dir_fd, struct rk_error *error)
{
    struct rk_mapped_file *manifest = NULL, *sidecar = NULL;
    char expected[RK_SIDECAR_BYTES + 1];
    enum rk_status status = rk_mapped_file_open(dir_fd, RK_PACKAGE_MANIFEST, UINT64_MAX, &manifest, error);
    if (status == RK_OK)
        status = rk_mapped_file_open(dir_fd, RK_PACKAGE_SIDECAR, RK_SIDECAR_BYTES, &sidecar, error);
    if (status != RK_OK)
        goto done;
    const char *text = rk_mapped_file_data(manifest);
    size_t length = rk_mapped_file_bytes(manifest);
    if (length > RK_MANIFEST_MAX_BYTES) {
        status =
            rk_error_set(error, RK_CORRUPT, RK_PACKAGE_MANIFEST ": has %zu bytes, more than a manifest can have (%u)",
                         length, RK_MANIFEST_MAX_BYTES);
        goto done;
    }
    rk_manifest_sidecar(text, length, expected);
    if (memcmp(expected, rk_mapped_file_data(sidecar), RK_SIDECAR_BYTES) != 0) {
        status = rk_error_set(error, RK_CORRUPT,
                              RK_PACKAGE_MANIFEST ": its checksum is %.16s, which is not what " RK_PACKAGE_SIDECAR
                                                  " says: one of them is damaged; restore or import the package again",
                              expected);
        goto done;
    }
    status = rk_manifest_parse(text, length, &model->arena, &model->manifest, error);
    model->spec = &model->manifest.spec;
    if (status == RK_OK && (rk_mapped_file_damaged(manifest) || rk_mapped_file_damaged(sidecar)))
        status = rk_error_set(error, RK_CORRUPT, RK_PACKAGE_MANIFEST ": was truncated while it was read");
done:
    rk_mapped_file_close(manifest);
    rk_mapped_file_close(sidecar);
    return status;
}

static enum rk_status open_golden(struct rk_model *model, int dir_fd, const struct rk_model_open_options *options,
                                  struct rk_error *error)
{
    const struct rk_file_ref *refs[2] = {&model->manifest.golden_requests, &model->manifest.golden_scores};
    struct rk_mapped_file **files[2] = {&model->golden_requests, &model->golden_scores};
    enum rk_status status = RK_OK;
    for (int i = 0; status == RK_OK && i < 2; i++) {
        status = rk_mapped_file_open(dir_fd, refs[i]->file, refs[i]->bytes, files[i], error);
        const struct checked_file file = {.file = *files[i], .name = refs[i]->file, .xxh3 = refs[i]->xxh3};
        if (status == RK_OK && !options->skip_checksums)
            status = check_file(&file, NULL, NULL, error);
    }
    return status;
}

static enum rk_status replay(const struct rk_model *model, const struct rk_golden_place *place,
                             struct rk_golden_result *result, struct rk_error *error)
{
    struct rk_error local = {0};
    const struct rk_mapped_file *requests = model->golden_requests, *scores = model->golden_scores;
    enum rk_status status =
        rk_golden_replay(model, place, rk_mapped_file_data(requests), rk_mapped_file_bytes(requests),
                         rk_mapped_file_data(scores), rk_mapped_file_bytes(scores), &result->largest_error,
                         &result->num_requests, &local);
    if (status == RK_OK && (rk_mapped_file_damaged(requests) || rk_mapped_file_damaged(scores)))
        status = rk_error_set(&local, RK_CORRUPT, "the file was truncated while it was read");
    if (status != RK_OK)
        rk_error_set(error, status, "%s: %s", model->manifest.golden_requests.file, local.text);
    return status;
}

enum rk_status rk_model_replay(const struct rk_model *model, const struct rk_golden_place *place,
                               struct rk_error *error)
{
    struct rk_golden_result result;
    return replay(model, place, &result, error);
}

enum rk_status rk_model_open(const char *path, const struct rk_model_open_options *options, struct rk_model **out,
                             struct rk_error *error)
{
    struct rk_error local = {0};
    if (options == NULL)
        options = &defaults;
    enum rk_status status;
    struct rk_model *model = calloc(1, sizeof *model);
    int dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (model == NULL) {
        status = rk_error_set(&local, RK_NO_MEMORY, "out of memory");
        goto fail;
    }
    rk_arena_init(&model->arena, 1u << 16);
    if (dir_fd < 0) {
        status = rk_error_set(&local,
                              errno == ENOENT    ? RK_NOT_FOUND
                              : errno == ENOTDIR ? RK_INVALID
                                                 : RK_IO,
                              "%s%s", strerror(errno), errno == ENOTDIR ? "; a model package is a directory" : "");
        goto fail;
    }
    status = read_manifest(model, dir_fd, &local);
    if (status == RK_OK)
        status = read_files(model, dir_fd, options, &local);
    if (status == RK_OK && !options->skip_checksums)
        status = check_files(model, options, &local);
    if (status == RK_OK && options->rows != NULL && options->rows->lock)
        status = lock_rows(model, &local);
    if (status == RK_OK && !options->skip_checksums)
        status = check_finite(model, &local);
    if (status == RK_OK && !options->skip_towers)
        status = rk_towers_create(model->spec, rk_mapped_file_data(model->weights), &model->towers, &local);
    if (status == RK_OK)
        status = open_golden(model, dir_fd, options, &local);
    if (status == RK_OK && !options->skip_golden) {
        if (options->progress != NULL)
            options->progress(options->progress_context, "replaying golden requests", 0, 0);
        status = replay(model, NULL, &model->golden, &local);
    }
    if (status == RK_OK && rk_model_damaged(model))
        status = rk_error_set(&local, RK_CORRUPT, "a file was truncated while it was read");
    if (status != RK_OK)
        goto fail;
    close(dir_fd);
    *out = model;
    return RK_OK;
fail:
    if (dir_fd >= 0)
        close(dir_fd);
    rk_model_close(model);
    return rk_error_set(error, status, "failed to open model %s: %s", path, local.text);
}

enum rk_status rk_model_open_draft(int dir_fd, const struct rk_model_spec *spec, struct rk_model **out,
                                   struct rk_error *error)
{
    struct rk_model *model = calloc(1, sizeof *model);
    if (model == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory");
    rk_arena_init(&model->arena, 1u << 16);
    model->spec = spec;
    enum rk_status status = read_files(model, dir_fd, &defaults, error);
    if (status == RK_OK)
        status = rk_towers_create(spec, rk_mapped_file_data(model->weights), &model->towers, error);
    if (status != RK_OK) {
        rk_model_close(model);
        return status;
    }
    *out = model;
    return RK_OK;
}

void rk_model_close(struct rk_model *model)
{
    if (model == NULL)
        return;
    for (uint32_t t = 0; model->tables != NULL && t < model->spec->num_tables; t++)
        rk_table_close(model->tables[t]);
    free(model->tables);
    rk_model_shards_deinit(&model->shards);
    rk_towers_destroy(model->towers);
    rk_mapped_file_close(model->weights);
    rk_mapped_file_close(model->golden_requests);
    rk_mapped_file_close(model->golden_scores);
    rk_arena_deinit(&model->arena);
    free(model);
}

const struct rk_manifest *rk_model_manifest(const struct rk_model *model)
{
    return &model->manifest;
}

const struct rk_model_spec *rk_model_spec_of(const struct rk_model *model)
{
    return model->spec;
}

const struct rk_table *rk_model_table(const struct rk_model *model, uint32_t table)
{
    return model->tables[table];
}

const void *rk_model_weights(const struct rk_model *model)
{
    return rk_mapped_file_data(model->weights);
}

const struct rk_towers *rk_model_towers(const struct rk_model *model)
{
    return model->towers;
}

uint64_t rk_model_bytes(const struct rk_model *model)
{
    return model->bytes;
}

const struct rk_model_shards *rk_model_shards_of(const struct rk_model *model)
{
    return model->shards.shards != NULL ? &model->shards : NULL;
}

const struct rk_golden_result *rk_model_golden(const struct rk_model *model)
{
    return &model->golden;
}

bool rk_model_damaged(const struct rk_model *model)
{
    if (rk_mapped_file_damaged(model->weights))
        return true;
    for (uint32_t t = 0; t < model->spec->num_tables; t++)
        if (rk_table_damaged(model->tables[t]))
            return true;
    return false;
}

enum rk_status rk_model_scrub(struct rk_model *model, rk_hash_progress_fn *progress, void *context,
                              struct rk_error *error)
{
    size_t count;
    struct checked_file *files = new_file_list(model, &count, error);
    if (files == NULL)
        return RK_NO_MEMORY;
    enum rk_status status = RK_OK, first = RK_OK;
    for (size_t i = 0; status != RK_CANCELLED && i < count; i++) {
        struct rk_error local = {0};
        status = check_file(&files[i], progress, context, &local);
        if (status == RK_CORRUPT && files[i].file == NULL) {
            rk_table_mark_damaged(files[i].table, files[i].number);
            rk_error_set(error, status, "%s: what was copied from it has changed in memory, which may be faulty",
                         files[i].name);
        } else if (status == RK_CORRUPT) {
            rk_mapped_file_mark_damaged(files[i].file);
        }
        if (status != RK_OK)
            rk_error_set(error, status, "%s", local.text);
        if (first == RK_OK)
            first = status;
    }
    free(files);
    return first;
}
