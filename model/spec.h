/* What a model is: plain data, read from a manifest or from an importer's config.json, checked as a whole by
 * rk_model_spec_check(), and immutable from then on. */
#ifndef RANKD_MODEL_SPEC_H
#define RANKD_MODEL_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "embeddings/table.h"
#include "model/value.h"
#include "quant/base/arena.h"
#include "quant/base/status.h"
#include "quant/dense.h"

/* Bounds that every model keeps, so that no product of them overflows 64 bits. */
#define RK_MAX_TABLES     4096u
#define RK_MAX_FEATURES   4096u
#define RK_MAX_SHARDS     65536u     /* per table */
#define RK_MAX_LAYERS     64u        /* per MLP, and of a cross network */
#define RK_MAX_WIDTH      (1u << 20) /* of any layer, table row or interaction */
#define RK_MAX_HEADS      64u
#define RK_MAX_VALUES     64u  /* value models */
#define RK_MAX_NAME_BYTES 128u /* names are printable UTF-8 without control characters */
#define RK_MAX_ROWS       ((uint64_t)1 << 48)

/* Bytes of the printable UTF-8 character at `text`, or 0: controls (C0, DEL, C1), overlong forms, surrogates and what
 * lies past U+10FFFF are none. */
size_t rk_printable_bytes(const char *text);

enum rk_side { RK_SIDE_CONTEXT, RK_SIDE_CANDIDATE };
enum rk_pooling { RK_POOLING_SUM, RK_POOLING_MEAN };

/* One embedding bag per row: which table it reads and how. Weighted bags pool by sum. */
struct rk_feature_spec {
    const char *name;
    uint32_t table; /* index into tables; several features may read one table */
    enum rk_side side;
    enum rk_pooling pooling;
    bool weighted;
};

/* A dense matrix or vector in the weights file: row-major, starting at a multiple of 64 bytes. Weights are in the
 * format of their layer, everything else is float32. */
struct rk_tensor_spec {
    uint32_t rows, columns; /* a bias has rows = 1 */
    uint64_t offset;        /* bytes from the start of the weights file */
};

/* y = W x + b with W [out, in], in one of the dense formats (quant/dense.h). */
struct rk_linear_spec {
    struct rk_tensor_spec weight, bias; /* bias [1, out]; rows = 0: there is none (V of a cross layer) */
    enum rk_dense_format format;
    struct rk_tensor_spec scale; /* int8: [1, out] */
    struct rk_tensor_spec gain;  /* int8: [1, in], each input is multiplied by its gain before it is
                                    rounded; rows = 0: there is none */
    /* int8: inputs are taken to lie in [low, high], low <= 0 <= high; otherwise each row has its own range */
    bool calibrated;
    float low, high;
};

struct rk_mlp_spec {
    const struct rk_linear_spec *layers;
    uint32_t num_layers;
};

enum rk_interaction_op { RK_INTERACTION_DOT, RK_INTERACTION_CAT, RK_INTERACTION_DCN_V2 };
enum rk_pairs { RK_PAIRS_TRIL, RK_PAIRS_TRIU };

/* One low-rank cross layer: x = x0 * (W (V x) + b) + x (DCN-V2, https://arxiv.org/abs/2008.13535, section 3). */
struct rk_cross_spec {
    struct rk_linear_spec v, w; /* V [rank, width] without bias, W [width, rank] with b */
};

struct rk_interaction_spec {
    enum rk_interaction_op op;
    enum rk_pairs pairs; /* dot: row by row, tril takes j < i, triu takes j > i */
    bool self;           /* dot: adds i = j */
    /* dot: in what the vectors are multiplied; int8: each vector symmetric, scale max / 127 */
    enum rk_dense_format format;
    const struct rk_cross_spec *cross; /* dcn_v2 */
    uint32_t num_cross, rank;
};

/* Of one head: probability = sigmoid(scale * logit + shift), scale > 0 (Platt 1999, "Probabilistic Outputs for Support
 * Vector Machines"). */
struct rk_calibration {
    float scale, shift;
};

