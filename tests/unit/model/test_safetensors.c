/* Safetensors files: what is right is read to the bit, what is wrong is named. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "tests/unit/model/tiny_model.h"

TestSuite(safetensors, .timeout = 60);

static enum rk_status parse(const void *data, size_t bytes, struct rk_tensor *first, size_t *count,
                            struct rk_error *error)
{
    struct rk_arena arena;
    struct rk_tensor *tensors = NULL;
    rk_arena_init(&arena, 4096);
    enum rk_status status = rk_safetensors_parse("w.safetensors", data, bytes, &arena, &tensors, count, error);
    if (status == RK_OK && *count > 0 && first != NULL)
        *first = tensors[0];
    rk_arena_deinit(&arena);
    return status;
}

/* A file of the given header with data_bytes zeros behind it; parsed from memory of exactly its size. */
static enum rk_status parse_header(const char *header, size_t data_bytes, struct rk_error *error)
{
    size_t length = strlen(header), bytes = 8 + length + data_bytes, count;
    unsigned char *file = calloc(1, bytes);
    uint64_t header_bytes = length;
    memcpy(file, &header_bytes, 8);
    memcpy(file + 8, header, length);
    enum rk_status status = parse(file, bytes, NULL, &count, error);
    free(file);
    return status;
}

Test(safetensors, a_file_cut_at_any_byte_is_refused)
{
    size_t bytes, count;
    unsigned char *whole = tiny_safetensors(tiny_tensors, tiny_num_tensors, &bytes);
    struct rk_error error = {0};
    cr_assert_eq(parse(whole, bytes, NULL, &count, &error), RK_OK, "%s", error.text);
    cr_assert_eq(count, tiny_num_tensors, "%zu, expected %zu", count, tiny_num_tensors);
    for (size_t length = 0; length < bytes; length++) {
        unsigned char *part = malloc(length > 0 ? length : 1); /* exact, so that a read past the end is seen */
        memcpy(part, whole, length);
        error = (struct rk_error){0};
        enum rk_status status = parse(part, length, NULL, &count, &error);
        cr_assert_eq(status, RK_CORRUPT, "cut at %zu of %zu: %s '%s'", length, bytes, rk_status_name(status),
                     error.text);
        cr_assert_not_null(strstr(error.text, "w.safetensors"), "cut at %zu: '%s'", length, error.text);
        free(part);
    }
    free(whole);
}

Test(safetensors, trailing_bytes_are_refused)
{
    size_t bytes, count;
    unsigned char *whole = tiny_safetensors(tiny_tensors, tiny_num_tensors, &bytes);
    whole = realloc(whole, bytes + 1);
    whole[bytes] = 0;
    struct rk_error error = {0};
    cr_assert_eq(parse(whole, bytes + 1, NULL, &count, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, "1 bytes follow the last tensor"), "'%s'", error.text);
    free(whole);
}

