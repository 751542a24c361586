/* Value models: one number for each candidate out of the scores of several heads, which is what a feed ranks by.
 *
 *   sum_of_probabilities   factor * (w1 * p1 + w2 * p2 + ...)
 *   sum_of_logits          factor * (w1 * x1 + w2 * x2 + ...)
 *   product_of_powers      factor * p1^w1 * p2^w2 * ...
 *
 * p: a head's calibrated probability, x: its logit, both as an answer gives them. */
#ifndef RANKD_MODEL_VALUE_H
#define RANKD_MODEL_VALUE_H

#include <stddef.h>
#include <stdint.h>

#include "quant/base/arena.h"
#include "quant/base/status.h"

enum rk_value_kind {
    RK_VALUE_SUM_OF_PROBABILITIES,
    RK_VALUE_SUM_OF_LOGITS,
    RK_VALUE_PRODUCT_OF_POWERS,
    RK_VALUE_KIND_COUNT
};
extern const char *const rk_value_kind_names[RK_VALUE_KIND_COUNT + 1]; /* ends with NULL */

struct rk_value_term {
    uint32_t head;
    float weight;
};

struct rk_value_model {
    const char *name; /* "" when it came with a request */
    enum rk_value_kind kind;
    float factor;
    const struct rk_value_term *terms; /* each head at most once */
    uint32_t num_terms;
};

/* Checks kind, factor (finite, not 0) and terms (at least one, finite weights, no head twice). RK_INVALID with a text
 * that begins with `what`, names the field and the value, and says what would be right. */
enum rk_status rk_value_check(const struct rk_value_model *value, const char *what, const char *const *heads,
                              uint32_t num_heads, struct rk_error *error);

/* The same as people and callers write it: heads by name, nothing checked. */
struct rk_named_term {
    const char *head;
    float weight;
};

struct rk_named_value {
    enum rk_value_kind kind;
    float factor;
    const struct rk_named_term *terms;
    size_t num_terms;
};

/* Finds the heads and checks all of it. The terms are in the arena. RK_INVALID, RK_NO_MEMORY. */
enum rk_status rk_value_bind(const struct rk_named_value *named, const char *what, const char *const *heads,
                             uint32_t num_heads, struct rk_arena *arena, struct rk_value_model *value,
                             struct rk_error *error);

/* values[count] from logits and probabilities [count][num_heads], finite. In float64, each value by one fixed chain of
 * operations, so that it has the same bits on every machine. In a product, a probability below 2^-126 counts as 2^-126.
 * RK_INVALID when a product is past the largest float64. */
enum rk_status rk_value_compute(const struct rk_value_model *value, uint32_t num_heads, const float *logits,
                                const float *probabilities, uint32_t count, double *values, struct rk_error *error);

/* Reads a formula from a line of text into the arena:
 *
 *   0.7*play + 0.3*binge                  sum of probabilities
 *   0.7*logit(play) + 0.3*logit(binge)    sum of logits
 *   2 * play * binge^0.5                  product of powers, after a constant factor
 *
 * Names of heads end where a space or one of + * ^ ( ) begins. RK_INVALID says what stands where it should not. */
enum rk_status rk_value_parse(const char *text, struct rk_arena *arena, struct rk_named_value *named,
                              struct rk_error *error);

/* The formula as rk_value_parse() reads it, cut off at size bytes. Returns `text`. */
const char *rk_value_print(const struct rk_value_model *value, const char *const *heads, char *text, size_t size);

#endif
