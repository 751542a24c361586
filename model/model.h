/* A loaded model package: immutable, shared by all threads, closed when the last user lets go. */
#ifndef RANKD_MODEL_MODEL_H
#define RANKD_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "embeddings/placement.h"
#include "model/spec.h"
#include "model/towers.h"
#include "quant/base/status.h"

struct rk_golden_place;
struct rk_model;

/* Where the rows are read from, and on how many shards they lie. */
struct rk_row_options {
    enum rk_row_memory memory;
    bool lock;                         /* keep them in memory (rk_memory_lock) */
    struct rk_placement_limits limits; /* of copies; mapped rows are not placed */
};

struct rk_model_open_options {
    bool skip_checksums;
    bool skip_golden;
    bool skip_towers; /* layers are not packed: the model can be described, not run */
    bool read_once; /* pages are given back behind the checksums: for a model that nobody is going to serve from here */
    const struct rk_row_options *rows; /* NULL: mapped, not locked */
    /* Long work reports itself: `what` is static text ("verifying checksums"), done and total in bytes. May be NULL. */
    void (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
    void *progress_context;
};

/* Opens the package directory `path`: manifest, mapping or copying, checksums of what was mapped or copied, golden
 * requests, in this order. The text of an error names the file, the field and the fix. options NULL: check everything,
 * silently. */
enum rk_status rk_model_open(const char *path, const struct rk_model_open_options *options, struct rk_model **model,
                             struct rk_error *error);
void rk_model_close(struct rk_model *model);

/* Replays the golden requests of an opened package on a backend (model/golden.h). Errors as at open. */
enum rk_status rk_model_replay(const struct rk_model *model, const struct rk_golden_place *place,
                               struct rk_error *error);

const struct rk_model_spec *rk_model_spec_of(const struct rk_model *model);
const struct rk_table *rk_model_table(const struct rk_model *model, uint32_t table);
/* The weights file's first byte; tensors are at their offsets. */
const void *rk_model_weights(const struct rk_model *model);
/* The packed layers, for engines. */
const struct rk_towers *rk_model_towers(const struct rk_model *model);
uint64_t rk_model_bytes(const struct rk_model *model); /* rows and weights */

/* Its rows on shards; NULL: they are mapped. */
struct rk_model_shards;
const struct rk_model_shards *rk_model_shards_of(const struct rk_model *model);

/* True once what is served was found truncated or changed under us: no score of this model can be trusted any more. */
bool rk_model_damaged(const struct rk_model *model);

/* Hashes everything again that is served, mapped files through the page cache and copies where they lie, and marks the
 * model damaged where a checksum no longer matches (the error says which file). Files that were copied may change as
 * they like: whoever loads them next checks them. `progress` as in rk_mapped_file_hash: sleep in it to bound the rate,
 * return false to stop (RK_CANCELLED). */
enum rk_status rk_model_scrub(struct rk_model *model, rk_hash_progress_fn *progress, void *context,
                              struct rk_error *error);

/* Decodes every row of every table: RK_CORRUPT with table, row and element where a number is not finite. `progress` is
 * given the bytes read since its last call, and returns false to stop (RK_CANCELLED). */
enum rk_status rk_model_check_rows(const struct rk_model *model, rk_hash_progress_fn *progress, void *context,
                                   struct rk_error *error);

#endif
