/* The pairwise dot products: every variant gives the scalar one's very bits, on vectors that end at inaccessible pages;
 * the scalar one keeps to a bound of float64 mathematics, and its bfloat16 step to the instruction it stands for. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "quant/bf16_dot.h"
#include "quant/dense.h"
#include "quant/kernels_list.h"
#include "tests/unit/random.h"

enum { MAX_COUNT = 70, MAX_DIM = 300, FRONT = 16, Z_FLOATS = FRONT + MAX_COUNT * (MAX_COUNT + 1) / 2 + RK_GRAM_SLACK };

/* One call of a kernel; `vectors` point to what the format's elements are. */
struct job {
    const void *vectors[MAX_COUNT];
    float scales[MAX_COUNT];
    uint32_t first, count, dim;
    bool self;
    void *scratch;
};

struct format {
    const char *kernel;
    size_t element_bytes;
    void (*scalar)(void);
    void (*run)(void (*function)(void), const struct job *job, float *z);
    void (*set)(void *element, float value); /* value in [-1, 1] */
    double (*get)(const void *element);
};

static void run_f32(void (*function)(void), const struct job *job, float *z)
{
    ((rk_gram_f32_fn *)function)((const float *const *)job->vectors, job->first, job->count, job->dim, job->self, z);
}

static void run_bf16(void (*function)(void), const struct job *job, float *z)
{
    ((rk_gram_bf16_fn *)function)((const uint16_t *const *)job->vectors, job->first, job->count, job->dim, job->self,
                                  z);
}

static void run_int8(void (*function)(void), const struct job *job, float *z)
{
    ((rk_gram_int8_fn *)function)((const int8_t *const *)job->vectors, job->scales, job->first, job->count, job->dim,
                                  job->self, job->scratch, z);
}

static void set_f32(void *element, float value)
{
    *(float *)element = value;
}

static void set_bf16(void *element, float value)
{
    *(uint16_t *)element = rk_bf16_from_f32(value);
}

static void set_int8(void *element, float value)
{
    *(int8_t *)element = (int8_t)lrintf(value * 128.0f - 0.5f); /* all of -128 .. 127 */
}

static double get_f32(const void *element)
{
    return (double)*(const float *)element;
}

static double get_bf16(const void *element)
{
    return (double)rk_bf16_to_f32(*(const uint16_t *)element);
}

static double get_int8(const void *element)
{
    return *(const int8_t *)element;
}

static const struct format formats[] = {
    {"gram_f32", 4, (void (*)(void))rk_gram_f32_scalar, run_f32, set_f32, get_f32},
    {"gram_bf16", 2, (void (*)(void))rk_gram_bf16_scalar, run_bf16, set_bf16, get_bf16},
    {"gram_int8", 1, (void (*)(void))rk_gram_int8_scalar, run_int8, set_int8, get_int8},
};
enum { NUM_FORMATS = sizeof formats / sizeof *formats };

static const struct rk_kernel_variant *next_variant(const char *kernel, size_t *index)
{
    size_t count;
    const struct rk_kernel_variant *variants = rk_kernel_variants(&count);
    while (*index < count) {
        const struct rk_kernel_variant *variant = &variants[(*index)++];
        if (strcmp(variant->kernel, kernel) == 0 && rk_isa_usable(variant->isa))
            return variant;
    }
    return NULL;
}

/* The end of `bytes` bytes after which comes a page that may not be touched. */
static unsigned char *guarded_end(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    unsigned char *mapping = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(mapping, MAP_FAILED);
    cr_assert_eq(mprotect(mapping + page, inner, PROT_READ | PROT_WRITE), 0);
    return mapping + page + inner;
}

static unsigned char *vector_end[MAX_COUNT], *scratch_end, *z_end;

static void setup(void)
{
    for (int i = 0; i < MAX_COUNT; i++)
        vector_end[i] = guarded_end((MAX_DIM + 63) * sizeof(float));
    scratch_end = guarded_end(rk_gram_scratch_bytes(MAX_COUNT, MAX_DIM));
    z_end = guarded_end(Z_FLOATS * sizeof(float));
}

TestSuite(gram, .init = setup);

/* Vectors that end, padding included, at their guard pages. */
static void *place_vector(struct job *job, const struct format *format, uint32_t i)
{
    const size_t bytes = (job->dim * format->element_bytes + 63) / 64 * 64;
    unsigned char *vector = vector_end[i] - bytes;
    memset(vector, 0, bytes);
    return vector;
}

static void fill_job(struct job *job, const struct format *format, struct random *random, float size)
{
    for (uint32_t i = 0; i < job->count; i++) {
        unsigned char *vector = place_vector(job, format, i);
        for (uint32_t d = 0; d < job->dim; d++)
            format->set(vector + d * format->element_bytes, size * random_float(random));
        job->vectors[i] = vector;
        job->scales[i] = random_float(random);
    }
    job->scratch = scratch_end - rk_gram_scratch_bytes(job->count, job->dim);
    memset(job->scratch, 0xa5, rk_gram_scratch_bytes(job->count, job->dim));
}

