/* Formulas as people type them. A formula is a sum of products; each product has at most one number of its own and one
 * or more heads, plain, under logit(), or to a power. What kind of formula it is follows from what was seen. One pass,
 * no recursion; any thread. */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/value.h"

#define OPERATORS "+*^()"

struct reader {
    const char *text, *at;
    struct rk_arena *arena;
    struct rk_error *error;
    struct rk_named_term *terms;
    size_t num_terms, capacity, num_products, num_logits;
    float factor;      /* of the product that is being read */
    size_t in_product; /* its heads */
    size_t most_in_product;
    bool has_power; /* somewhere in the formula */
};

static enum rk_status fail(struct reader *r, const char *what)
{
    return rk_error_set(r->error, RK_INVALID,
                        "formula '%.100s', character %zu: %s; write 0.7*play + 0.3*binge, 0.7*logit(play) + "
                        "0.3*logit(binge) or play * binge^0.5",
                        r->text, (size_t)(r->at - r->text) + 1, what);
}

static void skip_blanks(struct reader *r)
{
    while (isspace((unsigned char)*r->at))
        r->at++;
}

static bool take(struct reader *r, char operator)
{
    skip_blanks(r);
    if (*r->at != operator)
        return false;
    r->at++;
    return true;
}

static bool ends_word(char c)
{
    return isspace((unsigned char)c) || strchr(OPERATORS, c) != NULL; /* the text's NUL is found, too */
}

/* The next run of characters without blanks and operators; 0: none. */
static size_t word_bytes(struct reader *r)
{
    skip_blanks(r);
    size_t length = 0;
    while (!ends_word(r->at[length]))
        length++;
    return length;
}

/* Takes a number where one stands and nothing else adjoins it. The + of an exponent is part of it. */
static bool take_number(struct reader *r, float *number)
{
    skip_blanks(r);
    char *end;
    if (*r->at == '\0' || strchr("0123456789.-", *r->at) == NULL)
        return false;
    const float read = strtof(r->at, &end);
    if (end == r->at || !ends_word(*end))
        return false;
    *number = read;
    r->at = end;
    return true;
}

static enum rk_status add_term(struct reader *r, const char *name, size_t length, float weight)
{
    if (r->num_terms == r->capacity) {
        r->capacity = 2 * r->capacity + 8;
        struct rk_named_term *more = rk_arena_array(r->arena, r->capacity, sizeof *more);
        if (more == NULL)
            return rk_error_set(r->error, RK_NO_MEMORY, "out of memory for a formula");
        if (r->num_terms > 0)
            memcpy(more, r->terms, r->num_terms * sizeof *more);
        r->terms = more;
    }
    const char *copy = rk_arena_string(r->arena, name, length);
    if (copy == NULL)
        return rk_error_set(r->error, RK_NO_MEMORY, "out of memory for a formula");
    r->terms[r->num_terms++] = (struct rk_named_term){copy, weight};
    r->in_product++;
    return RK_OK;
}

/* head, head^power or logit(head) */
static enum rk_status read_head(struct reader *r)
{
    const size_t length = word_bytes(r);
    const char *name = r->at;
    float power = 1;
    if (length == 0)
        return fail(r, "a head or a number is missing");
    r->at += length;
    if (length == strlen("logit") && memcmp(name, "logit", length) == 0 && take(r, '(')) {
        const size_t inner = word_bytes(r);
        name = r->at;
        if (inner == 0)
            return fail(r, "the name of a head is missing");
        r->at += inner;
        if (!take(r, ')'))
            return fail(r, "a ) is missing");
        r->num_logits++;
        return add_term(r, name, inner, 1);
    }
    if (take(r, '^')) {
        r->has_power = true;
        if (!take_number(r, &power))
            return fail(r, "a power is a number");
    }
    return add_term(r, name, length, power);
}

/* [number *] head [* head ...] */
static enum rk_status read_product(struct reader *r)
{
    r->factor = 1;
    r->in_product = 0;
    if (take_number(r, &r->factor) && !take(r, '*'))
        return fail(r, "a number stands before * and a head");
    do {
        enum rk_status status = read_head(r);
        if (status != RK_OK)
            return status;
    } while (take(r, '*'));
    r->num_products++;
    if (r->in_product > r->most_in_product)
        r->most_in_product = r->in_product;
    return RK_OK;
}

/* A sum: the product's number is its only head's weight. */
static enum rk_status finish_product(struct reader *r)
{
    const bool powers = r->has_power || r->most_in_product > 1;
    if (powers && r->num_products > 1)
        return fail(r, "a formula is a sum or a product, not both");
    if (powers && r->num_logits > 0)
        return fail(r, "logits are added up, not multiplied");
    if (r->num_logits > 0 && r->num_logits < r->num_terms)
        return fail(r, "either all heads stand in logit() or none");
    if (!powers)
        r->terms[r->num_terms - 1].weight = r->factor;
    return RK_OK;
}

enum rk_status rk_value_parse(const char *text, struct rk_arena *arena, struct rk_named_value *named,
                              struct rk_error *error)
{
    struct reader r = {.text = text, .at = text, .arena = arena, .error = error};
    enum rk_status status;
    do {
        status = read_product(&r);
        if (status == RK_OK)
            status = finish_product(&r);
    } while (status == RK_OK && take(&r, '+'));
    if (status != RK_OK)
        return status;
    skip_blanks(&r);
    if (*r.at != '\0')
        return fail(&r, "something follows that does not belong to it");
    const bool powers = r.has_power || r.most_in_product > 1;
    *named = (struct rk_named_value){.kind = powers             ? RK_VALUE_PRODUCT_OF_POWERS
                                             : r.num_logits > 0 ? RK_VALUE_SUM_OF_LOGITS
                                                                : RK_VALUE_SUM_OF_PROBABILITIES,
                                     .factor = powers ? r.factor : 1,
                                     .terms = r.terms,
                                     .num_terms = r.num_terms};
    return RK_OK;
}

/* As the first head of a product, it would be taken for the product's number. */
static bool reads_as_number(const char *head)
{
    struct reader r = {.text = head, .at = head};
    float number;
    return take_number(&r, &number);
}

const char *rk_value_print(const struct rk_value_model *value, const char *const *heads, char *text, size_t size)
{
    const bool product = value->kind == RK_VALUE_PRODUCT_OF_POWERS, logits = value->kind == RK_VALUE_SUM_OF_LOGITS;
    size_t end = 0;
    text[0] = '\0';
    if (product && (value->factor != 1.0f || reads_as_number(heads[value->terms[0].head])))
        end += (size_t)snprintf(text, size, "%.6g * ", (double)value->factor);
    for (uint32_t i = 0; i < value->num_terms && end < size; i++) {
        const struct rk_value_term *term = &value->terms[i];
        const double weight = (double)term->weight * (product ? 1.0 : (double)value->factor);
        const char *between = i == 0 ? "" : product ? " * " : " + ";
        if (product && weight == 1.0 && value->num_terms > 1)
            end += (size_t)snprintf(text + end, size - end, "%s%s", between, heads[term->head]);
        else if (product)
            end += (size_t)snprintf(text + end, size - end, "%s%s^%.6g", between, heads[term->head], weight);
        else
            end += (size_t)snprintf(text + end, size - end, "%s%.6g*%s%s%s", between, weight, logits ? "logit(" : "",
                                    heads[term->head], logits ? ")" : "");
    }
    return text;
}
