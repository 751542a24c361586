/* What a table is, before any file is opened: the check of its spec, and what becomes of ids outside. Plain functions
 * over plain data, for any thread. */
#include <string.h>

#include "embeddings/kept.h"
#include "embeddings/table.h"
#include "quant/base/checked.h"

static const char *const policies[RK_OUT_OF_RANGE_COUNT] = {
    [RK_OUT_OF_RANGE_REJECT] = "reject",
    [RK_OUT_OF_RANGE_MODULO] = "modulo",
    [RK_OUT_OF_RANGE_DEFAULT] = "default_row",
};

const char *rk_out_of_range_name(enum rk_out_of_range policy)
{
    return (unsigned)policy < RK_OUT_OF_RANGE_COUNT ? policies[policy] : "unknown";
}

bool rk_out_of_range_parse(const char *name, enum rk_out_of_range *policy)
{
    for (int p = 0; p < RK_OUT_OF_RANGE_COUNT; p++)
        if (strcmp(name, policies[p]) == 0) {
            *policy = (enum rk_out_of_range)p;
            return true;
        }
    return false;
}

static bool is_path_component(const char *name)
{
    return name != NULL && name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static enum rk_status check_kept(const struct rk_table_spec *spec, struct rk_error *error)
{
    if (spec->kept.file == NULL)
        return RK_OK;
    if (!is_path_component(spec->kept.file))
        return rk_error_set(error, RK_INVALID, "kept.file is '%.128s', not a plain file name", spec->kept.file);
    if (spec->kept.num_rows > spec->num_embeddings)
        return rk_error_set(error, RK_INVALID, "kept.rows is %llu, more than num_embeddings %llu",
                            (unsigned long long)spec->kept.num_rows, (unsigned long long)spec->num_embeddings);
    return RK_OK;
}

static enum rk_status check_shards(const struct rk_table_spec *spec, struct rk_error *error)
{
    const uint64_t stored = rk_table_spec_stored_rows(spec);
    uint64_t next = 0;
    for (uint32_t s = 0; s < spec->num_shards; s++) {
        const struct rk_shard_spec *shard = &spec->shards[s];
        if (!is_path_component(shard->file))
            return rk_error_set(error, RK_INVALID, "shards[%u].file is '%.128s', not a plain file name", s,
                                shard->file != NULL ? shard->file : "");
        if (shard->num_rows == 0)
            return rk_error_set(error, RK_INVALID, "shards[%u].num_rows is 0; every shard holds rows", s);
        if (shard->first_row != next)
            return rk_error_set(error, RK_INVALID,
                                "shards[%u].first_row is %llu where the shards before it end at %llu: a %s", s,
                                (unsigned long long)shard->first_row, (unsigned long long)next,
                                shard->first_row > next ? "gap" : "overlap");
        if (!rk_checked_add(next, shard->num_rows, &next) || next > stored)
            return rk_error_set(error, RK_INVALID,
                                "shards[%u].num_rows is %llu, which goes past the table's %llu stored rows", s,
                                (unsigned long long)shard->num_rows, (unsigned long long)stored);
    }
    if (next != stored)
        return rk_error_set(error, RK_INVALID, "the %u shards cover %llu of %llu rows", spec->num_shards,
                            (unsigned long long)next, (unsigned long long)stored);
    return RK_OK;
}

static enum rk_status check_spec(const struct rk_table_spec *spec, struct rk_error *error)
{
    if ((unsigned)spec->format >= RK_ROW_FORMAT_COUNT)
        return rk_error_set(error, RK_INVALID, "unknown row format %d", (int)spec->format);
    if ((unsigned)spec->out_of_range >= RK_OUT_OF_RANGE_COUNT)
        return rk_error_set(error, RK_INVALID, "unknown out-of-range policy %d", (int)spec->out_of_range);
    if (spec->embedding_dim == 0)
        return rk_error_set(error, RK_INVALID, "embedding_dim is 0");
    if (spec->num_embeddings == 0)
        return rk_error_set(error, RK_INVALID, "num_embeddings is 0");
    uint64_t bytes;
    if (!rk_checked_mul(spec->num_embeddings, rk_row_bytes(spec->format, spec->embedding_dim), &bytes) ||
        bytes > INT64_MAX)
        return rk_error_set(error, RK_INVALID,
                            "num_embeddings %llu with embedding_dim %u is more bytes than 64 bits count",
                            (unsigned long long)spec->num_embeddings, spec->embedding_dim);
    if (spec->out_of_range == RK_OUT_OF_RANGE_DEFAULT && spec->default_row >= spec->num_embeddings)
        return rk_error_set(error, RK_INVALID, "default_row %llu is not below num_embeddings %llu",
                            (unsigned long long)spec->default_row, (unsigned long long)spec->num_embeddings);
    const enum rk_status status = check_kept(spec, error);
    return status == RK_OK ? check_shards(spec, error) : status;
}

enum rk_status rk_table_spec_check(const struct rk_table_spec *spec, struct rk_error *error)
{
    enum rk_status status = check_spec(spec, error);
    if (status != RK_OK)
        rk_error_prefix(error, "table '%.128s'", spec->name != NULL ? spec->name : "");
    return status;
}

bool rk_table_resolve_outside(const struct rk_table_spec *spec, int64_t *id, uint64_t *out_of_range)
{
    ++*out_of_range;
    switch (spec->out_of_range) {
    case RK_OUT_OF_RANGE_MODULO:
        if (*id >= 0) {
            *id = (int64_t)((uint64_t)*id % spec->num_embeddings);
        } else {
            uint64_t below_zero = (uint64_t)(-1 - *id) % spec->num_embeddings; /* 0 for -1, 1 for -2, ... */
            *id = (int64_t)(spec->num_embeddings - 1 - below_zero);
        }
        return true;
    case RK_OUT_OF_RANGE_DEFAULT:
        *id = (int64_t)spec->default_row;
        return true;
    default:
        return false;
    }
}

uint64_t rk_table_spec_bytes(const struct rk_table_spec *spec)
{
    const uint64_t rows = rk_table_spec_stored_rows(spec) * rk_row_bytes(spec->format, spec->embedding_dim);
    return spec->kept.file == NULL ? rows
                                   : rows + rk_kept_num_blocks(spec->num_embeddings) * sizeof(struct rk_kept_block);
}
