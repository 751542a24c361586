/* From a draft to a package: towers, rows, golden requests, manifest. What importer and synthesiser have in common. */
#ifndef RANKD_MODEL_PACK_H
#define RANKD_MODEL_PACK_H

#include "model/draft.h"
#include "model/jsonl.h"
#include "model/package.h"

/* Reports long work; `what` is static text, done and total are bytes. Returning false stops it: RK_CANCELLED, and
 * nothing is left. */
typedef bool rk_pack_progress_fn(void *context, const char *what, uint64_t done, uint64_t total);

/* elements[count] = elements [first, first + count) of the tensor in its format, all finite. */
typedef enum rk_status rk_pack_read_fn(void *context, const struct rk_draft_tensor *tensor, uint64_t first,
                                       uint64_t count, void *elements, struct rk_error *error);

/* rows[count] = rows [first, first + count) in the table's format, of a tensor that has them ready-made. */
typedef enum rk_status rk_pack_read_rows_fn(void *context, const struct rk_draft_tensor *tensor, uint64_t first,
                                            uint64_t count, void *rows, struct rk_error *error);

/* Writes which rows a pruned table keeps (struct rk_kept_spec) into the file that is open. */
typedef enum rk_status rk_pack_kept_fn(void *context, uint32_t table, struct rk_package_writer *writer,
                                       struct rk_error *error);

struct rk_pack_job {
    const char *output;
    struct rk_draft *draft; /* checksums are filled in */
    rk_pack_read_fn *read;
    rk_pack_read_rows_fn *read_rows; /* may be NULL when the draft has no ready-made rows */
    rk_pack_kept_fn *write_kept;     /* may be NULL when no table is pruned */
    void *read_context;
    rk_pack_progress_fn *progress; /* may be NULL */
    void *progress_context;
    struct rk_named_request *golden; /* at least one; binding changes them */
    size_t num_golden;
    const struct rk_named_scores *golden_scores; /* [num_golden] that must be met, or NULL */
};

/* Writes the package; `output` appears complete or not at all. */
enum rk_status rk_pack(const struct rk_pack_job *job, struct rk_error *error);

#endif
