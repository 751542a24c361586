/* Value models against the formulas written out with the C library, and what is refused. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "model/value.h"
#include "tests/unit/random.h"

#define HEADS 5
#define COUNT 40

static const char *const heads[HEADS] = {"play", "binge", "like", "hide", "watch-time"};
static struct rk_arena arena;

static void setup(void)
{
    rk_arena_init(&arena, 4096);
}

static void teardown(void)
{
    rk_arena_deinit(&arena);
}

TestSuite(value, .init = setup, .fini = teardown, .timeout = 60);

/* The definition, with the C library's pow(). */
static double plain_value(const struct rk_value_model *value, const float *logits, const float *probabilities)
{
    double result = value->kind == RK_VALUE_PRODUCT_OF_POWERS ? 1 : 0;
    for (uint32_t i = 0; i < value->num_terms; i++) {
        const double weight = (double)value->terms[i].weight;
        const uint32_t head = value->terms[i].head;
        if (value->kind == RK_VALUE_PRODUCT_OF_POWERS)
            result *= pow(fmax((double)probabilities[head], (double)FLT_MIN), weight);
        else
            result += weight * (double)(value->kind == RK_VALUE_SUM_OF_LOGITS ? logits : probabilities)[head];
    }
    return (double)value->factor * result;
}

static float random_probability(struct random *random)
{
    static const float edges[] = {0, 1, FLT_MIN, FLT_TRUE_MIN, 1 - FLT_EPSILON / 2, 0.5f, 0.70710677f, 0.70710683f};
    if (random_below(random, 4) == 0)
        return edges[random_below(random, sizeof edges / sizeof *edges)];
    return ldexpf(0.5f + 0.25f * (random_float(random) + 1), -(int)random_below(random, 100));
}

Test(value, every_kind_is_the_formula_written_out)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 2000; round++) {
        float logits[COUNT * HEADS], probabilities[COUNT * HEADS];
        double values[COUNT];
        struct rk_value_term terms[HEADS];
        struct rk_value_model value = {.name = "",
                                       .kind = (enum rk_value_kind)random_below(&random, RK_VALUE_KIND_COUNT),
                                       .factor = 0.1f + 3 * (random_float(&random) + 1),
                                       .terms = terms};
        const uint32_t first = (uint32_t)random_below(&random, HEADS);
        value.num_terms = (uint32_t)random_between(&random, 1, HEADS);
        for (uint32_t i = 0; i < value.num_terms; i++)
            terms[i] = (struct rk_value_term){(first + i) % HEADS, 1.5f * random_float(&random)};
        for (int i = 0; i < COUNT * HEADS; i++) {
            logits[i] = 30 * random_float(&random);
            probabilities[i] = random_probability(&random);
        }
        cr_assert_eq(rk_value_check(&value, "value", heads, HEADS, NULL), RK_OK);
        cr_assert_eq(rk_value_compute(&value, HEADS, logits, probabilities, COUNT, values, NULL), RK_OK);
        for (int c = 0; c < COUNT; c++) {
            const double expected = plain_value(&value, logits + c * HEADS, probabilities + c * HEADS);
            /* The logarithms that a product adds up reach 5 * 1.5 * 87. */
            const double bound =
                value.kind == RK_VALUE_PRODUCT_OF_POWERS ? 1e-12 * fabs(expected) : 1e-13 * 50 * 5 * 30;
            cr_assert(fabs(values[c] - expected) <= bound, "round %d, %s: %.17g, expected %.17g", round,
                      rk_value_kind_names[value.kind], values[c], expected);
        }
    }
}

/* One head to one power, against pow(): the logarithm and the exponential by themselves. */
Test(value, powers_of_every_probability_are_exact_to_fifteen_digits)
{
    static const float weights[] = {1, 0.5f, -1, 0.1f, 3, -0.25f};
    double worst = 0;
    for (size_t w = 0; w < sizeof weights / sizeof *weights; w++) {
        const struct rk_value_term term = {0, weights[w]};
        const struct rk_value_model value = {
            .name = "", .kind = RK_VALUE_PRODUCT_OF_POWERS, .factor = 1, .terms = &term, .num_terms = 1};
        for (uint32_t bits = 0x00800000; bits <= 0x3f800000; bits += 9973) {
            float p;
            double got;
            memcpy(&p, &bits, sizeof p);
            cr_assert_eq(rk_value_compute(&value, 1, NULL, &p, 1, &got, NULL), RK_OK);
            const double expected = pow((double)p, (double)weights[w]);
            const double error = fabs(got - expected) / expected / fmax(1, fabs(log(expected)));
            worst = fmax(worst, error);
        }
    }
    cr_assert(worst < 4 * DBL_EPSILON, "the largest relative error is %g of max(1, |ln value|)", worst);
}

