/* The numbers that every variant of the sigmoid computes exp(z), z <= 0, with:
 *
 *   n = round(z * RK_LOG2_E), r = z - n ln 2 in two fused steps, |r| <= 0.35
 *   exp(z) = 2^n (1 + r + r^2 / 2! + ... + r^7 / 7!), by Horner's rule in fused steps; the rest is below 2^-27
 *
 * Below RK_EXP_LEAST, where exp(z) is about 2^-126, it counts as 0. */
#ifndef RANKD_QUANT_SIGMOID_H
#define RANKD_QUANT_SIGMOID_H

#define RK_LOG2_E    1.44269504f
#define RK_LN2_HIGH  0.693359375f /* 10 bits: n times it is exact */
#define RK_LN2_LOW   (-2.12194440e-4f)
#define RK_EXP_LEAST (-87.0f)
#define RK_EXP_TERMS 1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f

#endif
