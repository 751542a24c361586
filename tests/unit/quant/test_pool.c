/* Pooled lookup: every variant of every format gives the bits of decoding row by row and adding up, on rows that lie
 * between inaccessible pages. */
#include <math.h>

#include "quant/kernels_list.h"
#include "tests/unit/quant/variants.h"
#include "tests/unit/random.h"

enum { MAX_DIM = 300, MAX_COUNT = 40, MAX_ROW = MAX_DIM * 4 };

TestSuite(pool, .timeout = 120);

/* "pool_f32" for fp32: the kernel of a format is the one in its slot. */
static const char *kernel_of(enum rk_row_format format)
{
    size_t count;
    const struct rk_kernel_variant *variants = rk_kernel_variants(&count);
    for (size_t i = 0; i < count; i++)
        if (variants[i].slot == offsetof(struct rk_kernels, pool) + (size_t)format * sizeof(rk_pool_fn *))
            return variants[i].kernel;
    cr_assert_fail("no kernel for %s", rk_row_format_name(format));
    return NULL;
}

static bool same_bits(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

struct trial {
    struct guarded rows[MAX_COUNT], out;
    const void *addresses[MAX_COUNT];
    float weights[MAX_COUNT];
    float expected[MAX_DIM];
};

static void trial_create(struct trial *trial)
{
    for (int i = 0; i < MAX_COUNT; i++)
        trial->rows[i] = guarded_create(MAX_ROW);
    trial->out = guarded_create(MAX_DIM * sizeof(float));
}

static void trial_destroy(struct trial *trial)
{
    for (int i = 0; i < MAX_COUNT; i++)
        guarded_destroy(&trial->rows[i]);
    guarded_destroy(&trial->out);
}

/* Fills the rows, half of them behind one guard page, half before the other, and what a sum over them is. */
static void trial_fill(struct trial *trial, struct random *random, enum rk_row_format format, size_t dim, size_t count,
                       bool weighted, bool add, bool any_bytes)
{
    const struct rk_row_traits *traits = rk_row_traits(format);
    const size_t bytes = rk_row_bytes(format, (uint32_t)dim);
    for (size_t d = 0; d < dim; d++)
        trial->expected[d] = add ? random_float(random) : 0.0f;
    if (add)
        memcpy(guarded_last(&trial->out, dim * sizeof(float)), trial->expected, dim * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        float values[MAX_DIM];
        unsigned char *row = i % 2 ? guarded_first(&trial->rows[i]) : guarded_last(&trial->rows[i], bytes);
        for (size_t d = 0; d < dim; d++)
            values[d] = random_float(random) * 3.0f;
        traits->encode(values, dim, row);
        for (size_t b = 0; any_bytes && b < bytes; b++)
            row[b] = (unsigned char)random_next(random);
        traits->decode(row, dim, values);
        trial->addresses[i] = row;
        trial->weights[i] = random_float(random);
        for (size_t d = 0; d < dim; d++)
            trial->expected[d] =
                weighted ? fmaf(trial->weights[i], values[d], trial->expected[d]) : trial->expected[d] + values[d];
    }
}

static void expect_sum(const struct trial *trial, const struct rk_kernel_variant *v, size_t dim, size_t count,
                       bool weighted, bool add)
{
    float before[MAX_DIM], *out = guarded_last(&trial->out, dim * sizeof *out);
    memcpy(before, out, dim * sizeof *out);
    ((rk_pool_fn *)v->function)(trial->addresses, weighted ? trial->weights : NULL, count, dim, add, out);
    for (size_t d = 0; d < dim; d++)
        cr_assert(same_bits(out[d], trial->expected[d]),
                  "%s %s dim %zu count %zu weighted %d add %d: out[%zu] is %.9g, expected %.9g", v->kernel,
                  rk_isa_name(v->isa), dim, count, weighted, add, d, (double)out[d], (double)trial->expected[d]);
    memcpy(out, before, dim * sizeof *out);
}

static void expect_sums(struct trial *trial, struct random *random, enum rk_row_format format, size_t dim, size_t count,
                        unsigned kind)
{
    const bool weighted = kind & 1, add = kind & 2, any_bytes = kind & 4;
    memset(guarded_last(&trial->out, dim * sizeof(float)), 0xff, dim * sizeof(float));
    trial_fill(trial, random, format, dim, count, weighted, add, any_bytes);
    size_t index = 0, found = 0;
    for (const struct rk_kernel_variant *v; (v = next_variant(kernel_of(format), &index)) != NULL; found++)
        expect_sum(trial, v, dim, count, weighted, add);
    cr_assert_geq(found, 1);
}

Test(pool, every_variant_has_the_bits_of_decoding_and_adding_up_to_the_guard_page)
{
    struct random random = random_from_seed();
    struct trial trial;
    trial_create(&trial);
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (size_t dim = 1; dim <= MAX_DIM; dim += dim < 70 ? 1 : random_between(&random, 1, 20))
            for (unsigned kind = 0; kind < 8; kind++)
                expect_sums(&trial, &random, (enum rk_row_format)f, dim, random_below(&random, 6), kind);
    trial_destroy(&trial);
}

Test(pool, long_bags_of_the_usual_widths_are_exact)
{
    struct random random = random_from_seed();
    struct trial trial;
    trial_create(&trial);
    static const size_t dims[] = {16, 32, 64, 96, 128, 256};
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (size_t k = 0; k < sizeof dims / sizeof *dims; k++)
            for (unsigned kind = 0; kind < 8; kind++)
                expect_sums(&trial, &random, (enum rk_row_format)f, dims[k], MAX_COUNT, kind);
    trial_destroy(&trial);
}

Test(pool, every_byte_of_every_element_and_scale_is_decoded_alike)
{
    struct random random = random_from_seed();
    struct trial trial;
    trial_create(&trial);
    /* 256 elements of one byte take every value; the scales of the MX formats do, too. */
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++) {
        const enum rk_row_format format = (enum rk_row_format)f;
        const struct rk_row_traits *traits = rk_row_traits(format);
        const size_t bytes = rk_row_bytes(format, 256), elements = 256 * (size_t)traits->bits / 8;
        for (unsigned value = 0; value < 256; value++) {
            trial_fill(&trial, &random, format, 256, 1, false, false, false);
            unsigned char *row = guarded_last(&trial.rows[0], bytes);
            for (size_t b = 0; b < elements; b++)
                row[b] = (unsigned char)(b + value);
            for (size_t b = elements; traits->block > 0 && b < bytes; b++)
                row[b] = (unsigned char)value;
            traits->decode(row, 256, trial.expected);
            for (size_t d = 0; d < 256; d++)
                trial.expected[d] += 0.0f; /* a sum that begins at 0 is never -0 */
            size_t index = 0;
            for (const struct rk_kernel_variant *v; (v = next_variant(kernel_of(format), &index)) != NULL;)
                expect_sum(&trial, v, 256, 1, false, false);
        }
    }
    trial_destroy(&trial);
}

