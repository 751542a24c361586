/* The configuration file: a flat YAML mapping of option names to values. */
#ifndef RANKD_SERVER_CONFIG_YAML_H
#define RANKD_SERVER_CONFIG_YAML_H

#include "server/options.h"

/* Reads `path` into options. Errors read "path:line:column: what is wrong; what is allowed" (RK_INVALID), or name the
 * file (RK_NOT_FOUND, RK_IO). Options that the file does not mention stay as they are. */
enum rk_status rk_config_read(const char *path, struct rk_options *options, struct rk_error *error);

/* The same from memory; `name` stands in the errors. */
enum rk_status rk_config_parse(const char *name, const char *text, size_t length, struct rk_options *options,
                               struct rk_error *error);

#endif
