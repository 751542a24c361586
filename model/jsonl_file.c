/* Files of JSON lines, read one line at a time through a buffer that grows to the longest line. One thread per reader.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/jsonl.h"

struct rk_jsonl_reader {
    FILE *stream;
    bool close;
    char *path, *line;
    size_t capacity;
    uint64_t number;
};

enum rk_status rk_jsonl_open(const char *path, struct rk_jsonl_reader **out, struct rk_error *error)
{
    struct rk_jsonl_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL || (reader->path = strdup(path)) == NULL) {
        free(reader);
        return rk_error_set(error, RK_NO_MEMORY, "%s: out of memory", path);
    }
    if (strcmp(path, "-") == 0) {
        reader->stream = stdin;
    } else {
        reader->close = true;
        reader->stream = fopen(path, "re");
        struct stat stat;
        if (reader->stream != NULL && fstat(fileno(reader->stream), &stat) == 0 && S_ISDIR(stat.st_mode)) {
            fclose(reader->stream);
            reader->stream = NULL;
            errno = EISDIR;
        }
        if (reader->stream == NULL) {
            enum rk_status status = rk_error_set(error, errno == ENOENT ? RK_NOT_FOUND : RK_IO, "failed to open %s: %s",
                                                 path, strerror(errno));
            rk_jsonl_close(reader);
            return status;
        }
    }
    *out = reader;
    return RK_OK;
}

/* Appends one line, newline included, to reader->line. getline() would let a line without an end eat all memory. */
static enum rk_status read_line(struct rk_jsonl_reader *reader, size_t *length, struct rk_error *error)
{
    size_t used = 0;
    for (;;) {
        if (reader->capacity - used < 2) {
            size_t capacity = reader->capacity > 0 ? 2 * reader->capacity : 1u << 16;
            char *line = realloc(reader->line, capacity);
            if (line == NULL)
                return rk_error_set(error, RK_NO_MEMORY, "%s:%" PRIu64 ": the line does not fit into memory",
                                    reader->path, reader->number + 1);
            reader->line = line;
            reader->capacity = capacity;
        }
        int c;
        while (used < reader->capacity && (c = getc_unlocked(reader->stream)) != EOF) {
            reader->line[used++] = (char)c;
            if (c == '\n')
                goto done;
        }
        if (used < reader->capacity)
            break;
        if (used > RK_JSONL_MAX_LINE)
            return rk_error_set(error, RK_INVALID, "%s:%" PRIu64 ": the line is longer than %u bytes", reader->path,
                                reader->number + 1, RK_JSONL_MAX_LINE);
    }
    if (ferror(reader->stream))
        return rk_error_set(error, RK_IO, "failed to read %s: %s", reader->path, strerror(errno));
done:
    *length = used;
    return RK_OK;
}

enum rk_status rk_jsonl_next(struct rk_jsonl_reader *reader, const char **line, size_t *length, uint64_t *number,
                             struct rk_error *error)
{
    for (;;) {
        enum rk_status status = read_line(reader, length, error);
        if (status != RK_OK)
            return status;
        *line = NULL;
        if (*length == 0)
            return RK_OK;
        reader->number++;
        size_t blank = 0;
        while (blank < *length && memchr(" \t\r\n", reader->line[blank], 4) != NULL)
            blank++;
        if (blank < *length)
            break;
    }
    *line = reader->line;
    *number = reader->number;
    return RK_OK;
}

void rk_jsonl_close(struct rk_jsonl_reader *reader)
{
    if (reader == NULL)
        return;
    if (reader->close && reader->stream != NULL)
        fclose(reader->stream);
    free(reader->path);
    free(reader->line);
    free(reader);
}

enum rk_status rk_jsonl_read(const char *path, rk_jsonl_visit_fn *visit, void *context, struct rk_error *error)
{
    struct rk_jsonl_reader *reader = NULL;
    struct rk_arena arena;
    rk_arena_init(&arena, 1u << 20);
    struct rk_error local = {0};
    enum rk_status status = rk_jsonl_open(path, &reader, &local);
    while (status == RK_OK) {
        const char *line;
        size_t length;
        uint64_t number;
        struct rk_named_request request;
        status = rk_jsonl_next(reader, &line, &length, &number, &local);
        if (status != RK_OK || line == NULL)
            break;
        rk_arena_reset(&arena, SIZE_MAX);
        status = rk_jsonl_parse(line, length, &arena, &request, &local);
        if (status == RK_OK)
            status = visit(context, number, &request, &arena, &local);
        if (status != RK_OK)
            rk_error_prefix(&local, "%s:%" PRIu64, path, number);
    }
    rk_jsonl_close(reader);
    rk_arena_deinit(&arena);
    return status == RK_OK ? RK_OK : rk_error_set(error, status, "%s", local.text);
}
