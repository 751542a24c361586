/* Calibration: what was put in comes out, and nothing near it is more likely. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/platt.h"
#include "tests/unit/random.h"

#define COUNT 60000

static struct rk_scored samples[COUNT];

/* Logits over a few units, and labels that are as often positive as scale and shift say. */
static void draw(struct random *random, size_t count, double scale, double shift)
{
    for (size_t i = 0; i < count; i++) {
        const float logit = 2 * (random_float(random) + random_float(random) + random_float(random)) - 1;
        const double p = 1 / (1 + exp(-(scale * (double)logit + shift)));
        samples[i] = (struct rk_scored){.logit = logit, .positive = (double)random_float(random) < 2 * p - 1};
    }
}

/* The loss with Platt's targets, plainly. */
static double loss(size_t count, double scale, double shift)
{
    double positives = 0, sum = 0;
    for (size_t i = 0; i < count; i++)
        positives += samples[i].positive;
    for (size_t i = 0; i < count; i++) {
        const double target =
            samples[i].positive ? (positives + 1) / (positives + 2) : 1 / ((double)count - positives + 2);
        const double p = 1 / (1 + exp(-(scale * (double)samples[i].logit + shift)));
        sum -= target * log(p) + (1 - target) * log(1 - p);
    }
    return sum;
}

Test(platt, finds_the_scale_and_shift_that_made_the_labels, .timeout = 60)
{
    static const double cases[][2] = {{1, 0}, {0.6, -1.5}, {2.5, 0.75}};
    struct random random = random_from_seed();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rk_calibration found;
        struct rk_error error = {0};
        draw(&random, COUNT, cases[i][0], cases[i][1]);
        cr_assert_eq(rk_platt_fit(samples, COUNT, "h", &found, &error), RK_OK, "%s", error.text);
        /* Ten standard errors or so of that many samples. */
        cr_expect(fabs((double)found.scale - cases[i][0]) < 0.12 * cases[i][0] + 0.05, "scale %g, expected %g",
                  (double)found.scale, cases[i][0]);
        cr_expect(fabs((double)found.shift - cases[i][1]) < 0.2, "shift %g, expected %g", (double)found.shift,
                  cases[i][1]);
    }
}

Test(platt, nothing_near_the_result_is_more_likely, .timeout = 60)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 50; round++) {
        const size_t count = random_between(&random, 20, 2000);
        struct rk_calibration found;
        draw(&random, count, 1 + 0.5 * (double)random_float(&random), 2 * (double)random_float(&random));
        if (rk_platt_fit(samples, count, "h", &found, NULL) != RK_OK)
            continue; /* so few that the labels do not rise */
        const double best = loss(count, (double)found.scale, (double)found.shift);
        for (int i = 0; i < 8; i++) {
            const double turn = i * 0.785398, scale = (double)found.scale + 0.01 * cos(turn);
            const double other = loss(count, scale, (double)found.shift + 0.01 * sin(turn));
            cr_assert(other > best, "round %d: %.17g at (%g, %g), %.17g beside it", round, best, (double)found.scale,
                      (double)found.shift, other);
        }
    }
}

Test(platt, certain_logits_stay_finite)
{
    struct rk_calibration found;
    for (size_t i = 0; i < 100; i++)
        samples[i] = (struct rk_scored){.logit = i < 50 ? -1e4f : 1e4f, .positive = i >= 50};
    cr_assert_eq(rk_platt_fit(samples, 100, "h", &found, NULL), RK_OK);
    const double p = 1 / (1 + exp(-((double)found.scale * 1e4 + (double)found.shift)));
    cr_expect_float_eq(p, 51.0 / 52.0, 1e-5, "%g: a separable sample is not certain", p);
}

Test(platt, labels_that_do_not_rise_or_do_not_differ_are_refused)
{
    struct rk_calibration found;
    struct rk_error error = {0};
    for (size_t i = 0; i < 100; i++)
        samples[i] = (struct rk_scored){.logit = (float)i, .positive = i < 50};
    cr_expect_eq(rk_platt_fit(samples, 100, "play", &found, &error), RK_INVALID);
    cr_expect_not_null(strstr(error.text, "head 'play': the best scale is -"), "%s", error.text);
    error = (struct rk_error){0};
    cr_expect_eq(rk_platt_fit(samples, 50, "play", &found, &error), RK_INVALID);
    cr_expect_str_eq(error.text, "head 'play' has 50 positive and 0 negative labels; calibration needs both");
    cr_expect_eq(rk_platt_fit(samples, 0, "play", &found, NULL), RK_INVALID);
}
