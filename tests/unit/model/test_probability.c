/* Calibrated probabilities against the definition in double precision. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "model/probability.h"
#include "tests/unit/random.h"

static float one(const struct rk_calibration *calibration, float logit)
{
    const struct rk_model_spec spec = {.num_heads = 1, .calibration = calibration};
    float probability;
    rk_probabilities(&spec, &logit, 1, &probability);
    return probability;
}

Test(probability, without_calibration_it_is_the_sigmoid)
{
    cr_assert_eq(one(NULL, 0), 0.5f);
    cr_assert_eq(one(NULL, INFINITY), 1.0f);
    cr_assert_eq(one(NULL, -INFINITY), 0.0f);
    cr_assert(isnan(one(NULL, NAN)));
    for (float logit = -100; logit <= 100; logit += 0.37f) {
        const double expected = 1 / (1 + exp(-(double)logit));
        cr_assert(fabs((double)one(NULL, logit) - expected) <= 2.5e-7 * expected + 0x1p-125,
                  "sigmoid(%g) is %.9g, expected %.9g", (double)logit, (double)one(NULL, logit), expected);
    }
}

Test(probability, every_head_has_its_own_scale_and_shift)
{
    enum { HEADS = 3, COUNT = 50 };
    struct random random = random_from_seed();
    struct rk_calibration calibration[HEADS];
    const struct rk_model_spec spec = {.num_heads = HEADS, .calibration = calibration};
    float logits[COUNT * HEADS], probabilities[COUNT * HEADS];
    for (int round = 0; round < 100; round++) {
        for (int h = 0; h < HEADS; h++)
            calibration[h] = (struct rk_calibration){1.01f + random_float(&random), 3 * random_float(&random)};
        for (int i = 0; i < COUNT * HEADS; i++)
            logits[i] = 10 * random_float(&random);
        rk_probabilities(&spec, logits, COUNT, probabilities);
        for (int i = 0; i < COUNT * HEADS; i++) {
            const struct rk_calibration *c = &calibration[i % HEADS];
            const double x = (double)c->scale * (double)logits[i] + (double)c->shift;
            const double expected = 1 / (1 + exp(-x)); /* x is off by two roundings of numbers up to 25 */
            cr_assert(fabs((double)probabilities[i] - expected) <= 4e-6 * expected, "%d: %.9g, expected %.9g", i,
                      (double)probabilities[i], expected);
            cr_assert_eq(probabilities[i], one(c, logits[i]), "the place in the array matters");
        }
    }
}

Test(probability, the_largest_numbers_are_no_trouble)
{
    const struct rk_calibration steep = {3e38f, -3e38f};
    cr_assert_eq(one(&steep, 3e38f), 1.0f);
    cr_assert_eq(one(&steep, -3e38f), 0.0f);
    cr_assert_eq(one(NULL, 3e38f), 1.0f);
}
