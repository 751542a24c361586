/* The scores of many requests in one place: a trainer's, from a file of expected scores, or a model's own. */
#ifndef RANKD_MODEL_SCORE_LIST_H
#define RANKD_MODEL_SCORE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/jsonl.h"

struct rk_score_list {
    uint32_t num_heads;
    size_t num_requests, num_candidates; /* candidates of all requests together */
    size_t *first;                       /* [num_requests + 1]: candidates before each request */
    const char **ids;                    /* [num_requests] */
    double *logits;                      /* [num_candidates][num_heads] */
    bool *labels;                        /* likewise; they count when `labelled` */
    bool labelled;                       /* every request has labels */
    size_t request_capacity, candidate_capacity;
    struct rk_arena arena; /* of the ids */
};

void rk_score_list_init(struct rk_score_list *list, uint32_t num_heads);
void rk_score_list_deinit(struct rk_score_list *list);

/* One more request; labels: above 0.5 is positive, NULL: none. RK_NO_MEMORY, and RK_CORRUPT when a logit is not finite.
 */
enum rk_status rk_score_list_add(struct rk_score_list *list, const char *id, uint32_t num_candidates,
                                 const double *logits, const double *labels, struct rk_error *error);

/* Adds every line of a file of expected scores. Errors name file and line. */
enum rk_status rk_score_list_read(struct rk_score_list *list, const char *path, struct rk_error *error);

/* RK_INVALID unless both are about the same requests with as many candidates and heads. The names are for the text. */
enum rk_status rk_score_list_match(const struct rk_score_list *list, const char *name,
                                   const struct rk_score_list *other, const char *other_name, struct rk_error *error);

#endif
