/* The rows of a sample model: which rows of each table some requests touch, and files of them in any format. */
#ifndef RANKD_MODEL_SAMPLE_ROWS_H
#define RANKD_MODEL_SAMPLE_ROWS_H

#include <stdio.h>

#include "model/model.h"
#include "model/sample.h"

struct rk_sample_rows;

/* Files go to the directory `dir_fd`, called `folder` in errors; both, and the model, must outlive the rows. */
enum rk_status rk_sample_rows_create(const struct rk_model *model, int dir_fd, const char *folder,
                                     struct rk_sample_rows **rows, struct rk_error *error);
void rk_sample_rows_destroy(struct rk_sample_rows *rows);

/* First, all rows are noted, as often as they come; `held`: by the holdout set. Then they are settled, and only then is
 * anything else called. */
enum rk_status rk_sample_rows_note(struct rk_sample_rows *rows, uint32_t table, const int64_t *ids, size_t count,
                                   bool held, struct rk_error *error);
enum rk_status rk_sample_rows_settle(struct rk_sample_rows *rows, struct rk_error *error);

/* Where a noted row lies in the sample. */
int64_t rk_sample_rows_place(const struct rk_sample_rows *rows, uint32_t table, int64_t id);

/* Those that were noted without `held`, ascending. */
const int64_t *rk_sample_rows_touched(const struct rk_sample_rows *rows, uint32_t table, size_t *count);

/* A table of the sample, stored as chosen: makes its file unless it is there. The spec has one shard and is valid as
 * long as `stored`. */
struct rk_stored_rows {
    struct rk_table_spec table;
    struct rk_shard_spec shard;
    char file[48];
};
enum rk_status rk_sample_rows_store(struct rk_sample_rows *rows, uint32_t table, struct rk_table_choice choice,
                                    struct rk_stored_rows *stored, struct rk_error *error);

/* See rk_sample_row_error. */
enum rk_status rk_sample_rows_error(struct rk_sample_rows *rows, uint32_t table, enum rk_row_format format,
                                    double *mean, struct rk_error *error);

/* A file in the folder, to be written and closed. */
FILE *rk_sample_file_create(int dir_fd, const char *folder, const char *name, struct rk_error *error);
enum rk_status rk_sample_file_close(FILE *file, const char *folder, const char *name, struct rk_error *error);

#endif