Test(value, a_head_that_does_not_count_and_certainty_change_nothing)
{
    const struct rk_value_term terms[] = {{0, 1}, {1, 0}};
    const struct rk_value_model value = {
        .name = "", .kind = RK_VALUE_PRODUCT_OF_POWERS, .factor = 1, .terms = terms, .num_terms = 2};
    const float probabilities[] = {1, 0, 1, 1, 0, 0.5f};
    double values[3];
    cr_assert_eq(rk_value_compute(&value, 2, NULL, probabilities, 3, values, NULL), RK_OK);
    cr_expect_eq(values[0], 1, "%.17g", values[0]);
    cr_expect_eq(values[1], 1, "%.17g", values[1]);
    cr_expect(values[2] > 0 && values[2] < 1.2e-38, "%.17g", values[2]); /* an impossible one is still above nothing */
}

Test(value, a_product_past_every_number_is_refused_and_one_below_is_nothing)
{
    struct rk_value_term term = {1, -100};
    const struct rk_value_model value = {
        .name = "", .kind = RK_VALUE_PRODUCT_OF_POWERS, .factor = 1, .terms = &term, .num_terms = 1};
    const float probabilities[] = {0.5f, 0.5f, 0.5f, 1e-10f};
    struct rk_error error = {0};
    double values[2];
    cr_assert_eq(rk_value_compute(&value, 2, NULL, probabilities, 2, values, &error), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "the value of candidate 1 is inf"), "%s", error.text);
    for (float weight = 100; weight < FLT_MAX; weight *= 1e10f) {
        term.weight = weight;
        cr_assert_eq(rk_value_compute(&value, 2, NULL, probabilities, 2, values, NULL), RK_OK);
        cr_expect_eq(values[1], 0, "%.17g", values[1]);
    }
}

/* ---- binding ---- */

static void expect_refusal(const struct rk_named_value *named, const char *text)
{
    struct rk_value_model value;
    struct rk_error error = {0};
    cr_expect_eq(rk_value_bind(named, "value", heads, HEADS, &arena, &value, &error), RK_INVALID, "%s", text);
    cr_expect_str_eq(error.text, text);
}

Test(value, what_is_wrong_is_named)
{
    struct rk_named_term terms[HEADS + 1] = {{"play", 1}, {"binge", 0.5f}, {"like", 2}, {"hide", -1}, {"play", 1}};
    struct rk_named_value named = {RK_VALUE_SUM_OF_LOGITS, 1, terms, 4};
    struct rk_value_model value;
    cr_assert_eq(rk_value_bind(&named, "value", heads, HEADS, &arena, &value, NULL), RK_OK);
    cr_assert(value.num_terms == 4 && value.terms[3].head == 3 && value.terms[3].weight == -1.0f);
    named.num_terms = 5;
    expect_refusal(&named, "value.terms[4].head is 'play', as is that of terms[0]; give each head once");
    named.num_terms = 10000;
    expect_refusal(&named, "value.terms has 10000 terms for the model's 5 heads; give each head once");
    named.num_terms = 0;
    expect_refusal(&named, "value.terms is empty; a value needs at least one head");
    named.num_terms = 2;
    terms[1].head = "bing";
    expect_refusal(&named, "value.terms[1].head is 'bing', not one of the model's 5 heads; did you mean 'binge'?");
    terms[1].head = "\x1b[2J";
    expect_refusal(&named, "value.terms[1].head is '?[2J', not one of the model's 5 heads");
    terms[1] = (struct rk_named_term){"binge", NAN};
    expect_refusal(&named, "value.terms[1].weight is nan; weights must be finite");
    terms[1].weight = -INFINITY;
    expect_refusal(&named, "value.terms[1].weight is -inf; weights must be finite");
    terms[1].weight = 1;
    named.factor = 0;
    expect_refusal(&named, "value.factor is 0; it must be finite and not 0");
    named.factor = NAN;
    expect_refusal(&named, "value.factor is nan; it must be finite and not 0");
    named.factor = 1;
    named.kind = RK_VALUE_KIND_COUNT;
    expect_refusal(&named, "value.kind is 3, none of sum_of_probabilities, sum_of_logits, product_of_powers");
}

