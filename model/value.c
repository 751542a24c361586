/* Computing value models. Everything is float64 arithmetic without fused operations. Logarithm and exponential are
 * spelled out below, because those of the C library differ in their last bits between machines. Pure; any thread. */
#include "model/value.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "model/nearest.h"

const char *const rk_value_kind_names[RK_VALUE_KIND_COUNT + 1] = {
    [RK_VALUE_SUM_OF_PROBABILITIES] = "sum_of_probabilities",
    [RK_VALUE_SUM_OF_LOGITS] = "sum_of_logits",
    [RK_VALUE_PRODUCT_OF_POWERS] = "product_of_powers",
};

/* ---- checks ---- */

enum rk_status rk_value_check(const struct rk_value_model *value, const char *what, const char *const *heads,
                              uint32_t num_heads, struct rk_error *error)
{
    if ((unsigned)value->kind >= RK_VALUE_KIND_COUNT)
        return rk_error_set(error, RK_INVALID, "%s.kind is %d, none of %s, %s, %s", what, (int)value->kind,
                            rk_value_kind_names[0], rk_value_kind_names[1], rk_value_kind_names[2]);
    if (!isfinite(value->factor) || value->factor == 0.0f)
        return rk_error_set(error, RK_INVALID, "%s.factor is %g; it must be finite and not 0", what,
                            (double)value->factor);
    if (value->num_terms == 0)
        return rk_error_set(error, RK_INVALID, "%s.terms is empty; a value needs at least one head", what);
    for (uint32_t i = 0; i < value->num_terms; i++) {
        const struct rk_value_term *term = &value->terms[i];
        if (term->head >= num_heads)
            return rk_error_set(error, RK_INVALID, "%s.terms[%u].head is head %u of %u", what, i, term->head,
                                num_heads);
        if (!isfinite(term->weight))
            return rk_error_set(error, RK_INVALID, "%s.terms[%u].weight is %g; weights must be finite", what, i,
                                (double)term->weight);
        for (uint32_t j = 0; j < i; j++)
            if (value->terms[j].head == term->head)
                return rk_error_set(error, RK_INVALID,
                                    "%s.terms[%u].head is '%s', as is that of terms[%u]; give each head once", what, i,
                                    heads[term->head], j);
    }
    return RK_OK;
}

/* A name from outside, for an error text: control characters become '?'. */
static const char *printable(const char *name, char text[static 68])
{
    size_t i = 0;
    for (; name[i] != '\0' && i < 64; i++)
        text[i] = (unsigned char)name[i] >= 0x20 && name[i] != 0x7f ? name[i] : '?';
    strcpy(text + i, name[i] != '\0' ? "..." : "");
    return text;
}

