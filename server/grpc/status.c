/* The names of gRPC's status codes, and which of them a failure inside rankd becomes. Two tables; any thread. */
#include "server/grpc/status.h"

#include <stddef.h>

static const char *const names[] = {
    [RK_GRPC_OK] = "OK",
    [RK_GRPC_CANCELLED] = "CANCELLED",
    [RK_GRPC_UNKNOWN] = "UNKNOWN",
    [RK_GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [RK_GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [RK_GRPC_NOT_FOUND] = "NOT_FOUND",
    [RK_GRPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [RK_GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [RK_GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [RK_GRPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [RK_GRPC_ABORTED] = "ABORTED",
    [RK_GRPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [RK_GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [RK_GRPC_INTERNAL] = "INTERNAL",
    [RK_GRPC_UNAVAILABLE] = "UNAVAILABLE",
    [RK_GRPC_DATA_LOSS] = "DATA_LOSS",
    [RK_GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
};

static const enum rk_grpc_status told[RK_STATUS_COUNT] = {
    [RK_OK] = RK_GRPC_OK,
    [RK_INVALID] = RK_GRPC_INVALID_ARGUMENT,
    [RK_NOT_FOUND] = RK_GRPC_NOT_FOUND,
    [RK_EXISTS] = RK_GRPC_ALREADY_EXISTS,
    [RK_EXHAUSTED] = RK_GRPC_RESOURCE_EXHAUSTED,
    [RK_CORRUPT] = RK_GRPC_DATA_LOSS,
    [RK_UNSUPPORTED] = RK_GRPC_UNIMPLEMENTED,
    [RK_IO] = RK_GRPC_INTERNAL,
    /* Memory comes back; a client may try again later, here or elsewhere. */
    [RK_NO_MEMORY] = RK_GRPC_RESOURCE_EXHAUSTED,
    [RK_DEADLINE] = RK_GRPC_DEADLINE_EXCEEDED,
    [RK_CANCELLED] = RK_GRPC_CANCELLED,
    [RK_UNAVAILABLE] = RK_GRPC_UNAVAILABLE,
    [RK_INTERNAL] = RK_GRPC_INTERNAL,
};

const char *rk_grpc_status_name(enum rk_grpc_status status)
{
    size_t code = (size_t)status;
    return code < sizeof names / sizeof *names ? names[code] : "UNKNOWN";
}

enum rk_grpc_status rk_grpc_status_of(enum rk_status status)
{
    return (unsigned)status < RK_STATUS_COUNT ? told[status] : RK_GRPC_UNKNOWN;
}
