/* Which rows, and files of them.
 *
 *   tables[t].rows   [num_rows]  rows of the model, ascending; `held` marks those that only the holdout set touches
 *   the folder       per table and way of storing it a file of num_rows rows, made when first needed
 *
 * A file holds the rows as the model's own engine will read them, encoded by the very functions that pack a table. A
 * table's own format is stored as fp32: decoding gives the numbers that its kernels add up, and encoding them once more
 * might not. One thread at a time. */
#include "model/sample_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK_ROWS = 256,       /* read from the model at a time */
    MOST_DROPPED = 1 << 16, /* dropped rows whose mean stands for all of them */
};

struct touch {
    int64_t row;
    bool held;
};

struct sample_table {
    struct touch *touches; /* while reading: as they come */
    size_t num_touches, capacity;
    int64_t *rows;
    bool *held;
    size_t num_rows;
    int64_t *touched; /* those of rows that are not held: what pruning keeps */
    size_t num_touched;
    float *dropped;                    /* [dim]: what a pruned table reads for every other row; NULL until needed */
    bool made[RK_ROW_FORMAT_COUNT][2]; /* [format][pruned]: the file is there */
};

struct rk_sample_rows {
    const struct rk_model *model;
    const struct rk_model_spec *spec; /* the model's */
    int dir_fd;
    const char *folder;
    struct sample_table *tables; /* [spec->num_tables] */
};

static enum rk_status no_memory(struct rk_error *error)
{
    return rk_error_set(error, RK_NO_MEMORY, "out of memory for the rows of the sample");
}

/* ---- which rows ---- */

enum rk_status rk_sample_rows_note(struct rk_sample_rows *rows, uint32_t t, const int64_t *ids, size_t count, bool held,
                                   struct rk_error *error)
{
    struct sample_table *table = &rows->tables[t];
    if (table->num_touches + count > table->capacity) {
        const size_t capacity = 2 * (table->num_touches + count);
        struct touch *touches = reallocarray(table->touches, capacity, sizeof *touches);
        if (touches == NULL)
            return no_memory(error);
        table->touches = touches;
        table->capacity = capacity;
    }
    for (size_t i = 0; i < count; i++)
        table->touches[table->num_touches++] = (struct touch){ids[i], held};
    return RK_OK;
}

/* By row; of one row, touches of the fit set come first. */
static int by_row(const void *a, const void *b)
{
    const struct touch *x = a, *y = b;
    return x->row != y->row ? (x->row > y->row) - (x->row < y->row) : x->held - y->held;
}

/* From touches to ascending rows. A table that nothing touches keeps its row 0, for a table has at least one. */
static enum rk_status collect_rows(struct sample_table *table, struct rk_error *error)
{
    const size_t most = table->num_touches + 1;
    table->rows = malloc(most * sizeof *table->rows);
    table->held = malloc(most * sizeof *table->held);
    table->touched = malloc(most * sizeof *table->touched);
    if (table->rows == NULL || table->held == NULL || table->touched == NULL)
        return no_memory(error);
    if (table->num_touches > 0)
        qsort(table->touches, table->num_touches, sizeof *table->touches, by_row);
    for (size_t i = 0; i < table->num_touches; i++) {
        const struct touch *touch = &table->touches[i];
        if (i > 0 && touch->row == touch[-1].row)
            continue;
        if (!touch->held)
            table->touched[table->num_touched++] = touch->row;
        table->held[table->num_rows] = touch->held;
        table->rows[table->num_rows++] = touch->row;
    }
    if (table->num_rows == 0) {
        table->held[0] = true;
        table->rows[table->num_rows++] = 0;
    }
    free(table->touches);
    table->touches = NULL;
    return RK_OK;
}

