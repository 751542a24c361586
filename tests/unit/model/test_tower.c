/* Towers: layers against double precision at shapes on both sides of every choice, and ReLU by hand. */
#include <criterion/criterion.h>
#include <math.h>

#include "model/tower.h"
#include "tests/unit/random.h"

enum { MAX_ROWS = 40 };

static const struct rk_observer nobody;

static void fill(float *values, size_t count, struct random *random)
{
    for (size_t i = 0; i < count; i++)
        values[i] = random_float(random);
}

/* Shapes on both sides of every choice that rk_tower_linear makes: one row, few rows of a big layer, many rows. */
Test(tower, a_linear_layer_is_x_times_w_transposed)
{
    struct random random = random_from_seed();
    static const uint32_t shapes[][2] = {{1, 1}, {3, 5}, {13, 512}, {479, 64}, {600, 700}, {1024, 1}};
    static const uint32_t rows_of[] = {1, 2, 3, 4, 5, 17, MAX_ROWS};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const uint32_t in = shapes[s][0], out = shapes[s][1], x_stride = in + 3, y_stride = out + 5;
        float *w = malloc((size_t)in * out * sizeof *w), *x = malloc((size_t)MAX_ROWS * x_stride * sizeof *x);
        float *y = malloc((size_t)MAX_ROWS * y_stride * sizeof *y);
        fill(w, (size_t)in * out, &random);
        fill(x, (size_t)MAX_ROWS * x_stride, &random);
        for (size_t n = 0; n < sizeof rows_of / sizeof *rows_of; n++) {
            const uint32_t rows = rows_of[n];
            for (size_t i = 0; i < (size_t)MAX_ROWS * y_stride; i++)
                y[i] = 77.0f;
            rk_tower_linear(w, in, out, x, x_stride, rows, y, y_stride);
            for (uint32_t r = 0; r < MAX_ROWS; r++)
                for (uint32_t o = 0; o < y_stride; o++) {
                    const float got = y[(size_t)r * y_stride + o];
                    if (r >= rows || o >= out) {
                        cr_assert_eq(got, 77.0f, "[%u, %u] x %u: wrote to row %u column %u", out, in, rows, r, o);
                        continue;
                    }
                    double sum = 0.0, size = 0.0;
                    for (uint32_t i = 0; i < in; i++) {
                        const double term = (double)w[(size_t)o * in + i] * (double)x[(size_t)r * x_stride + i];
                        sum += term;
                        size += fabs(term);
                    }
                    cr_assert(fabs((double)got - sum) <= 1e-6 * size + 1e-30,
                              "[%u, %u] x %u: row %u column %u is %.9g, expected %.9g", out, in, rows, r, o,
                              (double)got, sum);
                }
        }
        free(w);
        free(x);
        free(y);
    }
}

/* Three layers by hand: [1, -2; 3, 4] and friends on (1, 2). */
static _Alignas(64) float weights[64] = {
    [0] = 1,      [1] = -2,    [2] = 3, [3] = 4, /* W0 */
    [16] = 1,     [17] = 1,                      /* b0 */
    [32] = -1,    [33] = 0.5f,                   /* W1 */
    [48] = 0.25f,                                /* b1 */
};
static const struct rk_linear_spec layers[] = {
    {.weight = {2, 2, 0}, .bias = {1, 2, 64}},
    {.weight = {1, 2, 128}, .bias = {1, 1, 192}},
};

Test(tower, relu_follows_every_layer_but_the_last_unless_asked)
{
    const struct rk_mlp_spec mlp = {layers, 2};
    struct rk_tower tower = {&mlp, (const unsigned char *)weights, RK_STAGE_TOP, false};
    /* (1, 2): W0 x + b0 = (-2, 12) -> (0, 12); W1 gives 6.25.  (3, 0): (4, 10) -> 1.25.  (2, -1): (5, 3) -> -3.25 */
    const float x[] = {1, 2, 3, 0, 2, -1};
    float scratch[12], y[3];
    cr_assert_eq(rk_tower_scratch_floats(&mlp), 4);
    rk_tower_run(&tower, x, 2, 2, 3, &nobody, scratch, y, 1);
    cr_assert(y[0] == 6.25f && y[1] == 1.25f && y[2] == -3.25f, "%g %g %g", (double)y[0], (double)y[1], (double)y[2]);
    tower.relu_last = true;
    rk_tower_run(&tower, x, 2, 2, 3, &nobody, scratch, y, 1);
    cr_assert(y[0] == 6.25f && y[1] == 1.25f && y[2] == 0.0f, "%g %g %g", (double)y[0], (double)y[1], (double)y[2]);
}

Test(tower, without_layers_it_copies)
{
    const struct rk_mlp_spec none = {NULL, 0};
    const struct rk_tower tower = {&none, NULL, RK_STAGE_BOTTOM, true};
    const float x[] = {-1, 2, 99, 3, -4, 99};
    float y[8] = {0};
    rk_tower_run(&tower, x, 3, 2, 2, &nobody, NULL, y, 4);
    cr_assert(y[0] == -1 && y[1] == 2 && y[2] == 0 && y[4] == 3 && y[5] == -4);
    cr_assert_eq(rk_tower_scratch_floats(&none), 0);
}