static struct job random_job(struct random *random)
{
    struct job job = {.count = (uint32_t)random_between(random, 1, MAX_COUNT),
                      .dim = (uint32_t)random_between(random, 1, MAX_DIM),
                      .self = random_below(random, 2)};
    job.first = random_below(random, 2) ? (uint32_t)random_below(random, job.count + 1) : 0;
    return job;
}

static size_t job_elements(const struct job *job)
{
    return rk_gram_elements(job->count, job->self) - rk_gram_elements(job->first, job->self);
}

/* Runs one variant into memory that ends RK_GRAM_SLACK floats past the result; what lies before must stay. */
static const float *run_guarded(const struct format *format, const struct rk_kernel_variant *variant,
                                const struct job *job)
{
    float *z = (float *)z_end - RK_GRAM_SLACK - job_elements(job);
    memset(z - FRONT, 0x7f, FRONT * sizeof *z);
    memset(z, 0xff, (job_elements(job) + RK_GRAM_SLACK) * sizeof *z);
    format->run(variant->function, job, z);
    for (int f = 1; f <= FRONT; f++) {
        uint32_t bits;
        memcpy(&bits, z - f, sizeof bits);
        cr_assert_eq(bits, 0x7f7f7f7fu, "%s %s wrote %d floats before z", variant->kernel, rk_isa_name(variant->isa),
                     f);
    }
    return z;
}

static void compare_with_scalar(const struct format *format, const struct job *job)
{
    static float expected[Z_FLOATS];
    format->run(format->scalar, job, expected);
    size_t index = 0;
    for (const struct rk_kernel_variant *v; (v = next_variant(format->kernel, &index)) != NULL;) {
        const float *z = run_guarded(format, v, job);
        for (size_t e = 0; e < job_elements(job); e++)
            cr_assert(memcmp(&z[e], &expected[e], sizeof *z) == 0 || (isnan(z[e]) && isnan(expected[e])),
                      "%s %s first %u count %u dim %u self %d: z[%zu] is %a, scalar gives %a", v->kernel,
                      rk_isa_name(v->isa), job->first, job->count, job->dim, job->self, e, (double)z[e],
                      (double)expected[e]);
    }
}

Test(gram, variants_equal_scalar_bit_for_bit_up_to_the_guard_pages)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 400; round++)
        for (int f = 0; f < NUM_FORMATS; f++) {
            struct job job = random_job(&random);
            fill_job(&job, &formats[f], &random, 1.0f);
            compare_with_scalar(&formats[f], &job);
        }
}

Test(gram, variants_equal_scalar_for_every_small_shape)
{
    struct random random = random_from_seed();
    for (uint32_t count = 1; count <= 37; count++)
        for (uint32_t first = 0; first <= count; first++)
            for (int self = 0; self < 2; self++)
                for (int f = 0; f < NUM_FORMATS; f++) {
                    struct job job = {.first = first,
                                      .count = count,
                                      .dim = (uint32_t)random_between(&random, 1, 70),
                                      .self = self};
                    fill_job(&job, &formats[f], &random, 1.0f);
                    compare_with_scalar(&formats[f], &job);
                }
}

Test(gram, variants_equal_scalar_where_numbers_become_subnormal)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 60; round++)
        for (int f = 0; f < 2; f++) {
            struct job job = random_job(&random);
            const float sizes[] = {0x1p-60f, 0x1p-63f, 0x1p-66f, 0x1p-72f, 0x1p-126f, 0x1p-130f};
            fill_job(&job, &formats[f], &random, sizes[round % 6]);
            if (round % 6 >= 4) /* against large ones */
                for (uint32_t d = 0; d < job.dim; d++)
                    formats[f].set((unsigned char *)job.vectors[job.count / 2] + d * formats[f].element_bytes,
                                   random_float(&random));
            compare_with_scalar(&formats[f], &job);
        }
}

Test(gram, variants_equal_scalar_with_infinities_and_nans_among_the_numbers)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 60; round++)
        for (int f = 0; f < 2; f++) {
            struct job job = random_job(&random);
            fill_job(&job, &formats[f], &random, 1.0f);
            const float odd[] = {INFINITY, -INFINITY, NAN, -0.0f, 3e38f};
            for (int i = 0; i < 5; i++)
                formats[f].set((unsigned char *)job.vectors[random_below(&random, job.count)] +
                                   random_below(&random, job.dim) * formats[f].element_bytes,
                               odd[i]);
            compare_with_scalar(&formats[f], &job);
        }
}

