/* What is wrong in a YAML file that an operator wrote, and where. */
#ifndef RANKD_SERVER_YAML_ERROR_H
#define RANKD_SERVER_YAML_ERROR_H

#include <yaml.h>

#include "quant/base/status.h"

/* RK_INVALID with "name:line:column: <text>"; the mark is libyaml's, which counts from 0. */
enum rk_status rk_yaml_fail(struct rk_error *error, const char *name, yaml_mark_t mark, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
