/* The `traceparent` of W3C Trace Context, by which one request is found again in the logs of all services that it went
 * through. Source: https://www.w3.org/TR/trace-context/#traceparent-header */
#ifndef RANKD_SERVER_TRACE_CONTEXT_H
#define RANKD_SERVER_TRACE_CONTEXT_H

#include <stdbool.h>

struct rk_trace_context {
    char trace_id[33], parent_id[17]; /* lower-case hexadecimal, NUL-terminated */
    bool sampled;
};

/* False where the text is none: then there is no trace, and the request is served all the same. */
bool rk_trace_context_parse(const char *text, struct rk_trace_context *context);

#endif
