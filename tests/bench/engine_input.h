/* What benchmarks of the engine run: a model, and batches made from a file of requests. Failures end the program. */
#ifndef RANKD_TESTS_BENCH_ENGINE_INPUT_H
#define RANKD_TESTS_BENCH_ENGINE_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/engine.h"
#include "tests/bench/program.h"

/* Zeros that live until the end. */
void *bench_array(size_t count, size_t bytes);

/* Checked, its rows in huge pages or mapped. */
struct rk_model *bench_model(const char *path, bool huge_pages);

struct bench_row {
    const unsigned char *address;
    uint32_t bytes;
};

struct bench_batch {
    struct rk_request request;
    struct bench_row *rows; /* that it reads, the context's once */
    size_t num_rows;
    uint64_t row_bytes, elements; /* of these rows */
};

struct bench_batches {
    const struct rk_model *model;
    uint32_t size; /* candidates of each */
    struct bench_batch *list;
    size_t count, next;
    float *logits; /* [size][heads] */
};

/* Up to `most` batches of exactly `size` candidates under one context each; where a request of the file has fewer,
 * candidates of the next ones join in. */
struct bench_batches bench_batches(const struct rk_model *model, const char *requests, uint32_t size, size_t most);
/* The same with empty bags: all but the lookups is left to do. */
struct bench_batches bench_without_ids(const struct bench_batches *batches);
/* The same with ids of a few rows only, which stay in cache: the arithmetic of the lookups is left. For tables that
 * keep all rows. */
struct bench_batches bench_few_ids(const struct bench_batches *batches);

/* Each goes on, batch after batch, for `seconds` of this thread's time, and returns the microseconds of one batch. */
double bench_run(struct rk_engine *engine, struct bench_batches *batches, double seconds);
/* Prefetches and reads one word of each cache line of the rows, and computes nothing: what memory takes at least. */
double bench_gather(struct bench_batches *batches, double seconds);
/* Pools all bags, in tiles of the engine's size, and nothing else. */
double bench_lookup(struct bench_batches *batches, double seconds);

/* Where the time of one batch goes, in microseconds. */
struct bench_cost {
    double lookup_us, interaction_us, towers_us, rest_us;
};
struct bench_cost bench_cost(struct rk_engine *engine, struct bench_batches *batches, double seconds);

/* What cannot be avoided, once per request and once per candidate: multiply-adds in each format, and bytes read. */
struct bench_need {
    double macs[RK_DENSE_FORMAT_COUNT], bytes;
};
struct bench_stage {
    struct bench_need request, candidate;
};
struct bench_work {
    struct bench_stage interaction, towers; /* the interaction's cross layers are not the towers' */
};
/* The bytes are those of weights, which each batch reads once, and of the vectors that dot multiplies. */
struct bench_work bench_work(const struct rk_model_spec *spec);

#endif
