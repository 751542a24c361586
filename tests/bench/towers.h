/* The tower that bench_towers measures, and others' ways to compute it. */
#ifndef RANKD_TESTS_BENCH_TOWERS_H
#define RANKD_TESTS_BENCH_TOWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/dense.h"

enum { NUM_LAYERS = 5, MAX_WIDTH = 1024 };

/* ReLU behind all layers but the last. */
struct tower {
    uint32_t widths[NUM_LAYERS + 1];
    float *weights[NUM_LAYERS], *bias[NUM_LAYERS]; /* [out][in], [out] */
    float high[NUM_LAYERS];                        /* inputs are within [0, high] */
};

/* One way to compute it for one batch. */
struct contender {
    const char *name;
    void (*run)(void *state); /* one batch */
    void *state;
    const float *scores; /* what it wrote, [batch], score_stride floats apart */
    size_t score_stride;
};

/* 64-byte aligned zeros; ends the program when there is no memory. */
void *bench_memory(size_t bytes);

/* x: [batch][widths[0]]. Both stay with the caller. False when it cannot be had. */
bool onednn_create(const struct tower *tower, enum rk_dense_format format, bool matmul, const float *x, uint32_t batch,
                   struct contender *contender);
void onednn_destroy(struct contender *contender);
bool openblas_create(const struct tower *tower, bool by_row, const float *x, uint32_t batch,
                     struct contender *contender);
void openblas_destroy(struct contender *contender);

/* Everybody computes on one core. */
void rivals_use_one_thread(void);

#endif