enum rk_status rk_value_bind(const struct rk_named_value *named, const char *what, const char *const *heads,
                             uint32_t num_heads, struct rk_arena *arena, struct rk_value_model *value,
                             struct rk_error *error)
{
    if (named->num_terms > num_heads)
        return rk_error_set(error, RK_INVALID, "%s.terms has %zu terms for the model's %u heads; give each head once",
                            what, named->num_terms, num_heads);
    struct rk_value_term *terms = rk_arena_array(arena, named->num_terms, sizeof *terms);
    if (terms == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for %s", what);
    for (uint32_t i = 0; i < named->num_terms; i++) {
        const char *name = named->terms[i].head;
        uint32_t head = 0;
        while (head < num_heads && strcmp(heads[head], name) != 0)
            head++;
        if (head == num_heads) {
            char text[68], hint[160];
            return rk_error_set(error, RK_INVALID, "%s.terms[%u].head is '%s', not one of the model's %u heads%s", what,
                                i, printable(name, text), num_heads,
                                rk_did_you_mean(name, heads, num_heads, hint, sizeof hint));
        }
        terms[i] = (struct rk_value_term){head, named->terms[i].weight};
    }
    *value = (struct rk_value_model){.name = "",
                                     .kind = named->kind,
                                     .factor = named->factor,
                                     .terms = terms,
                                     .num_terms = (uint32_t)named->num_terms};
    return rk_value_check(value, what, heads, num_heads, error);
}

/* ---- arithmetic ---- */

#define LN2_HIGH 0x1.62e42feep-1 /* 32 bits: a multiple of it by an exponent is exact */
#define LN2_LOW  0x1.a39ef35793c76p-33
#define LOG2_E   0x1.71547652b82fep0
#define ROUNDING 0x1.8p52 /* a small number plus this has no fraction */

/* c0 + c1 x + c2 x^2 + ... */
static double polynomial(const double *coefficients, int count, double x)
{
    double y = coefficients[count - 1];
    for (int i = count - 2; i >= 0; i--)
        y = y * x + coefficients[i];
    return y;
}

/* ln p = e ln 2 + ln m with m in [sqrt(1/2), sqrt(2)), and ln m = 2 (s + s^3 / 3 + s^5 / 5 + ...) with s = (m - 1) /
 * (m + 1), |s| < 0.172; what is left out is below 2^-62. */
static double log_of(float p)
{
    static const double odd[] = {1,        1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11,
                                 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23};
    const uint32_t least = 0x00800000, root_half = 0x3f3504f3; /* 2^-126, sqrt(1/2) */
    uint32_t bits;
    float m;
    memcpy(&bits, &p, sizeof bits);
    bits = bits < least ? least : bits;
    const int32_t exponent = (int32_t)(bits - root_half) >> 23;
    bits -= (uint32_t)exponent << 23;
    memcpy(&m, &bits, sizeof m);
    const double s = ((double)m - 1.0) / ((double)m + 1.0), e = (double)exponent;
    return e * LN2_HIGH + (2.0 * s * polynomial(odd, 12, s * s) + e * LN2_LOW);
}

static double power_of_two(int64_t exponent) /* a normal number */
{
    const uint64_t bits = (uint64_t)(1023 + exponent) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* exp(x) = 2^n exp(r) with |r| <= ln 2 / 2, and exp(r) by its series; what is left out is below 2^-57. 2^n goes in by
 * halves, and what does not fit becomes 0 or infinity. */
static double exp_of(double x)
{
    static const double inverse_factorials[] = {
        1,          1,           1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    const double within = x < -1000.0 ? -1000.0 : x > 1000.0 ? 1000.0 : x;
    const double n = within * LOG2_E + ROUNDING - ROUNDING, r = within - n * LN2_HIGH - n * LN2_LOW;
    const int64_t half = (int64_t)n / 2;
    return polynomial(inverse_factorials, 14, r) * power_of_two(half) * power_of_two((int64_t)n - half);
}

/* Adds one head's weighted score to every candidate's value; scores: of the first candidate, num_heads apart. */
static void add_score(double *values, const float *scores, uint32_t count, uint32_t num_heads, float weight)
{
    for (uint32_t c = 0; c < count; c++)
        values[c] += (double)weight * (double)scores[(size_t)c * num_heads]; /* the product is exact */
}

static void add_log(double *values, const float *scores, uint32_t count, uint32_t num_heads, float weight)
{
    for (uint32_t c = 0; c < count; c++)
        values[c] += (double)weight * log_of(scores[(size_t)c * num_heads]);
}

enum rk_status rk_value_compute(const struct rk_value_model *value, uint32_t num_heads, const float *logits,
                                const float *probabilities, uint32_t count, double *values, struct rk_error *error)
{
    static const struct {
        void (*add)(double *values, const float *scores, uint32_t count, uint32_t num_heads, float weight);
        bool logits, product;
    } kinds[] = {
        [RK_VALUE_SUM_OF_PROBABILITIES] = {add_score, false, false},
        [RK_VALUE_SUM_OF_LOGITS] = {add_score, true, false},
        [RK_VALUE_PRODUCT_OF_POWERS] = {add_log, false, true},
    };
    const float *scores = kinds[value->kind].logits ? logits : probabilities;
    memset(values, 0, count * sizeof *values);
    for (uint32_t i = 0; i < value->num_terms; i++)
        kinds[value->kind].add(values, scores + value->terms[i].head, count, num_heads, value->terms[i].weight);
    for (uint32_t c = 0; kinds[value->kind].product && c < count; c++)
        values[c] = exp_of(values[c]);
    for (uint32_t c = 0; c < count; c++) {
        values[c] *= (double)value->factor;
        if (!isfinite(values[c]))
            return rk_error_set(error, RK_INVALID,
                                "the value of candidate %u is %g: the value model's exponents are too large for its "
                                "probabilities",
                                c, values[c]);
    }
    return RK_OK;
}
