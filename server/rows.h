/* From rows, as general-purpose servers take them, to a RankRequest.
 *
 * There, a batch is n rows of all features, and a user who is scored with n items stands in each of them:
 *
 *   dense     float32 [n][dense inputs], the context's first
 *   lengths   [features][n]: how many ids each bag has, feature after feature in the model's order
 *   indices   int64: the ids, in the order of their bags
 *   weights   float32, one per id: for the weighted features; those of other features' ids are not read
 *
 * which is what TorchRec's KeyedJaggedTensor holds. rankd takes the user once. So of the context's features and dense
 * inputs the first row counts, and it is an error when another row has others: several users are several requests. A
 * caller who need not repeat them gives the context apart, as one row: then the above holds the candidates' features
 * alone.
 *
 * Arrays are taken over as they lie, in the request's arena; lengths are checked here, all else where every request is
 * (rk_request_bind). */
#ifndef RANKD_SERVER_ROWS_H
#define RANKD_SERVER_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "model/spec.h"
#include "proto/rankd.pb-c.h"

struct rk_rows {
    const struct rk_model_spec *spec;
    struct rk_arena *arena;
    Rankd__V1__RankRequest *request; /* its context and candidates are filled in */
    uint32_t num_rows;
    bool context_apart; /* the context has one row of its own, not one in each */
};

/* Bags of some features, one after the other. */
struct rk_row_bags {
    const uint32_t *lengths;
    uint64_t num_lengths;
    int64_t *ids;
    uint64_t num_ids;
    const float *weights;
    uint64_t num_weights; /* 0: none */
};

/* Which features bags are of. */
struct rk_row_choice {
    bool context, candidates;    /* of which sides */
    bool weighted, not_weighted; /* of which kinds */
};

/* Starts on a request of num_rows candidates. RK_NO_MEMORY. */
enum rk_status rk_rows_begin(struct rk_rows *rows, const struct rk_model_spec *spec, struct rk_arena *arena,
                             Rankd__V1__RankRequest *request, uint32_t num_rows, bool context_apart,
                             struct rk_error *error);

uint32_t rk_rows_count_features(const struct rk_model_spec *spec, const struct rk_row_choice *choice);

/* Adds the bags of the chosen features. `lengths` and `ids` say what the caller calls these arrays. RK_INVALID: the
 * wrong number of lengths or ids, or a context that is not the same in all rows. */
enum rk_status rk_rows_add_bags(struct rk_rows *rows, const struct rk_row_choice *choice,
                                const struct rk_row_bags *bags, const char *lengths, const char *ids,
                                struct rk_error *error);

/* Adds dense inputs: of all, row by row, or with the context apart of the candidates. RK_INVALID likewise. */
enum rk_status rk_rows_add_dense(struct rk_rows *rows, float *values, uint64_t count, const char *what,
                                 struct rk_error *error);

/* Lengths of other types: RK_INVALID where one is negative or past 32 bits. */
enum rk_status rk_rows_lengths32(const int32_t *values, uint64_t count, const char *what, const uint32_t **lengths,
                                 struct rk_error *error);
enum rk_status rk_rows_lengths64(const int64_t *values, uint64_t count, const char *what, struct rk_arena *arena,
                                 const uint32_t **lengths, struct rk_error *error);

/* Ids of 32 bits. NULL: out of memory. */
int64_t *rk_rows_widen(const int32_t *values, uint64_t count, struct rk_arena *arena);

#endif
