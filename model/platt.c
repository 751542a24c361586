/* Newton's method on two numbers, each step halved until the loss falls. The loss is convex, so that there is one end
 * to arrive at. Float64; any thread. */
#include "model/platt.h"

#include <float.h>
#include <math.h>

#define MAX_STEPS    100
#define MAX_HALVINGS 40
#define RIDGE        1e-12 /* keeps the Hessian positive where all logits are equal */
#define SMALL        1e-10 /* of the gradient, per sample */

struct targets {
    double positive, negative;
};

/* The sum of the log losses at scale and shift. */
static double loss_of(const struct rk_scored *samples, size_t count, const struct targets *targets, double scale,
                      double shift)
{
    double loss = 0;
    for (size_t i = 0; i < count; i++) {
        const double z = scale * (double)samples[i].logit + shift;
        const double target = samples[i].positive ? targets->positive : targets->negative;
        loss += log1p(exp(-fabs(z))) + fmax(z, 0) - target * z;
    }
    return loss;
}

/* First and second derivatives of the loss, by scale (0) and shift (1). */
struct derivatives {
    double gradient[2], hessian[2][2];
};

static struct derivatives derive(const struct rk_scored *samples, size_t count, const struct targets *targets,
                                 double scale, double shift)
{
    struct derivatives d = {.hessian = {{RIDGE, 0}, {0, RIDGE}}};
    for (size_t i = 0; i < count; i++) {
        const double x = (double)samples[i].logit, p = 1 / (1 + exp(-(scale * x + shift)));
        const double off = p - (samples[i].positive ? targets->positive : targets->negative), curve = p * (1 - p);
        d.gradient[0] += off * x;
        d.gradient[1] += off;
        d.hessian[0][0] += curve * x * x;
        d.hessian[0][1] += curve * x;
        d.hessian[1][1] += curve;
    }
    d.hessian[1][0] = d.hessian[0][1];
    return d;
}

enum rk_status rk_platt_fit(const struct rk_scored *samples, size_t count, const char *head,
                            struct rk_calibration *calibration, struct rk_error *error)
{
    double positives = 0;
    for (size_t i = 0; i < count; i++)
        positives += samples[i].positive;
    const double negatives = (double)count - positives;
    if (positives < 1 || negatives < 1)
        return rk_error_set(error, RK_INVALID,
                            "head '%.128s' has %.0f positive and %.0f negative labels; calibration needs both", head,
                            positives, negatives);
    const struct targets targets = {(positives + 1) / (positives + 2), 1 / (negatives + 2)};
    double scale = 0, shift = log((positives + 1) / (negatives + 1));
    double loss = loss_of(samples, count, &targets, scale, shift);
    for (int step = 0; step < MAX_STEPS; step++) {
        const struct derivatives d = derive(samples, count, &targets, scale, shift);
        if (fmax(fabs(d.gradient[0]), fabs(d.gradient[1])) < SMALL * (double)count)
            break;
        const double determinant = d.hessian[0][0] * d.hessian[1][1] - d.hessian[0][1] * d.hessian[1][0];
        const double scale_step = -(d.hessian[1][1] * d.gradient[0] - d.hessian[0][1] * d.gradient[1]) / determinant;
        const double shift_step = -(d.hessian[0][0] * d.gradient[1] - d.hessian[1][0] * d.gradient[0]) / determinant;
        double part = 1, lower = loss_of(samples, count, &targets, scale + scale_step, shift + shift_step);
        for (int i = 0; i < MAX_HALVINGS && !(lower < loss); i++) {
            part /= 2;
            lower = loss_of(samples, count, &targets, scale + part * scale_step, shift + part * shift_step);
        }
        if (!(lower < loss))
            break; /* as far as float64 goes */
        scale += part * scale_step;
        shift += part * shift_step;
        loss = lower;
    }
    *calibration = (struct rk_calibration){(float)scale, (float)shift};
    if (!(calibration->scale > 0.0f && isfinite(calibration->scale) && isfinite(calibration->shift)))
        return rk_error_set(error, RK_INVALID,
                            "head '%.128s': the best scale is %g, but it must be above 0: the labels do not rise with "
                            "the logits",
                            head, scale);
    return RK_OK;
}