Test(gram, int8_takes_the_extremes)
{
    const struct format *format = &formats[2];
    static const int8_t extremes[] = {-128, -127, 127, 0};
    for (int a = 0; a < 4; a++)
        for (int b = 0; b < 4; b++) {
            struct job job = {.count = 21, .dim = 299, .self = true};
            for (uint32_t i = 0; i < job.count; i++) {
                int8_t *vector = place_vector(&job, format, i);
                memset(vector, extremes[i % 2 ? a : b], job.dim);
                job.vectors[i] = vector;
                job.scales[i] = 1.0f;
            }
            job.scratch = scratch_end - rk_gram_scratch_bytes(job.count, job.dim);
            size_t index = 0;
            for (const struct rk_kernel_variant *v; (v = next_variant(format->kernel, &index)) != NULL;) {
                const float *z = run_guarded(format, v, &job);
                for (uint32_t i = 0; i < job.count; i++)
                    for (uint32_t j = 0; j <= i; j++, z++) {
                        const int expected = (int)job.dim * extremes[i % 2 ? a : b] * extremes[j % 2 ? a : b];
                        cr_assert_eq(*z, (float)expected, "%s [%u][%u]: %g instead of %d", rk_isa_name(v->isa), i, j,
                                     (double)*z, expected);
                    }
            }
        }
}

/* A chain of n roundings, each of half a unit in 2^24, of partial sums that are no larger than the sum of magnitudes.
 */
Test(gram, sums_keep_to_float64_within_the_bound)
{
    struct random random = random_from_seed();
    for (int round = 0; round < 100; round++)
        for (int f = 0; f < NUM_FORMATS; f++) {
            const struct format *format = &formats[f];
            struct job job = random_job(&random);
            fill_job(&job, format, &random, 1.0f);
            static float results[Z_FLOATS];
            format->run(format->scalar, &job, results);
            const float *z = results;
            const double roundings = 4 + 2 * ((job.dim + 15) / 16);
            for (uint32_t i = job.first; i < job.count; i++)
                for (uint32_t j = 0; j < i + job.self; j++, z++) {
                    double exact = 0.0, size = 0.0;
                    for (uint32_t d = 0; d < job.dim; d++) {
                        const double product =
                            format->get((const unsigned char *)job.vectors[i] + d * format->element_bytes) *
                            format->get((const unsigned char *)job.vectors[j] + d * format->element_bytes);
                        exact += product;
                        size += fabs(product);
                    }
                    double bound = roundings * 0x1p-24 * size;
                    if (f == 2) { /* the integer sum to float, the product of scales, their product */
                        const double scale = (double)job.scales[i] * (double)job.scales[j];
                        exact *= scale;
                        bound = 3.01 * 0x1p-24 * fabs(exact);
                    }
                    cr_assert(fabs((double)*z - exact) <= bound, "%s dim %u [%u][%u]: %.9g, exactly %.9g",
                              format->kernel, job.dim, i, j, (double)*z, exact);
                }
        }
}

Test(gram, no_vectors_or_no_rows_write_no_result)
{
    for (int f = 0; f < NUM_FORMATS; f++) {
        size_t index = 0;
        for (const struct rk_kernel_variant *v; (v = next_variant(formats[f].kernel, &index)) != NULL;) {
            struct job job = {.dim = 16, .scratch = scratch_end};
            run_guarded(&formats[f], v, &job);
        }
    }
}

#ifdef __x86_64__
__attribute__((target("avx512f,avx512bf16"))) static float dot_by_instruction(float sum, uint32_t a, uint32_t b)
{
    return _mm512_cvtss_f32(_mm512_dpbf16_ps(_mm512_set1_ps(sum), (__m512bh)_mm512_set1_epi32((int)a),
                                             (__m512bh)_mm512_set1_epi32((int)b)));
}

static void compare_with_instruction(uint32_t sum_bits, uint32_t a, uint32_t b)
{
    const float sum = rk_bf16_dot_operand(sum_bits), result = rk_bf16_dot(sum, a, b),
                expected = dot_by_instruction(sum, a, b);
    cr_assert(memcmp(&result, &expected, sizeof result) == 0 || (isnan(result) && isnan(expected)),
              "%a + %08x . %08x: %a, the instruction gives %a", (double)sum, a, b, (double)result, (double)expected);
}

Test(gram, a_bf16_step_is_what_the_instruction_computes)
{
    if (!rk_isa_usable(RK_ISA_AVX512_BF16))
        cr_skip_test("no VDPBF16PS here");
    struct random random = random_from_seed();
    for (int i = 0; i < 1000000; i++) {
        uint32_t sum = (uint32_t)random_next(&random), a = (uint32_t)random_next(&random),
                 b = (uint32_t)random_next(&random);
        compare_with_instruction(sum, a, b);
        compare_with_instruction(sum & 0x80ffffff, a & 0x9fff9fff, b & 0x9fff9fff); /* near 2^-126 */
        compare_with_instruction(sum & 0x83ffffff, a & 0xbfffbfff, a & 0xbfffbfff); /* products cancel */
    }
    /* 2^-126 less 2^-150 is subnormal with 24 bits and unending exponents, less 2^-151 rounds up to 2^-126. */
    compare_with_instruction(0x00800000, 0x00003f80u - (75u << 7), 0x0000bf80u - (75u << 7));
    compare_with_instruction(0x00800000, 0x00003f80u - (75u << 7), 0x0000bf80u - (76u << 7));
}
#endif
