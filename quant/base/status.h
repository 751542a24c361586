/* Status codes and error texts: how every room of rankd says what went wrong. */
#ifndef RANKD_QUANT_BASE_STATUS_H
#define RANKD_QUANT_BASE_STATUS_H

enum rk_status {
    RK_OK = 0,
    RK_INVALID,     /* the caller's input is wrong; the text names field and value */
    RK_NOT_FOUND,   /* a name, file or version that is not there */
    RK_EXISTS,      /* what would be created is there already */
    RK_EXHAUSTED,   /* a limit, quota or queue is full */
    RK_CORRUPT,     /* stored data does not match its checksum or its description */
    RK_UNSUPPORTED, /* well formed, but this build cannot do it */
    RK_IO,          /* the operating system refused; the text carries strerror */
    RK_NO_MEMORY,
    RK_DEADLINE,    /* too late to be useful */
    RK_CANCELLED,   /* nobody waits for the answer any more */
    RK_UNAVAILABLE, /* what does the work is lost: a device, a host; elsewhere it may be done */
    RK_INTERNAL,    /* a fault of our own */
    RK_STATUS_COUNT
};

/* A static, lower-case name: "invalid", "not found", ... */
const char *rk_status_name(enum rk_status status);

/* What a person will read. Zero-initialise; the first text set is kept. */
struct rk_error {
    enum rk_status status;
    char text[512];
};

/* Sets status and text unless an error is set already; a NULL error is allowed. Returns `status`,
 * so that a function can `return rk_error_set(error, RK_INVALID, "...", ...)`. */
enum rk_status rk_error_set(struct rk_error *error, enum rk_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<formatted>: " in front of the text, to say what was being done when it failed. Does nothing
 * when no error is set. Returns the status that is set. */
enum rk_status rk_error_prefix(struct rk_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

void rk_error_clear(struct rk_error *error);

#endif
