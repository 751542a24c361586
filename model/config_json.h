/* config.json: how the tensors of a checkpoint fit together (the layout is described in model/FORMAT.md). */
#ifndef RANKD_MODEL_CONFIG_JSON_H
#define RANKD_MODEL_CONFIG_JSON_H

#include <stddef.h>

#include "model/draft.h"

#define RK_CONFIG_MAX_BYTES (64u << 20)

/* Parses the text into the arena. `file` names it in errors: RK_INVALID with the field, its value and what would be
 * right. */
enum rk_status rk_config_parse(const char *file, const char *text, size_t length, struct rk_arena *arena,
                               struct rk_config *config, struct rk_error *error);

/* Reads and parses the file at `path`, which must be a regular file of at most RK_CONFIG_MAX_BYTES. */
enum rk_status rk_config_read(const char *path, struct rk_arena *arena, struct rk_config *config,
                              struct rk_error *error);

#endif
