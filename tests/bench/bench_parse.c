/* What reading a request costs: from the message's bytes to bags that the engine reads.
 *
 *   bench_parse [--features 26] [--ids 270,2700,8100] [--rounds 301] [--json]
 *
 * One core reads requests of so many features with so many ids each, by turns, round after round:
 *
 *   memcpy   the message's bytes copied, and nothing else
 *   decode   rk_rank_request_decode, as each Rank call does
 *   bind     rk_request_bind on what that gave: names, lengths, every id against its table
 *   varint   rk_message_decode of a ModelInferRequest whose int64_contents hold the same ids: what a packed array costs
 *            that is not of fixed width
 *
 * Medians over the rounds, nanoseconds per id. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/request.h"
#include "proto/inference.pb-c.h"
#include "proto/rank_codec.h"
#include "tests/bench/program.h"

enum { MAX_FEATURES = 1024, MAX_ROUNDS = 10001, CANDIDATES = 270, TABLE_ROWS = 1 << 20 };
enum contender { MEMCPY, DECODE, BIND, VARINT, NUM_CONTENDERS };

static const char *const contender_names[] = {"memcpy", "decode", "bind", "varint"};

/* One request in both encodings, and the model that it is for. */
struct input {
    uint32_t num_features, num_ids; /* of each feature */
    struct rk_model_spec spec;
    uint8_t *fixed, *varint, *copy;
    size_t fixed_bytes, varint_bytes;
    struct rk_arena memory; /* of all this */
};

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static int64_t next_id(void) /* splitmix64 */
{
    static uint64_t state = 1;
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    return (int64_t)((z ^ z >> 31) % TABLE_ROWS);
}

static void *array(struct input *input, size_t count, size_t bytes)
{
    void *memory = rk_arena_array(&input->memory, count, bytes);
    if (memory == NULL)
        bench_fail("out of memory", NULL);
    return memory;
}

static void make_spec(struct input *input)
{
    struct rk_table_spec *tables = array(input, input->num_features, sizeof *tables);
    struct rk_feature_spec *features = array(input, input->num_features, sizeof *features);
    for (uint32_t f = 0; f < input->num_features; f++) {
        const char *name = rk_arena_printf(&input->memory, "feature_%u", f);
        if (name == NULL)
            bench_fail("out of memory", NULL);
        tables[f] = (struct rk_table_spec){.name = name, .num_embeddings = TABLE_ROWS};
        features[f] = (struct rk_feature_spec){.name = name, .table = f, .side = RK_SIDE_CANDIDATE};
    }
    input->spec = (struct rk_model_spec){.name = "bench",
                                         .tables = tables,
                                         .num_tables = input->num_features,
                                         .features = features,
                                         .num_features = input->num_features};
}

static void encode(struct input *input)
{
    Rankd__V1__RankRequest request = RANKD__V1__RANK_REQUEST__INIT;
    Rankd__V1__Features candidates = RANKD__V1__FEATURES__INIT;
    Inference__ModelInferRequest infer = INFERENCE__MODEL_INFER_REQUEST__INIT;
    request.model = (char *)"bench";
    request.num_candidates = CANDIDATES;
    request.candidates = &candidates;
    candidates.n_ids = infer.n_inputs = input->num_features;
    candidates.ids = array(input, input->num_features, sizeof(void *));
    infer.inputs = array(input, input->num_features, sizeof(void *));
    for (uint32_t f = 0; f < input->num_features; f++) {
        Rankd__V1__JaggedIds *jagged = candidates.ids[f] = array(input, 1, sizeof *jagged);
        Inference__ModelInferRequest__InferInputTensor *tensor = infer.inputs[f] = array(input, 1, sizeof *tensor);
        rankd__v1__jagged_ids__init(jagged);
        inference__model_infer_request__infer_input_tensor__init(tensor);
        tensor->contents = array(input, 1, sizeof *tensor->contents);
        inference__infer_tensor_contents__init(tensor->contents);
        tensor->name = jagged->feature = (char *)input->spec.features[f].name;
        tensor->contents->n_int64_contents = jagged->n_ids = input->num_ids;
        tensor->contents->int64_contents = jagged->ids = array(input, input->num_ids, sizeof *jagged->ids);
        for (uint32_t i = 0; i < input->num_ids; i++)
            jagged->ids[i] = next_id();
    }
    if (rk_message_encode(&request.base, &input->memory, &input->fixed, &input->fixed_bytes) != RK_OK ||
        rk_message_encode(&infer.base, &input->memory, &input->varint, &input->varint_bytes) != RK_OK)
        bench_fail("out of memory", NULL);
    input->copy = array(input, input->fixed_bytes, 1);
}

/* ---- contenders: each goes once over all ids ---- */

static double time_memcpy(const struct input *input)
{
    const double start = now_ns();
    memcpy(input->copy, input->fixed, input->fixed_bytes);
    __asm__ volatile("" ::"r"(input->copy) : "memory");
    return now_ns() - start;
}

