/* Error texts. An rk_error belongs to one thread at a time; nothing here allocates. */
#include "quant/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *rk_status_name(enum rk_status status)
{
    static const char *const names[RK_STATUS_COUNT] = {
        [RK_OK] = "ok",
        [RK_INVALID] = "invalid",
        [RK_NOT_FOUND] = "not found",
        [RK_EXISTS] = "exists already",
        [RK_EXHAUSTED] = "exhausted",
        [RK_CORRUPT] = "corrupt",
        [RK_UNSUPPORTED] = "unsupported",
        [RK_IO] = "i/o error",
        [RK_NO_MEMORY] = "out of memory",
        [RK_DEADLINE] = "deadline exceeded",
        [RK_CANCELLED] = "cancelled",
        [RK_UNAVAILABLE] = "unavailable",
        [RK_INTERNAL] = "internal error",
    };
    return (unsigned)status < RK_STATUS_COUNT ? names[status] : "unknown";
}

enum rk_status rk_error_set(struct rk_error *error, enum rk_status status, const char *format, ...)
{
    if (error == NULL || error->status != RK_OK)
        return status;
    error->status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return status;
}

enum rk_status rk_error_prefix(struct rk_error *error, const char *format, ...)
{
    if (error == NULL || error->status == RK_OK)
        return RK_OK;
    char prefix[sizeof error->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(prefix, sizeof prefix, format, arguments);
    va_end(arguments);
    char whole[2 * sizeof error->text + 2];
    snprintf(whole, sizeof whole, "%s: %s", prefix, error->text);
    memcpy(error->text, whole, sizeof error->text - 1);
    error->text[sizeof error->text - 1] = '\0';
    return error->status;
}

void rk_error_clear(struct rk_error *error)
{
    error->status = RK_OK;
    error->text[0] = '\0';
}