struct rk_model_spec {
    const char *name;
    const char *const *context_dense,
        *const *candidate_dense; /* names of the dense inputs; the bottom MLP reads context first */
    uint32_t num_context_dense, num_candidate_dense;
    const struct rk_table_spec *tables;
    uint32_t num_tables;
    const struct rk_feature_spec *features; /* in interaction order */
    uint32_t num_features;
    struct rk_mlp_spec bottom, top; /* ReLU after every bottom layer and every top layer but the last */
    struct rk_interaction_spec interaction;
    const char *const *heads; /* the top MLP's last layer gives one logit each */
    uint32_t num_heads;
    const struct rk_calibration *calibration;  /* [num_heads]; NULL: scale 1, shift 0 */
    const struct rk_value_model *value_models; /* formulas that requests may name */
    uint32_t num_value_models;
    const struct rk_value_model *default_value; /* one of them, for requests that name none; NULL: they get no values */
    const char *weights_file;                   /* one path component */
    uint64_t weights_bytes, weights_xxh3;
};

/* The parts of a model that have linear layers, in the order of the weights file. In the file, each cross layer's w
 * follows its v. */
enum rk_stage { RK_STAGE_BOTTOM, RK_STAGE_CROSS_V, RK_STAGE_CROSS_W, RK_STAGE_TOP, RK_STAGE_COUNT };

/* A linear layer and its place in the model. */
struct rk_layer_use {
    const struct rk_linear_spec *layer;
    enum rk_stage stage;
    uint32_t index; /* within its stage */
};
#define RK_MAX_LAYER_USES (4 * RK_MAX_LAYERS)

/* All linear layers in the order of the weights file; returns their number. Counts must be within their bounds. */
size_t rk_model_spec_layers(const struct rk_model_spec *spec, struct rk_layer_use uses[RK_MAX_LAYER_USES]);

enum rk_tensor_part { RK_TENSOR_WEIGHT, RK_TENSOR_SCALE, RK_TENSOR_GAIN, RK_TENSOR_BIAS, RK_TENSOR_PART_COUNT };

/* A tensor of the weights file and what it is there for. */
struct rk_tensor_use {
    const struct rk_tensor_spec *tensor;
    struct rk_layer_use layer;
    enum rk_tensor_part part;
    enum rk_dense_format format; /* of its elements; scales and biases are float32 */
    uint64_t bytes;
};
#define RK_MAX_TENSOR_USES (RK_TENSOR_PART_COUNT * RK_MAX_LAYER_USES)

/* All tensors in the order of the weights file, each layer's weight, scale, gain and bias; returns their number.
 * Formats and sizes must be within their bounds. */
size_t rk_model_spec_tensors(const struct rk_model_spec *spec, struct rk_tensor_use uses[RK_MAX_TENSOR_USES]);

/* "bottom_mlp[2].scale", "interaction.cross[0].v_scale": the tensor's name in error texts. Returns `name`. */
#define RK_TENSOR_NAME_BYTES 48
const char *rk_tensor_use_name(const struct rk_tensor_use *use, char name[RK_TENSOR_NAME_BYTES]);

/* Widths that follow from a checked spec. */
struct rk_model_widths {
    uint32_t dense;       /* num_context_dense + num_candidate_dense */
    uint32_t bottom_out;  /* the bottom MLP's output; = dense when it has no layers */
    uint32_t pooled;      /* the sum of all features' dims */
    uint32_t num_vectors; /* dot: features, and the bottom output if there is one */
    uint32_t top_in;      /* what the top MLP reads */
};

/* Checks everything that can be checked without the files: names (unique, printable), indexes, bounds, layer shapes
 * that chain, formats, the interaction's width against the top MLP's input, dims equal under `dot`, weighted only with
 * sum, shards that cover their table once, tensor ranges inside the weights file, 64-byte aligned, not overlapping,
 * without trailing bytes. RK_INVALID with a text that names the field, the value and what would be right. */
enum rk_status rk_model_spec_check(const struct rk_model_spec *spec, struct rk_error *error);

/* Only for a checked spec. */
struct rk_model_widths rk_model_spec_widths(const struct rk_model_spec *spec);

/* "int8/int4 rows, fp32/int8 towers", in `text`, cut off at size bytes. Returns it. Only for a checked spec. */
const char *rk_model_spec_formats(const struct rk_model_spec *spec, char *text, size_t size);

/* What a request costs: for `inspect` and for capacity planning. Bytes assume ids_per_feature rows per bag. */
struct rk_model_cost {
    uint64_t multiply_adds;                  /* of a request of one candidate: towers and interaction */
    uint64_t context_multiply_adds;          /* of these, done once per request however many candidates it has */
    uint64_t weight_bytes;                   /* tower weights, read once per batch */
    uint64_t context_bytes, candidate_bytes; /* rows read per request, and per candidate */
};
struct rk_model_cost rk_model_spec_cost(const struct rk_model_spec *spec, double ids_per_feature);

#endif
