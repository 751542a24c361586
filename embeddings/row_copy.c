/* Copies of a table's files: reading them into the places that were planned, and hashing what lies there.
 *
 *     files     |  shard file 0  |      shard file 1      |
 *     extents   |    piece on shard 0    | piece on shard 1 |
 *
 * Both go through the stored rows in order and meet wherever they like. Files are read rather than mapped: that is
 * faster, and a file that is truncated meanwhile is an error like any other. One thread. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "embeddings/kept.h"
#include "embeddings/table_layout.h"

#define BLOCK ((uint64_t)32 << 20) /* between two reports */

/* Bytes that lie one after the other. */
struct span {
    unsigned char *data;
    uint64_t bytes;
};

/* The longest stretch of file `file` that begins `offset` bytes from its start and lies in one place. */
static struct span find_span(const struct rk_table *table, uint32_t file, uint64_t offset)
{
    const struct rk_table_spec *spec = table->spec;
    if (file == spec->num_shards) {
        const uint64_t bytes = rk_kept_num_blocks(spec->num_embeddings) * sizeof(struct rk_kept_block);
        return (struct span){(unsigned char *)(uintptr_t)table->kept + offset, bytes - offset};
    }
    const uint64_t first = spec->shards[file].first_row, end = first + spec->shards[file].num_rows;
    const uint64_t row = first + offset / table->row_bytes;
    uint32_t e = table->num_extents - 1;
    while (table->first_rows[e] > row)
        e--;
    const uint64_t extent_end = e + 1 < table->num_extents ? table->first_rows[e + 1] : end;
    const uint64_t at = first * table->row_bytes + offset; /* counted from row 0 */
    return (struct span){(unsigned char *)(table->bases[e] + at),
                         (extent_end < end ? extent_end : end) * table->row_bytes - at};
}

static uint64_t file_bytes(const struct rk_table *table, uint32_t file)
{
    return file == table->spec->num_shards ? find_span(table, file, 0).bytes
                                           : table->spec->shards[file].num_rows * table->row_bytes;
}

static enum rk_status read_span(int fd, uint64_t offset, struct span span, struct rk_error *error)
{
    for (uint64_t done = 0; done < span.bytes;) {
        const ssize_t count = pread(fd, span.data + done, span.bytes - done, (off_t)(offset + done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return rk_error_set(error, RK_IO, "failed to read it: %s", strerror(errno));
        if (count == 0)
            return rk_error_set(error, RK_CORRUPT, "it was truncated while it was read; restore it");
        done += (uint64_t)count;
    }
    return RK_OK;
}

static enum rk_status fill_from(struct rk_table *table, uint32_t file, int fd, const struct rk_table_options *options,
                                struct rk_error *error)
{
    const uint64_t bytes = file_bytes(table, file);
    enum rk_status status = RK_OK;
    for (uint64_t offset = 0; status == RK_OK && offset < bytes;) {
        struct span span = find_span(table, file, offset);
        span.bytes = span.bytes < BLOCK ? span.bytes : BLOCK;
        posix_fadvise(fd, (off_t)(offset + span.bytes), (off_t)BLOCK, POSIX_FADV_WILLNEED);
        status = read_span(fd, offset, span, error);
        offset += span.bytes;
        if (status == RK_OK && options->progress != NULL && !options->progress(options->progress_context, span.bytes))
            status = rk_error_set(error, RK_CANCELLED, "copying was cancelled");
    }
    return status;
}

enum rk_status rk_row_copy_fill(struct rk_table *table, int dir_fd, const struct rk_table_options *options,
                                struct rk_error *error)
{
    const struct rk_table_spec *spec = table->spec;
    const uint32_t num_files = spec->num_shards + (table->kept != NULL);
    enum rk_status status = RK_OK;
    for (uint32_t f = 0; status == RK_OK && f < num_files; f++) {
        const char *name = f < spec->num_shards ? spec->shards[f].file : spec->kept.file;
        int fd = -1;
        status = rk_regular_file_open(dir_fd, name, file_bytes(table, f), &fd, error);
        if (status == RK_OK) {
            status = fill_from(table, f, fd, options, error);
            close(fd);
            if (status != RK_OK)
                rk_error_prefix(error, "'%.128s'", name);
        }
        if (status != RK_OK && f < spec->num_shards)
            rk_error_prefix(error, "table '%.128s', shards[%u] (%llu rows of %llu bytes)", spec->name, f,
                            (unsigned long long)spec->shards[f].num_rows, (unsigned long long)table->row_bytes);
        else if (status != RK_OK)
            rk_error_prefix(error, "table '%.128s', kept file '%.128s'", spec->name, name);
    }
    return status;
}

enum rk_status rk_row_copy_hash(const struct rk_table *table, uint32_t file, rk_hash_progress_fn *progress,
                                void *context, uint64_t *hash)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        return RK_NO_MEMORY;
    XXH3_64bits_reset(state);
    const uint64_t bytes = file_bytes(table, file);
    enum rk_status status = RK_OK;
    for (uint64_t offset = 0; status == RK_OK && offset < bytes;) {
        struct span span = find_span(table, file, offset);
        span.bytes = span.bytes < BLOCK ? span.bytes : BLOCK;
        XXH3_64bits_update(state, span.data, span.bytes);
        offset += span.bytes;
        if (progress != NULL && !progress(context, span.bytes))
            status = RK_CANCELLED;
    }
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}
