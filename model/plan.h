/* A plan: what `rankpack quantize` is to make of a model. Written by `rankpack plan` or by hand, in JSON; the format is
 * described in model/FORMAT.md. */
#ifndef RANKD_MODEL_PLAN_H
#define RANKD_MODEL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/spec.h"
#include "quant/base/arena.h"
#include "quant/base/status.h"

#define RK_PLAN_FORMAT    "rankd-plan"
#define RK_PLAN_VERSION   1u
#define RK_PLAN_MAX_BYTES (256u << 20)

/* The parts of a model that have a dense format each. */
enum rk_plan_part { RK_PART_BOTTOM, RK_PART_INTERACTION, RK_PART_TOP, RK_PART_COUNT };
const char *rk_plan_part_name(enum rk_plan_part part); /* "bottom", "interaction", "top" */

/* Consecutive rows. */
struct rk_row_range {
    uint64_t first, count;
};

struct rk_table_plan {
    const char *name;
    bool has_format; /* without: the rows stay in the format they have */
    enum rk_row_format format;
    bool pruned; /* only the rows of `kept` stay */
    const struct rk_row_range *kept;
    size_t num_kept; /* ranges, in order, apart, not empty */
};

struct rk_part_plan {
    bool has_format; /* without: the part stays as it is */
    enum rk_dense_format format;
};

struct rk_plan {
    const char *model; /* the name of the model that it was made for; NULL: any */
    struct rk_part_plan parts[RK_PART_COUNT];
    const struct rk_table_plan *tables; /* those that change; each name once */
    uint32_t num_tables;
};

/* Parses the text into the arena. `file` is for error texts, which name the field, the value and what would be right.
 */
enum rk_status rk_plan_parse(const char *file, const char *text, size_t length, struct rk_arena *arena,
                             struct rk_plan *plan, struct rk_error *error);
/* Reads and parses a file. */
enum rk_status rk_plan_read(const char *path, struct rk_arena *arena, struct rk_plan *plan, struct rk_error *error);

/* The text of a plan, to be freed; NULL when memory runs out. */
char *rk_plan_print(const struct rk_plan *plan);

/* Does it fit the model: its name, tables that exist, rows that exist? */
enum rk_status rk_plan_check(const struct rk_plan *plan, const struct rk_model_spec *spec, struct rk_error *error);

/* A plan from command-line options. `rows`: a format for all tables, or a list NAME=FORMAT,... where NAME may be a
 * shell pattern; the first that matches a table decides. `towers`: a format for all, or a list PART=FORMAT,... Either
 * may be NULL. Errors say which word was wrong and what would be right. */
enum rk_status rk_plan_from_options(const struct rk_model_spec *spec, const char *rows, const char *towers,
                                    struct rk_arena *arena, struct rk_plan *plan, struct rk_error *error);

/* The plan of a table, or NULL: it stays as it is. */
const struct rk_table_plan *rk_plan_table(const struct rk_plan *plan, const char *name);

#endif
