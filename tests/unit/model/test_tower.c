/* Towers: float32 layers against OpenBLAS, ReLU by hand, and rows that know nothing of their neighbours. */
#include <cblas.h>
#include <criterion/criterion.h>
#include <math.h>

#include "model/tower.h"
#include "tests/unit/random.h"

enum { MAX_ROWS = 70, MAX_LAYERS = 5, MAX_WIDTH = 150 };

static const struct rk_observer nobody;

/* A tower with the floats that its layers were made of. */
struct made {
    struct rk_linear *layers[MAX_LAYERS];
    float *weights[MAX_LAYERS], *biases[MAX_LAYERS];
    uint32_t widths[MAX_LAYERS + 1];
    struct rk_tower tower;
    struct rk_scratch scratch;
};

static float *random_floats(size_t count, float scale, struct random *random)
{
    float *values = malloc((count + 1) * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = scale * random_float(random);
    return values;
}

/* Takes weights and biases over. */
static void make_layer(struct made *made, uint32_t l, enum rk_dense_format format, float *weight, float *bias)
{
    const uint32_t in = made->widths[l], out = made->widths[l + 1];
    void *elements = malloc((size_t)in * out * sizeof(float));
    float *scales = malloc(out * sizeof *scales);
    struct rk_error error = {0};
    rk_dense_encode(format, weight, out, in, elements, scales);
    const struct rk_linear_source source = {
        .format = format, .in = in, .out = out, .weight = elements, .scale = scales, .bias = bias, .columns = in};
    cr_assert_eq(rk_linear_create(&source, &made->layers[l], &error), RK_OK, "%s", error.text);
    made->weights[l] = weight;
    made->biases[l] = bias;
    free(elements);
    free(scales);
}

static void finish(struct made *made, uint32_t num_layers, bool relu_last)
{
    made->tower = (struct rk_tower){.layers = made->layers, .num_layers = num_layers, .relu_last = relu_last};
    made->scratch = (struct rk_scratch){0};
    rk_tower_cut(&made->tower, MAX_ROWS, &made->scratch);
    made->scratch.base = aligned_alloc(RK_SCRATCH_ALIGNMENT, made->scratch.end + RK_SCRATCH_ALIGNMENT);
    memset(made->scratch.base, 0xee, made->scratch.end);
    made->scratch.end = 0;
    rk_tower_cut(&made->tower, MAX_ROWS, &made->scratch);
}

static void unmake(struct made *made)
{
    for (uint32_t l = 0; l < made->tower.num_layers; l++) {
        rk_linear_destroy(made->layers[l]);
        free(made->weights[l]);
        free(made->biases[l]);
    }
    free(made->scratch.base);
}

static void make_random(struct made *made, bool quantised, struct random *random)
{
    const uint32_t num_layers = (uint32_t)random_between(random, 1, MAX_LAYERS);
    for (uint32_t l = 0; l <= num_layers; l++)
        made->widths[l] = (uint32_t)random_between(random, 1, MAX_WIDTH);
    for (uint32_t l = 0; l < num_layers; l++) {
        const uint32_t in = made->widths[l], out = made->widths[l + 1];
        const enum rk_dense_format format =
            quantised ? (enum rk_dense_format)random_below(random, RK_DENSE_FORMAT_COUNT) : RK_DENSE_F32;
        make_layer(made, l, format, random_floats((size_t)in * out, 1.5f / sqrtf((float)in), random),
                   random_floats(out, 0.2f, random));
    }
    finish(made, num_layers, random_below(random, 2));
}

/* y rows lie y_stride floats apart; scales and zeros are filled in for the first layer. */
static void run(const struct made *made, const float *x, size_t x_stride, uint32_t rows, float *y, size_t y_stride)
{
    const struct rk_linear *first = made->layers[0];
    float scales[MAX_ROWS];
    int32_t zeros[MAX_ROWS];
    struct rk_matrix in = {.row_bytes = rk_linear_row_bytes(first), .scales = scales, .zeros = zeros};
    in.values = aligned_alloc(64, rows * in.row_bytes);
    rk_linear_input(first, x, x_stride, rows, &in);
    rk_tower_run(&made->tower, &in, rows, &nobody, y, y_stride);
    free(in.values);
}

Test(tower, float32_layers_are_matrix_products_with_relu)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 60; round++) {
        struct made made;
        make_random(&made, false, &random);
        const uint32_t rows = (uint32_t)random_between(&random, 1, MAX_ROWS), num_layers = made.tower.num_layers,
                       out = made.widths[num_layers], y_stride = out + (uint32_t)random_below(&random, 9);
        float *x = random_floats((size_t)rows * made.widths[0], 1.0f, &random);
        float *y = random_floats((size_t)rows * y_stride, 1.0f, &random), *spare = malloc(rows * y_stride * sizeof *y);
        memcpy(spare, y, rows * y_stride * sizeof *y);
        run(&made, x, made.widths[0], rows, y, y_stride);
        float turns[2][MAX_ROWS * MAX_WIDTH];
        memcpy(turns[0], x, (size_t)rows * made.widths[0] * sizeof *x);
        for (uint32_t l = 0; l < num_layers; l++) {
            const uint32_t n = made.widths[l + 1], k = made.widths[l];
            float *to = turns[(l + 1) % 2];
            for (uint32_t r = 0; r < rows; r++)
                memcpy(to + (size_t)r * n, made.biases[l], n * sizeof *to);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)rows, (blasint)n, (blasint)k, 1.0f,
                        turns[l % 2], (blasint)k, made.weights[l], (blasint)k, 1.0f, to, (blasint)n);
            for (uint32_t i = 0; (l + 1 < num_layers || made.tower.relu_last) && i < rows * n; i++)
                to[i] = fmaxf(to[i], 0.0f);
        }
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t o = 0; o < y_stride; o++) {
                const float got = y[(size_t)r * y_stride + o];
                if (o >= out) {
                    cr_assert_eq(got, spare[(size_t)r * y_stride + o], "wrote to row %u column %u of %u", r, o, out);
                    continue;
                }
                const float expected = turns[num_layers % 2][(size_t)r * out + o];
                cr_assert(fabsf(got - expected) <= 1e-5f * fmaxf(1.0f, fabsf(expected)),
                          "round %d: row %u column %u is %.9g, expected %.9g", round, r, o, (double)got,
                          (double)expected);
            }
        free(x);
        free(y);
        free(spare);
        unmake(&made);
    }
}