Test(safetensors, hostile_headers_are_refused_with_a_reason)
{
#define TENSOR(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    static const struct {
        const char *header;
        size_t data_bytes;
        enum rk_status status;
        const char *text;
    } cases[] = {
        {"[]", 0, RK_CORRUPT, "does not begin with '{'"},
        {" {}", 0, RK_CORRUPT, "does not begin with '{'"},
        {"{", 0, RK_CORRUPT, "not valid JSON"},
        {"{}x", 0, RK_CORRUPT, "not valid JSON"},
        {"{\"a\":1}", 0, RK_CORRUPT, "a is a whole number, must be an object"},
        {"{\"a\":{}}", 0, RK_CORRUPT, "a.dtype is missing"},
        {"{\"\":" TENSOR("F32", "[1]", "[0,4]") "}", 4, RK_CORRUPT, "is not a name"},
        {"{\"a\\u001b[2J\":" TENSOR("F32", "[1]", "[0,4]") "}", 4, RK_CORRUPT, "is not a name"},
        {"{\"a\":" TENSOR("F33", "[1]", "[0,4]") "}", 4, RK_UNSUPPORTED, "a.dtype is 'F33'"},
        {"{\"a\":" TENSOR("F32", "1", "[0,4]") "}", 4, RK_CORRUPT, "a.shape is a whole number"},
        {"{\"a\":" TENSOR("F32", "[-1]", "[0,4]") "}", 4, RK_CORRUPT, "a.shape[0] is -1"},
        {"{\"a\":" TENSOR("F32", "[1.0]", "[0,4]") "}", 4, RK_CORRUPT, "a.shape[0] is a fraction"},
        {"{\"a\":" TENSOR("F32", "[9223372036854775808]", "[0,4]") "}", 4, RK_CORRUPT, "too big integer"},
        {"{\"a\":" TENSOR("F32", "[4294967296,4294967296]", "[0,4]") "}", 4, RK_CORRUPT, "more elements than 64 bits"},
        {"{\"a\":" TENSOR("F32", "[9223372036854775807]", "[0,4]") "}", 4, RK_CORRUPT,
         "not a possible number of bytes"},
        {"{\"a\":" TENSOR("F4", "[1]", "[0,1]") "}", 1, RK_CORRUPT, "not a possible number of bytes"},
        {"{\"a\":" TENSOR("F32", "[1]", "[0,8]") "}", 8, RK_CORRUPT, "the shape needs 4 bytes"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,4]") "}", 4, RK_CORRUPT, "the shape needs 8 bytes"},
        {"{\"a\":" TENSOR("F32", "[1]", "[4,0]") "}", 4, RK_CORRUPT, "spans [4, 0)"},
        {"{\"a\":" TENSOR("F32", "[1]", "[0,4]") "}", 3, RK_CORRUPT, "past the 3 bytes of data"},
        {"{\"a\":" TENSOR("F32", "[1]", "[0,4,8]") "}", 4, RK_CORRUPT, "has 3 items"},
        {"{\"a\":" TENSOR("F32", "[1]", "[9223372036854775804,9223372036854775807]") "}", 4, RK_CORRUPT, "past the 4"},
        {"{\"a\":" TENSOR("F32", "[1]", "[0,4]") ",\"a\":" TENSOR("F32", "[1]", "[4,8]") "}", 8, RK_CORRUPT,
         "duplicate"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") ",\"b\":" TENSOR("F32", "[1]", "[4,8]") "}", 8, RK_CORRUPT,
         "overlapping"},
        {"{\"a\":" TENSOR("F32", "[1]", "[0,4]") ",\"b\":" TENSOR("F32", "[1]", "[0,4]") "}", 4, RK_CORRUPT,
         "overlapping"},
        {"{\"a\":" TENSOR("F32", "[1]", "[0,4]") ",\"b\":" TENSOR("F32", "[1]", "[8,12]") "}", 12, RK_CORRUPT,
         "a hole from 4"},
        {"{\"a\":" TENSOR("F32", "[1]", "[4,8]") "}", 8, RK_CORRUPT, "a hole from 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"colour\":1}}", 4, RK_CORRUPT,
         "a.colour is not a known"},
        {"{\"__metadata__\":[]}", 0, RK_CORRUPT, "__metadata__ must be an object"},
        {"{\"a\":" TENSOR("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, RK_CORRUPT, "has 17 items"},
        {"{\"a\":[[[[[[[[", 4, RK_CORRUPT, "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_error error = {0};
        enum rk_status status = parse_header(cases[i].header, cases[i].data_bytes, &error);
        cr_expect_eq(status, cases[i].status, "%s: %s, expected %s", cases[i].header, rk_status_name(status),
                     rk_status_name(cases[i].status));
        cr_expect_not_null(strstr(error.text, cases[i].text), "%s: '%s', expected '%s' in it", cases[i].header,
                           error.text, cases[i].text);
    }
    struct rk_error error = {0};
    cr_expect_eq(parse_header("{\"z\":" TENSOR("F32", "[0]", "[0,0]") ",\"s\":" TENSOR("F32", "[]", "[0,4]") "}", 4,
                              &error),
                 RK_OK, "%s", error.text);
}

Test(safetensors, nesting_without_end_is_refused)
{
    char *header = malloc(1u << 20);
    memset(header, '[', (1u << 20) - 1);
    memcpy(header, "{\"a\":", 5);
    header[(1u << 20) - 1] = '\0';
    struct rk_error error = {0};
    cr_assert_eq(parse_header(header, 0, &error), RK_CORRUPT);
    cr_assert_not_null(strstr(error.text, "not valid JSON"), "'%s'", error.text);
    free(header);
}

Test(safetensors, a_header_longer_than_the_format_allows_is_refused)
{
    const struct {
        uint64_t length;
        const char *text;
    } cases[] = {{100000001, "above the format's limit"},
                 {UINT64_MAX, "above the format's limit"},
                 {9, "only 8 bytes follow"}};
    for (size_t i = 0; i < 3; i++) {
        unsigned char file[16] = {0};
        memcpy(file, &cases[i].length, 8);
        struct rk_error error = {0};
        size_t count;
        cr_expect_eq(parse(file, sizeof file, NULL, &count, &error), RK_CORRUPT);
        cr_expect_not_null(strstr(error.text, cases[i].text), "'%s'", error.text);
    }
}

/* binary16 from its definition, in double. */
static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = exponent == 31  ? (fraction == 0 ? INFINITY : NAN)
                   : exponent == 0 ? ldexp(fraction, -24)
                                   : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

Test(safetensors, every_half_is_converted_exactly)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const uint16_t half = (uint16_t)bits;
        const struct rk_tensor tensor = {.dtype = RK_DTYPE_F16, .data = &half};
        double wanted = half_value(half);
        float value;
        uint64_t done = rk_tensor_read(&tensor, 0, 1, &value);
        cr_assert_eq(done, isfinite(wanted) ? 1 : 0, "%04x", bits);
        if (!isnan(wanted))
            cr_assert_eq((double)value, wanted, "%04x: %a, expected %a", bits, (double)value, wanted);
    }
}