static void time_fixed(const struct input *input, struct rk_arena *arena, double *decode_ns, double *bind_ns)
{
    const struct rk_request_limits limits = {.max_candidates = CANDIDATES, .max_ids = UINT32_MAX};
    struct rk_error error = {0};
    Rankd__V1__RankRequest *message;
    struct rk_request bound;
    rk_arena_reset(arena, SIZE_MAX);
    double start = now_ns();
    if (rk_rank_request_decode(input->fixed, input->fixed_bytes, arena, &message, &error) != RK_OK)
        bench_fail("failed to decode", &error);
    *decode_ns = now_ns() - start;
    struct rk_named_bags *bags = rk_arena_array(arena, message->candidates->n_ids, sizeof *bags);
    if (bags == NULL)
        bench_fail("out of memory", NULL);
    for (size_t f = 0; f < message->candidates->n_ids; f++) {
        const Rankd__V1__JaggedIds *jagged = message->candidates->ids[f];
        bags[f] = (struct rk_named_bags){.name = jagged->feature,
                                         .name_bytes = strlen(jagged->feature),
                                         .ids = jagged->ids,
                                         .num_ids = jagged->n_ids};
    }
    const struct rk_named_request named = {.id = "",
                                           .candidates = {.features = bags, .num_features = input->num_features},
                                           .num_candidates = CANDIDATES};
    start = now_ns();
    if (rk_request_bind(&input->spec, &limits, &named, arena, &bound, &error) != RK_OK)
        bench_fail("failed to bind", &error);
    *bind_ns = now_ns() - start;
    if (bound.num_ids != (uint64_t)input->num_features * input->num_ids)
        bench_fail("some ids are missing", NULL);
}

static double time_varint(const struct input *input, struct rk_arena *arena)
{
    struct rk_error error = {0};
    ProtobufCMessage *message;
    rk_arena_reset(arena, SIZE_MAX);
    const double start = now_ns();
    if (rk_message_decode(&inference__model_infer_request__descriptor, input->varint, input->varint_bytes, arena,
                          &message, &error) != RK_OK)
        bench_fail("failed to decode", &error);
    return now_ns() - start;
}

/* ---- rounds ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const struct input *input, uint32_t rounds, double median[NUM_CONTENDERS])
{
    static double ns[NUM_CONTENDERS][MAX_ROUNDS];
    struct rk_arena arena;
    rk_arena_init(&arena, 128u << 10);
    for (uint32_t round = 0; round < rounds; round++) {
        ns[MEMCPY][round] = time_memcpy(input);
        time_fixed(input, &arena, &ns[DECODE][round], &ns[BIND][round]);
        ns[VARINT][round] = time_varint(input, &arena);
    }
    rk_arena_deinit(&arena);
    for (int c = 0; c < NUM_CONTENDERS; c++) {
        qsort(ns[c], rounds, sizeof ns[c][0], by_value);
        median[c] = ns[c][rounds / 2] / ((double)input->num_features * input->num_ids);
    }
}

int main(int argc, char **argv)
{
    uint32_t features = 26, rounds = 301;
    struct bench_counts ids = {{CANDIDATES, 10 * CANDIDATES, 30 * CANDIDATES}, 3};
    bool json = false;
    bench_options(argc, argv,
                  (const struct bench_option[]){
                      BENCH_OPTION_UP_TO(MAX_FEATURES, "features", BENCH_COUNT, &features, "features of a request"),
                      BENCH_OPTION_UP_TO(1u << 20, "ids", BENCH_COUNTS, &ids, "ids of each, a multiple of 270"),
                      BENCH_OPTION_UP_TO(MAX_ROUNDS, "rounds", BENCH_COUNT, &rounds, "times that each is measured"),
                      BENCH_OPTION("json", BENCH_FLAG, &json, "print JSON"), BENCH_OPTIONS_END});
    bench_pin(BENCH_THIS_CORE);
    json_t *list = json_array();
    if (!json) {
        printf("%u features; ns per id, medians of %u rounds\n%10s %10s", features, rounds, "ids", "KiB");
        for (int c = 0; c < NUM_CONTENDERS; c++)
            printf(" %10s", contender_names[c]);
        printf("\n");
    }
    for (uint32_t i = 0; i < ids.count; i++) {
        if (ids.list[i] % CANDIDATES != 0)
            bench_fail("ids must be a multiple of 270", NULL);
        struct input input = {.num_features = features, .num_ids = ids.list[i]};
        double ns[NUM_CONTENDERS];
        rk_arena_init(&input.memory, 1u << 20);
        make_spec(&input);
        encode(&input);
        measure(&input, rounds, ns);
        json_t *one = json_pack("{s:i, s:I}", "ids", (int)ids.list[i], "bytes", (json_int_t)input.fixed_bytes);
        if (!json)
            printf("%10u %10zu", ids.list[i], input.fixed_bytes / 1024);
        for (int c = 0; c < NUM_CONTENDERS; c++) {
            if (!json)
                printf(" %10.3f", ns[c]);
            json_object_set_new(one, contender_names[c], json_real(ns[c]));
        }
        if (!json)
            printf("\n");
        json_array_append_new(list, one);
        rk_arena_deinit(&input.memory);
    }
    json_t *all = json_pack("{s:s, s:i, s:i, s:o}", "bench", "parse", "rounds", (int)rounds, "features", (int)features,
                            "results", list);
    if (json && (all == NULL || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(4)) != 0))
        bench_fail("failed to print the results", NULL);
    json_decref(all);
    return 0;
}
