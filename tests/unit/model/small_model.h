/* Models made in the test's own memory: the spec as plain, changeable data, weights in an array, rows in files of a
 * temporary folder. It stands in for model/model.c (which reads packages), so that specs, requests and the engine are
 * tested without a package. */
#ifndef RANKD_TESTS_UNIT_MODEL_SMALL_MODEL_H
#define RANKD_TESTS_UNIT_MODEL_SMALL_MODEL_H

#include "model/model.h"
#include "model/request.h"
#include "tests/unit/embeddings/folder.h"
#include "tests/unit/random.h"

enum { SMALL_MAX = 8 }; /* tables, features, layers, cross layers */

/* What can be chosen; everything else follows. */
struct small_shape {
    uint32_t context_dense, candidate_dense;
    uint32_t num_tables;
    struct {
        uint32_t rows, dim, num_shards; /* 0 shards: 1 */
        enum rk_out_of_range out_of_range;
        enum rk_row_format format;
    } tables[SMALL_MAX];
    uint32_t num_features;
    struct rk_feature_spec features[SMALL_MAX]; /* names are filled in: "f0", "f1", ... */
    uint32_t num_bottom, bottom[SMALL_MAX];     /* widths of the layers */
    uint32_t num_hidden, hidden[SMALL_MAX];     /* top layers before the last */
    uint32_t num_heads;
    enum rk_interaction_op op;
    enum rk_pairs pairs;
    bool self;
    uint32_t num_cross, rank;
    enum rk_dense_format bottom_format[SMALL_MAX], top_format[SMALL_MAX + 1], cross_format[SMALL_MAX], vector_format;
    bool calibrated; /* int8 layers: to the range from -4 to 4 */
    bool gains;      /* int8 layers of the MLPs have a gain for each input */
};

struct rk_model {
    struct rk_model_spec spec;
    struct rk_arena arena;
    /* The spec's arrays, changeable. */
    struct rk_table_spec *table_specs;
    struct rk_shard_spec *shards[SMALL_MAX];
    struct rk_feature_spec *features;
    struct rk_linear_spec *bottom, *top;
    struct rk_cross_spec *cross;
    const char **heads, **context_dense, **candidate_dense;

    unsigned char *weights;
    struct rk_towers *towers;
    float *rows[SMALL_MAX]; /* as they decode */
    struct rk_table *tables[SMALL_MAX];
    struct folder folder;
    bool opened, damaged;
};

/* The spec alone: valid, with every tensor in its place. */
void small_model_describe(struct rk_model *model, const struct small_shape *shape);
/* Random weights and rows, and the tables opened. */
void small_model_open(struct rk_model *model, struct random *random);
/* After a change of the weights. */
void small_model_pack(struct rk_model *model);
void small_model_close(struct rk_model *model);

/* Any shape that a model may have, all in float32. */
struct small_shape small_shape_random(struct random *random);
/* Random formats for everything that can have one. */
void small_shape_quantise(struct small_shape *shape, struct random *random);
/* One of each kind of interaction with everything in it. */
struct small_shape small_shape_typical(enum rk_interaction_op op);

/* A valid request with random bags; `lengths`: of every bag, or UINT32_MAX for random ones. Lives in the arena. */
struct rk_named_request small_request(const struct rk_model_spec *spec, uint32_t num_candidates, uint32_t lengths,
                                      struct random *random, struct rk_arena *arena);

/* small_request() bound to the model. */
struct rk_request small_bound_request(const struct rk_model_spec *spec, uint32_t num_candidates, uint32_t lengths,
                                      struct random *random, struct rk_arena *arena);

#endif