/* ---- formulas as text ---- */

Test(value, formulas_are_read_and_printed)
{
    static const struct {
        const char *text, *printed;
    } cases[] = {
        {"play", "1*play"},
        {"2*play", "2*play"},
        {"0.7*play+0.3*binge", "0.7*play + 0.3*binge"},
        {" play  + -0.5 * watch-time ", "1*play + -0.5*watch-time"},
        {"logit(play) + 2*logit( hide )", "1*logit(play) + 2*logit(hide)"},
        {"play^1.0*binge^0.5", "play * binge^0.5"},
        {"1.5*play*binge*hide^-2", "1.5 * play * binge * hide^-2"},
        {"play ^ .5", "play^0.5"},
        {"3e+8*play + 2e-10 * binge", "3e+08*play + 2e-10*binge"},
        {"3 * play^2", "3 * play^2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rk_error error = {0};
        struct rk_named_value named;
        struct rk_value_model value;
        char text[200], again[200];
        cr_assert_eq(rk_value_parse(cases[i].text, &arena, &named, &error), RK_OK, "%s: %s", cases[i].text, error.text);
        cr_assert_eq(rk_value_bind(&named, "value", heads, HEADS, &arena, &value, &error), RK_OK, "%s", error.text);
        cr_expect_str_eq(rk_value_print(&value, heads, text, sizeof text), cases[i].printed);
        cr_assert_eq(rk_value_parse(text, &arena, &named, &error), RK_OK, "%s: %s", text, error.text);
        cr_assert_eq(rk_value_bind(&named, "value", heads, HEADS, &arena, &value, &error), RK_OK, "%s", error.text);
        cr_expect_str_eq(rk_value_print(&value, heads, again, sizeof again), text);
    }
}

Test(value, a_head_whose_name_is_a_number_is_printed_behind_the_products_own)
{
    static const char *const numbers[] = {"1", "-2.5e3", "play"};
    static const char *const texts[] = {"1 * 1 * play", "1 * -2.5e3^2", "1 * 1^2 * -2.5e3", "play * 1"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct rk_error error = {0};
        struct rk_named_value named;
        struct rk_value_model value;
        char text[64];
        cr_assert_eq(rk_value_parse(texts[i], &arena, &named, &error), RK_OK, "%s: %s", texts[i], error.text);
        cr_assert_eq(rk_value_bind(&named, "value", numbers, 3, &arena, &value, &error), RK_OK, "%s", error.text);
        cr_expect_str_eq(rk_value_print(&value, numbers, text, sizeof text), texts[i]);
    }
}

Test(value, a_printed_formula_ends_with_its_buffer)
{
    const struct rk_value_term terms[] = {{0, 1}, {1, 0.5f}};
    const struct rk_value_model value = {
        .name = "", .kind = RK_VALUE_PRODUCT_OF_POWERS, .factor = 2, .terms = terms, .num_terms = 2};
    for (size_t size = 1; size < 30; size++) {
        char text[32];
        memset(text, 'x', sizeof text);
        rk_value_print(&value, heads, text, size);
        cr_expect(strlen(text) < size && strncmp(text, "2 * play * binge^0.5", strlen(text)) == 0, "%zu: %s", size,
                  text);
    }
}

Test(value, text_that_is_no_formula_is_refused_where_it_goes_wrong)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "character 1: a head or a number is missing"},
        {"0.5", "character 4: a number stands before *"},
        {"0.5*", "character 5: a head or a number is missing"},
        {"play +", "character 7: a head or a number is missing"},
        {"play binge", "character 6: something follows"},
        {"play^binge", "character 6: a power is a number"},
        {"play^", "character 6: a power is a number"},
        {"play*binge + like", "a sum or a product, not both"},
        {"like + play^2", "a sum or a product, not both"},
        {"logit(play)*logit(binge)", "logits are added up, not multiplied"},
        {"logit(play) + binge", "either all heads stand in logit() or none"},
        {"logit(play", "character 11: a ) is missing"},
        {"logit()", "character 7: the name of a head is missing"},
        {"play)", "character 5: something follows"},
        {"(play)", "character 1: a head or a number is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rk_error error = {0};
        struct rk_named_value named;
        cr_expect_eq(rk_value_parse(cases[i].text, &arena, &named, &error), RK_INVALID, "'%s'", cases[i].text);
        cr_expect_not_null(strstr(error.text, cases[i].words), "'%s': '%s', expected '%s' in it", cases[i].text,
                           error.text, cases[i].words);
    }
}