Test(safetensors, doubles_and_bfloats_become_floats_and_what_is_not_finite_stops)
{
    const double doubles[] = {0.1, -1e-300, 3e38, 1e39};
    const struct rk_tensor wide = {.dtype = RK_DTYPE_F64, .data = doubles};
    float values[4];
    cr_assert_eq(rk_tensor_read(&wide, 0, 4, values), 3, "1e39 does not fit a float32");
    cr_assert_eq(values[0], 0.1f);
    cr_assert_eq(values[1], 0.0f);
    const uint16_t bfloats[] = {0x3f80, 0xc049, 0x7f80};
    const struct rk_tensor brain = {.dtype = RK_DTYPE_BF16, .data = bfloats};
    cr_assert_eq(rk_tensor_read(&brain, 0, 3, values), 2);
    cr_assert_eq(values[0], 1.0f);
    cr_assert_eq(values[1], -3.140625f, "%a", (double)values[1]);
    const float floats[] = {1, 2, NAN};
    const struct rk_tensor plain = {.dtype = RK_DTYPE_F32, .data = floats};
    cr_assert_eq(rk_tensor_read(&plain, 1, 2, values), 1);
    cr_assert_eq(values[0], 2.0f);
}

/* ---- sharded sets ---- */

static struct tiny tiny;

static void setup(void)
{
    tiny_create(&tiny);
}

static void teardown(void)
{
    tiny_destroy(&tiny);
}

static enum rk_status open_set(const char *index, struct rk_error *error, size_t *count)
{
    char path[128];
    tiny_write(&tiny, "model.safetensors.index.json", index, strlen(index));
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", tiny.path);
    struct rk_safetensors *set = NULL;
    enum rk_status status = rk_safetensors_open(path, &set, error);
    if (status == RK_OK)
        rk_safetensors_tensors(set, count);
    rk_safetensors_close(set);
    return status;
}

static void write_part(const char *file, const char *tensor)
{
    const struct tiny_tensor one = {tensor, "F32", 1, {2}, NULL};
    size_t bytes;
    unsigned char *data = tiny_safetensors(&one, 1, &bytes);
    tiny_write(&tiny, file, data, bytes);
    free(data);
}

Test(safetensors, a_sharded_set_is_one_checkpoint, .init = setup, .fini = teardown)
{
    write_part("p1.safetensors", "a");
    write_part("p2.safetensors", "b");
    struct rk_error error = {0};
    size_t count = 0;
    cr_assert_eq(open_set("{\"metadata\": {\"total_size\": 16}, \"weight_map\": {\"a\": \"p1.safetensors\", \"b\": "
                          "\"p2.safetensors\"}}",
                          &error, &count),
                 RK_OK, "%s", error.text);
    cr_assert_eq(count, 2);
}

Test(safetensors, an_index_that_does_not_fit_its_files_is_refused, .init = setup, .fini = teardown)
{
    static const struct {
        const char *index, *text;
    } cases[] = {
        {"{}", "weight_map is missing"},
        {"{\"weight_map\": {}}", "weight_map must be an object"},
        {"{\"weight_map\": {\"a\": 1}}", "weight_map.a is a whole number"},
        {"{\"weight_map\": {\"a\": \"../p1.safetensors\"}}", "must be a file name beside the index"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "must be a file name beside the index"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "must be a file name beside the index"},
        {"{\"weight_map\": {\"a\": \"missing.safetensors\"}}", "missing.safetensors"},
        {"{\"weight_map\": {\"a\": \"link.safetensors\"}}", "link.safetensors"},
        {"{\"weight_map\": {\"a\": \"fifo.safetensors\"}}", "fifo.safetensors"},
        {"{\"weight_map\": {\"b\": \"p1.safetensors\"}}", "places tensor 'a' in no file"},
        {"{\"weight_map\": {\"a\": \"p1.safetensors\", \"c\": \"p1.safetensors\"}}", "which does not hold it"},
        {"{\"weight_map\": {\"a\": \"p1.safetensors\", \"b\": \"p1.safetensors\", \"x\": \"p2.safetensors\"}}",
         "tensor 'b'"},
        {"{\"weight_map\": {\"a\": \"p1.safetensors\"}, \"wieght\": 1}", "wieght is not a known field"},
    };
    char target[128], link[128], fifo[128];
    write_part("p1.safetensors", "a");
    write_part("p2.safetensors", "b");
    snprintf(target, sizeof target, "%s/p1.safetensors", tiny.path);
    snprintf(link, sizeof link, "%s/link.safetensors", tiny.path);
    snprintf(fifo, sizeof fifo, "%s/fifo.safetensors", tiny.path);
    cr_assert_eq(symlink(target, link), 0);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rk_error error = {0};
        size_t count;
        cr_expect_neq(open_set(cases[i].index, &error, &count), RK_OK, "%s", cases[i].index);
        cr_expect_not_null(strstr(error.text, cases[i].text), "%s: '%s', expected '%s' in it", cases[i].index,
                           error.text, cases[i].text);
    }
}
