/* Text before the place, in one error. Any thread. */
#include "server/yaml_error.h"

#include <stdarg.h>
#include <stdio.h>

enum rk_status rk_yaml_fail(struct rk_error *error, const char *name, yaml_mark_t mark, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return rk_error_set(error, RK_INVALID, "%.200s:%zu:%zu: %s", name, mark.line + 1, mark.column + 1, text);
}
