/* A sample model: of a model that may be larger than memory only the rows that some requests touch, in a temporary
 * folder, where they can be stored in any format and scored by the engine like the model itself. What it takes of
 * memory and disk is bounded by the requests, whatever the size of the model. One thread at a time. */
#ifndef RANKD_MODEL_SAMPLE_H
#define RANKD_MODEL_SAMPLE_H

#include "model/model.h"
#include "model/plan.h"
#include "model/score_list.h"

/* Two sets of requests: those that decide, and those that only check what was decided. */
enum rk_sample_set { RK_SAMPLE_FIT, RK_SAMPLE_HOLDOUT, RK_SAMPLE_SETS };

struct rk_sample_files {
    const char *requests, *expected; /* expected, with labels or without, may be NULL; so may both for the holdout */
};

/* How a table is stored. A pruned one keeps the rows that the fit set touches; all others read one row more. */
struct rk_table_choice {
    enum rk_row_format format;
    bool pruned;
};

struct rk_sample;

/* Reads both sets, binds them to the model and scores them as it is; makes its folder in the directory `parent`.
 * `towers` says in what formats the towers can be had, too (of a plan only its parts count). The model must outlive the
 * sample. Errors name file and line. */
enum rk_status rk_sample_create(const struct rk_model *model, const struct rk_sample_files files[RK_SAMPLE_SETS],
                                const struct rk_plan *towers, const char *parent, struct rk_sample **sample,
                                struct rk_error *error);
/* Removes the folder; NULL is allowed. */
void rk_sample_destroy(struct rk_sample *sample);

/* The model's own logits, and the expected file's labels if it has any. Without requests when there is no such set. */
const struct rk_score_list *rk_sample_truth(const struct rk_sample *sample, enum rk_sample_set set);

/* The rows of a table that the fit set touches, ascending; *count may be 0. */
const int64_t *rk_sample_touched(const struct rk_sample *sample, uint32_t table, size_t *count);

/* The mean squared difference between the elements of the touched rows and what the format makes of them. */
enum rk_status rk_sample_row_error(struct rk_sample *sample, uint32_t table, enum rk_row_format format, double *mean,
                                   struct rk_error *error);

/* The model's layers in these formats, and the size of the weights file; its tables are the model's. */
const struct rk_model_spec *rk_sample_towers(const struct rk_sample *sample);

/* Scores a set with the tables stored as chosen, choices [num_tables], and the towers as they are or in their new
 * formats. A table's own format leaves its numbers as they are. `scores` is set up here, to be freed with
 * rk_score_list_deinit, whatever the outcome. */
enum rk_status rk_sample_score(struct rk_sample *sample, enum rk_sample_set set, const struct rk_table_choice *choices,
                               bool towers, struct rk_score_list *scores, struct rk_error *error);

#endif