Test(tower, a_row_has_the_same_bits_alone_and_among_others)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 60; round++) {
        struct made made;
        make_random(&made, true, &random);
        const uint32_t out = made.widths[made.tower.num_layers], in = made.widths[0];
        float *x = random_floats((size_t)MAX_ROWS * in, 1.0f, &random);
        float *together = malloc((size_t)MAX_ROWS * out * sizeof *x), *apart = malloc(MAX_ROWS * out * sizeof *x);
        run(&made, x, in, MAX_ROWS, together, out);
        for (uint32_t first = 0, rows; first < MAX_ROWS; first += rows) {
            rows = (uint32_t)random_between(&random, 1, random_below(&random, 2) ? 3 : MAX_ROWS - first);
            rows = rows < MAX_ROWS - first ? rows : MAX_ROWS - first;
            run(&made, x + (size_t)first * in, in, rows, apart + (size_t)first * out, out);
        }
        for (uint32_t i = 0; i < MAX_ROWS * out; i++)
            cr_assert_eq(memcmp(&apart[i], &together[i], sizeof *apart), 0, "round %d: row %u is %.9g, then %.9g",
                         round, i / out, (double)together[i], (double)apart[i]);
        free(x);
        free(together);
        free(apart);
        unmake(&made);
    }
}

static float *copy_of(const float *values, size_t count)
{
    float *copy = malloc(count * sizeof *copy);
    memcpy(copy, values, count * sizeof *copy);
    return copy;
}

Test(tower, relu_follows_every_layer_but_the_last_unless_asked)
{
    static const float w0[] = {1, -2, 3, 4}, b0[] = {1, 1}, w1[] = {-1, 0.5f}, b1[] = {0.25f};
    for (int relu_last = 0; relu_last < 2; relu_last++) {
        struct made made = {.widths = {2, 2, 1}};
        make_layer(&made, 0, RK_DENSE_F32, copy_of(w0, 4), copy_of(b0, 2));
        make_layer(&made, 1, RK_DENSE_F32, copy_of(w1, 2), copy_of(b1, 1));
        finish(&made, 2, relu_last);
        /* (1, 2): W0 x + b0 = (-2, 12) -> (0, 12); W1 gives 6.25.  (3, 0): (4, 10) -> 1.25.  (2, -1): (5, 3) -> -3.25
         */
        const float x[] = {1, 2, 3, 0, 2, -1};
        float y[3];
        run(&made, x, 2, 3, y, 1);
        cr_assert(y[0] == 6.25f && y[1] == 1.25f && y[2] == (relu_last ? 0.0f : -3.25f), "%g %g %g", (double)y[0],
                  (double)y[1], (double)y[2]);
        unmake(&made);
    }
}
