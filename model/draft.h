/* A model that is about to become a package: its spec, and where each of its tensors comes from. The importer drafts
 * one from a config.json and a checkpoint, the synthesiser from shapes alone; the package writer turns a draft into
 * files. */
#ifndef RANKD_MODEL_DRAFT_H
#define RANKD_MODEL_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/packed_rows.h"
#include "model/safetensors.h"
#include "model/spec.h"

/* How a model's parts are named in a checkpoint: what config.json says. */
struct rk_config {
    struct rk_model_spec spec;               /* without layers, cross layers, shards and the weights file */
    struct rk_table_spec *tables;            /* = spec.tables */
    const char *const *table_tensors;        /* [spec.num_tables] */
    const enum rk_row_layout *table_layouts; /* [spec.num_tables]; RK_LAYOUT_NUMBERS only with fp32 */
    const char *const *bottom, *const *top;  /* layer names: NAME.weight, NAME.bias */
    uint32_t num_bottom, num_top;
    const char *cross; /* dcn_v2: PREFIX.V_kernels.k, PREFIX.W_kernels.k, PREFIX.bias.k */
};

struct rk_draft_tensor {
    const struct rk_tensor *source;
    uint64_t rows, columns;
    struct rk_tensor_spec *place; /* towers: its shape and offset in the weights file; NULL for a table */
    uint32_t table;
    enum rk_dense_format format; /* towers: of the elements that the packer asks for */
    enum rk_row_layout layout;   /* other than RK_LAYOUT_NUMBERS: the source has rows of the table's format */
};

struct rk_draft {
    struct rk_model_spec spec;
    struct rk_table_spec *tables;    /* = spec.tables */
    struct rk_draft_tensor *tensors; /* the towers' in the order of the weights file, then one per table */
    size_t num_tensors;
};

struct rk_shard_limits {
    uint64_t max_rows, max_bytes; /* of one file of rows; at least one row goes into each */
};
#define RK_SHARD_BYTES ((uint64_t)64 << 30) /* max_bytes where nobody says otherwise */

/* Cuts the stored rows of table number t into shards, in the arena. */
enum rk_status rk_draft_cut_shards(struct rk_table_spec *table, uint32_t t, const struct rk_shard_limits *limits,
                                   struct rk_arena *arena, struct rk_error *error);

/* Finds every tensor that the config names, checks shapes, lays out the weights file and the shards, and checks the
 * whole spec. Everything is in the arena. `config_file` and `weights_file` are for error texts, which name the field,
 * the tensor, its shape and names that look alike. */
enum rk_status rk_draft_create(const struct rk_config *config, const char *config_file, const struct rk_tensor *tensors,
                               size_t num_tensors, const char *weights_file, const struct rk_shard_limits *limits,
                               struct rk_arena *arena, struct rk_draft *draft, struct rk_error *error);

#endif