static int compare_rows(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

enum rk_status rk_sample_rows_settle(struct rk_sample_rows *rows, struct rk_error *error)
{
    enum rk_status status = RK_OK;
    for (uint32_t t = 0; status == RK_OK && t < rows->spec->num_tables; t++)
        status = collect_rows(&rows->tables[t], error);
    return status;
}

int64_t rk_sample_rows_place(const struct rk_sample_rows *rows, uint32_t t, int64_t id)
{
    const struct sample_table *table = &rows->tables[t];
    const int64_t *found = bsearch(&id, table->rows, table->num_rows, sizeof *found, compare_rows);
    return found - table->rows;
}

const int64_t *rk_sample_rows_touched(const struct rk_sample_rows *rows, uint32_t t, size_t *count)
{
    *count = rows->tables[t].num_touched;
    return rows->tables[t].touched;
}

/* ---- what is in them ---- */

/* values[count][dim] = rows of the model, decoded. */
static void read_rows(const struct rk_sample_rows *rows, uint32_t t, const int64_t *ids, size_t count, float *values)
{
    uint32_t offsets[CHUNK_ROWS + 1];
    for (uint32_t i = 0; i <= count; i++)
        offsets[i] = i;
    const struct rk_bag_list bags = {.ids = ids, .offsets = offsets, .num_bags = count};
    rk_table_pool(rk_model_table(rows->model, t), rk_kernels_get(), &bags, values, rows->spec->tables[t].embedding_dim);
}

/* What ids read that pruning drops: the table's default row where it has one, else the mean of the dropped rows, or of
 * evenly spaced ones where there are very many. */
static enum rk_status find_dropped_row(struct rk_sample_rows *rows, uint32_t t, struct rk_error *error)
{
    struct sample_table *table = &rows->tables[t];
    const struct rk_table_spec *spec = &rows->spec->tables[t];
    const size_t dim = spec->embedding_dim;
    const uint64_t step = 1 + (spec->num_embeddings - 1) / MOST_DROPPED;
    float *values = malloc(dim * sizeof *values);
    double *sums = calloc(dim, sizeof *sums);
    table->dropped = calloc(dim, sizeof *table->dropped);
    enum rk_status status = RK_OK;
    if (values == NULL || sums == NULL || table->dropped == NULL) {
        status = no_memory(error);
        goto done;
    }
    if (spec->out_of_range == RK_OUT_OF_RANGE_DEFAULT) {
        const int64_t row = (int64_t)spec->default_row;
        read_rows(rows, t, &row, 1, table->dropped);
        goto done;
    }
    uint64_t count = 0;
    for (uint64_t r = 0; r < spec->num_embeddings; r += step) {
        const int64_t row = (int64_t)r;
        if (bsearch(&row, table->touched, table->num_touched, sizeof row, compare_rows) != NULL)
            continue;
        read_rows(rows, t, &row, 1, values);
        for (size_t d = 0; d < dim; d++)
            sums[d] += (double)values[d];
        count++;
    }
    for (size_t d = 0; d < dim && count > 0; d++)
        table->dropped[d] = (float)(sums[d] / (double)count);
done:
    free(values);
    free(sums);
    return status;
}

/* ---- files of rows ---- */

static void name_file(char name[48], uint32_t table, struct rk_table_choice choice)
{
    snprintf(name, 48, "table-%u.%s%s", table, rk_row_format_name(choice.format), choice.pruned ? ".pruned" : "");
}

/* A table's own format means that its numbers stay. */
static enum rk_row_format stored_format(const struct rk_sample_rows *rows, uint32_t t, enum rk_row_format format)
{
    return format == rows->spec->tables[t].format ? RK_ROWS_F32 : format;
}

FILE *rk_sample_file_create(int dir_fd, const char *folder, const char *name, struct rk_error *error)
{
    const int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL) {
        rk_error_set(error, RK_IO, "failed to create %s/%s: %s", folder, name, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    return file;
}

enum rk_status rk_sample_file_close(FILE *file, const char *folder, const char *name, struct rk_error *error)
{
    const bool failed = ferror(file) != 0;
    if (fclose(file) == 0 && !failed)
        return RK_OK;
    return rk_error_set(error, RK_IO, "failed to write %s/%s: %s; TMPDIR can name a place with more room", folder, name,
                        strerror(errno));
}

/* What visits rows chunk by chunk: values [count][dim] and what becomes of them, encoded [count][row bytes]. */
typedef void visit_rows_fn(void *context, const float *values, const unsigned char *encoded, size_t count);

/* Encodes the rows of a table as chosen, dropped ones replaced. */
static enum rk_status encode_rows(struct rk_sample_rows *rows, uint32_t t, struct rk_table_choice choice,
                                  visit_rows_fn *visit, void *context, struct rk_error *error)
{
    struct sample_table *table = &rows->tables[t];
    const size_t dim = rows->spec->tables[t].embedding_dim;
    const enum rk_row_format format = stored_format(rows, t, choice.format);
    const uint64_t row_bytes = rk_row_bytes(format, (uint32_t)dim);
    if (choice.pruned && table->dropped == NULL) {
        enum rk_status status = find_dropped_row(rows, t, error);
        if (status != RK_OK)
            return status;
    }
    float *values = calloc(CHUNK_ROWS, dim * sizeof *values);
    unsigned char *encoded = calloc(CHUNK_ROWS, row_bytes);
    if (values == NULL || encoded == NULL) {
        free(values);
        free(encoded);
        return no_memory(error);
    }
    for (size_t first = 0; first < table->num_rows; first += CHUNK_ROWS) {
        const size_t left = table->num_rows - first, count = left < CHUNK_ROWS ? left : CHUNK_ROWS;
        read_rows(rows, t, table->rows + first, count, values);
        for (size_t i = 0; i < count; i++) {
            if (choice.pruned && table->held[first + i])
                memcpy(values + i * dim, table->dropped, dim * sizeof *values);
            rk_row_traits(format)->encode(values + i * dim, dim, encoded + i * row_bytes);
        }
        visit(context, values, encoded, count);
    }
    free(values);
    free(encoded);
    return RK_OK;
}

struct writing {
    FILE *file;
    uint64_t row_bytes;
};

static void write_rows(void *context, const float *values, const unsigned char *encoded, size_t count)
{
    const struct writing *writing = context;
    (void)values;
    fwrite(encoded, writing->row_bytes, count, writing->file);
}

static enum rk_status make_file(struct rk_sample_rows *rows, uint32_t t, struct rk_table_choice choice,
                                const char *name, struct rk_error *error)
{
    struct writing writing = {
        .file = rk_sample_file_create(rows->dir_fd, rows->folder, name, error),
        .row_bytes = rk_row_bytes(stored_format(rows, t, choice.format), rows->spec->tables[t].embedding_dim),
    };
    if (writing.file == NULL)
        return RK_IO;
    enum rk_status status = encode_rows(rows, t, choice, write_rows, &writing, error);
    const enum rk_status closed =
        rk_sample_file_close(writing.file, rows->folder, name, status == RK_OK ? error : NULL);
    return status == RK_OK ? closed : status;
}

enum rk_status rk_sample_rows_store(struct rk_sample_rows *rows, uint32_t t, struct rk_table_choice choice,
                                    struct rk_stored_rows *stored, struct rk_error *error)
{
    struct sample_table *table = &rows->tables[t];
    bool *made = &table->made[choice.format][choice.pruned];
    name_file(stored->file, t, choice);
    stored->shard = (struct rk_shard_spec){.file = stored->file, .num_rows = table->num_rows};
    stored->table = (struct rk_table_spec){
        .name = rows->spec->tables[t].name,
        .num_embeddings = table->num_rows,
        .embedding_dim = rows->spec->tables[t].embedding_dim,
        .format = stored_format(rows, t, choice.format),
        .shards = &stored->shard,
        .num_shards = 1,
    };
    enum rk_status status = *made ? RK_OK : make_file(rows, t, choice, stored->file, error);
    *made = status == RK_OK;
    return status;
}

struct erring {
    const struct rk_row_traits *traits;
    size_t dim;
    uint64_t row_bytes;
    float *decoded; /* [dim] */
    double sum;
};

static void add_errors(void *context, const float *values, const unsigned char *encoded, size_t count)
{
    struct erring *erring = context;
    for (size_t i = 0; i < count; i++) {
        erring->traits->decode(encoded + i * erring->row_bytes, erring->dim, erring->decoded);
        for (size_t d = 0; d < erring->dim; d++) {
            const double difference = (double)erring->decoded[d] - (double)values[i * erring->dim + d];
            erring->sum += difference * difference;
        }
    }
}

enum rk_status rk_sample_rows_error(struct rk_sample_rows *rows, uint32_t t, enum rk_row_format format, double *mean,
                                    struct rk_error *error)
{
    const size_t dim = rows->spec->tables[t].embedding_dim;
    const enum rk_row_format stored = stored_format(rows, t, format);
    struct erring erring = {
        .traits = rk_row_traits(stored),
        .dim = dim,
        .row_bytes = rk_row_bytes(stored, (uint32_t)dim),
        .decoded = calloc(dim, sizeof(float)),
    };
    if (erring.decoded == NULL)
        return no_memory(error);
    enum rk_status status =
        encode_rows(rows, t, (struct rk_table_choice){.format = format}, add_errors, &erring, error);
    *mean = erring.sum / ((double)rows->tables[t].num_rows * (double)dim);
    free(erring.decoded);
    return status;
}

/* ---- life ---- */

enum rk_status rk_sample_rows_create(const struct rk_model *model, int dir_fd, const char *folder,
                                     struct rk_sample_rows **out, struct rk_error *error)
{
    struct rk_sample_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return no_memory(error);
    rows->model = model;
    rows->spec = rk_model_spec_of(model);
    rows->dir_fd = dir_fd;
    rows->folder = folder;
    rows->tables = calloc((size_t)rows->spec->num_tables + 1, sizeof *rows->tables);
    if (rows->tables == NULL) {
        free(rows);
        return no_memory(error);
    }
    *out = rows;
    return RK_OK;
}

void rk_sample_rows_destroy(struct rk_sample_rows *rows)
{
    if (rows == NULL)
        return;
    for (uint32_t t = 0; t < rows->spec->num_tables; t++) {
        struct sample_table *table = &rows->tables[t];
        free(table->touches);
        free(table->rows);
        free(table->held);
        free(table->touched);
        free(table->dropped);
    }
    free(rows->tables);
    free(rows);
}
