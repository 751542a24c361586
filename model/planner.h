/* Choosing a row format per table: the fewest bytes under a limit on the AUC loss, or the least loss under a limit on
 * the bytes. Everything is measured on a sample model (model/sample.h). */
#ifndef RANKD_MODEL_PLANNER_H
#define RANKD_MODEL_PLANNER_H

#include "model/metrics.h"
#include "model/sample.h"

struct rk_planner_options {
    const enum rk_row_format *formats; /* to choose from, beside what a table is stored in already */
    size_t num_formats;
    bool prune; /* drop rows that the fit set does not touch, wherever that saves bytes */
    bool limit_bytes;
    uint64_t max_bytes;  /* of rows and weights, when limit_bytes */
    double max_auc_loss; /* of every head, on the fit set with one standard error to spare, otherwise */
    /* Counts measurements; `total` may grow. Returning false stops: RK_CANCELLED. May be NULL. */
    bool (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
    void *progress_context;
};

/* Errors of logits are relative: the mean squared difference to the model's own over the variance of these, averaged
 * over the heads. AUC losses are those of the head that loses most; NaN without labels of both classes. */
struct rk_planned_table {
    struct rk_table_choice choice;
    uint64_t bytes_before, bytes_after;
    double logit_error, auc_loss; /* when only this table changes */
};

struct rk_planned {
    bool met; /* false: max_bytes is less than the smallest, or the loss exceeds the limit with nothing quantised; what
                 follows is then the closest there is */
    uint32_t num_tables, num_heads;
    struct rk_planned_table *tables;
    uint64_t bytes_before, bytes_after;
    double towers_logit_error, towers_auc_loss;                             /* when only the towers change */
    double predicted_logit_error, predicted_auc_loss;                       /* sums over tables and towers */
    double logit_error[RK_SAMPLE_SETS], auc_loss[RK_SAMPLE_SETS];           /* measured together; NaN: no such set */
    struct rk_head_metrics *before[RK_SAMPLE_SETS], *after[RK_SAMPLE_SETS]; /* [num_heads] */
    uint64_t num_measurements;
};

/* `model` is the one that the sample was made of. RK_INVALID when the loss is to be limited and there are no labels of
 * both classes. */
enum rk_status rk_planner_run(const struct rk_model *model, struct rk_sample *sample,
                              const struct rk_planner_options *options, struct rk_planned **planned,
                              struct rk_error *error);
void rk_planned_destroy(struct rk_planned *planned);

#endif