Test(pool, a_bag_may_be_cut_anywhere)
{
    struct random random = random_from_seed();
    struct trial trial;
    trial_create(&trial);
    for (int f = 0; f < RK_ROW_FORMAT_COUNT; f++)
        for (int repeat = 0; repeat < 8; repeat++) {
            const size_t dim = random_between(&random, 1, 200), count = random_between(&random, 2, MAX_COUNT);
            const size_t cut = random_between(&random, 0, count);
            const bool weighted = repeat % 2;
            trial_fill(&trial, &random, (enum rk_row_format)f, dim, count, weighted, false, false);
            size_t index = 0;
            for (const struct rk_kernel_variant *v; (v = next_variant(kernel_of((enum rk_row_format)f), &index));) {
                float out[MAX_DIM];
                rk_pool_fn *pool = (rk_pool_fn *)v->function;
                pool(trial.addresses, weighted ? trial.weights : NULL, cut, dim, false, out);
                pool(trial.addresses + cut, weighted ? trial.weights + cut : NULL, count - cut, dim, true, out);
                for (size_t d = 0; d < dim; d++)
                    cr_assert(same_bits(out[d], trial.expected[d]), "%s %s cut at %zu of %zu: [%zu] is %.9g, not %.9g",
                              v->kernel, rk_isa_name(v->isa), cut, count, d, (double)out[d], (double)trial.expected[d]);
            }
        }
    trial_destroy(&trial);
}

/* ---- pruned tables ---- */

Test(pool, kept_rows_are_found_and_dropped_ones_are_the_last)
{
    struct random random = random_from_seed();
    enum { BLOCKS = 5, IDS = BLOCKS * 448 };
    uint64_t blocks[BLOCKS][8] = {0}, expected[IDS], rows[IDS], kept = 0;
    int64_t ids[IDS];
    for (int id = 0; id < IDS; id++) {
        ids[id] = id;
        if (id % 448 == 0)
            blocks[id / 448][0] = kept;
        const bool keep = random_below(&random, 3) > 0 || id % 64 == 63;
        expected[id] = keep ? kept : UINT64_MAX;
        kept += keep;
        blocks[id / 448][1 + id % 448 / 64] |= (uint64_t)keep << id % 64;
    }
    size_t index = 0;
    for (const struct rk_kernel_variant *v; (v = next_variant("kept_rows", &index)) != NULL;) {
        memset(rows, 0xff, sizeof rows);
        ((rk_kept_rows_fn *)v->function)((const uint64_t(*)[8])blocks, kept, ids, IDS, rows);
        for (int id = 0; id < IDS; id++)
            cr_assert_eq(rows[id], expected[id] < kept ? expected[id] : kept, "%s: id %d lies at %llu, expected %llu",
                         rk_isa_name(v->isa), id, (unsigned long long)rows[id], (unsigned long long)expected[id]);
        /* Counts that lie lead to the last row, never past it. */
        ((rk_kept_rows_fn *)v->function)((const uint64_t(*)[8])blocks, 7, ids, IDS, rows);
        for (int id = 0; id < IDS; id++)
            cr_assert_leq(rows[id], 7, "%s: id %d", rk_isa_name(v->isa), id);
    }
}
