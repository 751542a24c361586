/* Streams a draft's tensors into the files of a package through one buffer, so that tables may be larger than memory.
 * The golden requests are scored by the engine over the very files that were written, before the package gets its name.
 * One thread. */
#include "model/pack.h"

#include <stdlib.h>
#include <string.h>

#include "model/golden.h"
#include "model/manifest.h"
#include "model/model_open.h"
#include "model/package.h"

#define CHUNK_BYTES (4u << 20)

struct packing {
    const struct rk_pack_job *job;
    struct rk_package_writer *writer;
    void *chunk; /* [CHUNK_BYTES] */
    uint64_t done, total;
    struct rk_error *error;
};

static enum rk_status report(struct packing *p, const char *what)
{
    if (p->job->progress == NULL || p->job->progress(p->job->progress_context, what, p->done, p->total))
        return RK_OK;
    return rk_error_set(p->error, RK_CANCELLED, "cancelled");
}

/* Elements [first, first + count) of a tensor go to the open file. */
static enum rk_status copy_elements(struct packing *p, const struct rk_draft_tensor *tensor, uint64_t first,
                                    uint64_t count)
{
    const uint64_t element_bytes = rk_dense_element_bytes(tensor->format), most = CHUNK_BYTES / element_bytes;
    while (count > 0) {
        uint64_t now = count < most ? count : most;
        enum rk_status status = p->job->read(p->job->read_context, tensor, first, now, p->chunk, p->error);
        if (status == RK_OK)
            status = rk_package_write(p->writer, p->chunk, now * element_bytes, p->error);
        p->done += now * element_bytes;
        if (status == RK_OK)
            status = report(p, "writing rows and weights");
        if (status != RK_OK)
            return status;
        first += now;
        count -= now;
    }
    return RK_OK;
}

/* Rows [first, first + count), ready-made, go to the open file. */
static enum rk_status copy_rows(struct packing *p, const struct rk_draft_tensor *tensor, uint64_t first, uint64_t count)
{
    const struct rk_table_spec *table = &p->job->draft->tables[tensor->table];
    const uint64_t row_bytes = rk_row_bytes(table->format, table->embedding_dim), most = CHUNK_BYTES / row_bytes;
    while (count > 0) {
        uint64_t now = count < most ? count : most;
        enum rk_status status = p->job->read_rows(p->job->read_context, tensor, first, now, p->chunk, p->error);
        if (status == RK_OK)
            status = rk_package_write(p->writer, p->chunk, now * row_bytes, p->error);
        p->done += now * row_bytes;
        if (status == RK_OK)
            status = report(p, "writing rows and weights");
        if (status != RK_OK)
            return status;
        first += now;
        count -= now;
    }
    return RK_OK;
}

static enum rk_status write_towers(struct packing *p)
{
    static const char zeros[RK_WEIGHTS_ALIGNMENT];
    struct rk_draft *draft = p->job->draft;
    uint64_t end = 0;
    enum rk_status status = rk_package_open_file(p->writer, RK_PACKAGE_WEIGHTS, p->error);
    for (size_t i = 0; status == RK_OK && i < draft->num_tensors; i++) {
        const struct rk_draft_tensor *tensor = &draft->tensors[i];
        if (tensor->place == NULL)
            continue;
        status = rk_package_write(p->writer, zeros, tensor->place->offset - end, p->error);
        if (status == RK_OK)
            status = copy_elements(p, tensor, 0, tensor->rows * tensor->columns);
        end = tensor->place->offset + tensor->rows * tensor->columns * rk_dense_element_bytes(tensor->format);
    }
    if (status != RK_OK)
        return status;
    return rk_package_close_file(p->writer, &draft->spec.weights_bytes, &draft->spec.weights_xxh3, p->error);
}

static enum rk_status write_table(struct packing *p, const struct rk_draft_tensor *tensor)
{
    /* The draft owns its shards; only a finished spec is constant. */
    struct rk_table_spec *table = &p->job->draft->tables[tensor->table];
    struct rk_shard_spec *shards = (struct rk_shard_spec *)table->shards;
    for (uint32_t s = 0; s < table->num_shards; s++) {
        uint64_t bytes;
        enum rk_status status = rk_package_open_file(p->writer, shards[s].file, p->error);
        if (status == RK_OK)
            status = tensor->layout != RK_LAYOUT_NUMBERS
                         ? copy_rows(p, tensor, shards[s].first_row, shards[s].num_rows)
                         : copy_elements(p, tensor, shards[s].first_row * tensor->columns,
                                         shards[s].num_rows * tensor->columns);
        if (status == RK_OK)
            status = rk_package_close_file(p->writer, &bytes, &shards[s].xxh3, p->error);
        if (status != RK_OK)
            return status;
    }
    if (table->kept.file == NULL)
        return RK_OK;
    uint64_t bytes;
    enum rk_status status = rk_package_open_file(p->writer, table->kept.file, p->error);
    if (status == RK_OK)
        status = p->job->write_kept(p->job->read_context, tensor->table, p->writer, p->error);
    return status == RK_OK ? rk_package_close_file(p->writer, &bytes, &table->kept.xxh3, p->error) : status;
}

static enum rk_status write_file(struct packing *p, const char *name, const void *data, size_t bytes,
                                 struct rk_file_ref *ref)
{
    ref->file = name;
    enum rk_status status = rk_package_open_file(p->writer, name, p->error);
    if (status == RK_OK)
        status = rk_package_write(p->writer, data, bytes, p->error);
    if (status == RK_OK)
        status = rk_package_close_file(p->writer, &ref->bytes, &ref->xxh3, p->error);
    return status;
}

static enum rk_status write_golden(struct packing *p, struct rk_manifest *manifest)
{
    struct rk_model *model = NULL;
    char *texts[2] = {NULL, NULL};
    size_t lengths[2] = {0, 0};
    FILE *streams[2] = {open_memstream(&texts[0], &lengths[0]), open_memstream(&texts[1], &lengths[1])};
    enum rk_status status = report(p, "scoring golden requests");
    if (status == RK_OK && (streams[0] == NULL || streams[1] == NULL))
        status = rk_error_set(p->error, RK_NO_MEMORY, "out of memory for golden requests");
    if (status == RK_OK)
        status = rk_model_open_draft(rk_package_dir(p->writer), &p->job->draft->spec, &model, p->error);
    if (status == RK_OK)
        status = rk_golden_create(model, p->job->golden, p->job->num_golden, p->job->golden_scores, streams[0],
                                  streams[1], p->error);
    for (int i = 0; i < 2; i++)
        if (streams[i] != NULL && fclose(streams[i]) != 0 && status == RK_OK)
            status = rk_error_set(p->error, RK_NO_MEMORY, "out of memory for golden requests");
    if (status == RK_OK && (lengths[0] > RK_GOLDEN_MAX_BYTES || lengths[1] > RK_GOLDEN_MAX_BYTES))
        status =
            rk_error_set(p->error, RK_INVALID, "the golden requests take %zu bytes, at most %u are allowed: take fewer",
                         lengths[0] > lengths[1] ? lengths[0] : lengths[1], RK_GOLDEN_MAX_BYTES);
    if (status == RK_OK)
        status = write_file(p, RK_PACKAGE_REQUESTS, texts[0], lengths[0], &manifest->golden_requests);
    if (status == RK_OK)
        status = write_file(p, RK_PACKAGE_SCORES, texts[1], lengths[1], &manifest->golden_scores);
    rk_model_close(model);
    free(texts[0]);
    free(texts[1]);
    return status;
}

static enum rk_status write_manifest(struct packing *p, struct rk_manifest *manifest)
{
    struct rk_file_ref ignored;
    char sidecar[RK_SIDECAR_BYTES + 1];
    manifest->spec = p->job->draft->spec;
    char *text = rk_manifest_print(manifest);
    if (text == NULL)
        return rk_error_set(p->error, RK_NO_MEMORY, "out of memory for the manifest");
    size_t length = strlen(text);
    rk_manifest_sidecar(text, length, sidecar);
    enum rk_status status =
        length <= RK_MANIFEST_MAX_BYTES
            ? write_file(p, RK_PACKAGE_MANIFEST, text, length, &ignored)
            : rk_error_set(p->error, RK_INVALID,
                           "the manifest takes %zu bytes, at most %u are possible: use fewer shards", length,
                           RK_MANIFEST_MAX_BYTES);
    free(text);
    if (status == RK_OK)
        status = write_file(p, RK_PACKAGE_SIDECAR, sidecar, RK_SIDECAR_BYTES, &ignored);
    return status;
}

static uint64_t written_bytes(const struct rk_draft *draft, const struct rk_draft_tensor *tensor)
{
    const struct rk_table_spec *table = &draft->tables[tensor->table];
    return tensor->place != NULL ? tensor->rows * tensor->columns * rk_dense_element_bytes(tensor->format)
                                 : tensor->rows * rk_row_bytes(table->format, table->embedding_dim);
}

enum rk_status rk_pack(const struct rk_pack_job *job, struct rk_error *error)
{
    struct rk_error local = {0};
    struct packing p = {.job = job, .error = &local};
    struct rk_manifest manifest = {0};
    for (size_t i = 0; i < job->draft->num_tensors; i++)
        p.total += written_bytes(job->draft, &job->draft->tensors[i]);
    enum rk_status status = rk_package_begin(job->output, &p.writer, &local);
    if (status != RK_OK)
        goto done;
    p.chunk = aligned_alloc(64, CHUNK_BYTES);
    if (p.chunk == NULL)
        status = rk_error_set(&local, RK_NO_MEMORY, "out of memory for a buffer");
    if (status == RK_OK)
        status = write_towers(&p);
    for (size_t i = 0; status == RK_OK && i < job->draft->num_tensors; i++)
        if (job->draft->tensors[i].place == NULL)
            status = write_table(&p, &job->draft->tensors[i]);
    if (status == RK_OK)
        status = write_golden(&p, &manifest);
    if (status == RK_OK)
        status = write_manifest(&p, &manifest);
    if (status == RK_OK)
        status = report(&p, "publishing");
    if (status == RK_OK) {
        status = rk_package_commit(p.writer, &local);
        p.writer = NULL;
    }
    rk_package_abort(p.writer);
    free(p.chunk);
done:
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}
