/* version "-" trace-id "-" parent-id "-" flags, with 2, 32, 16 and 2 digits; versions above 00 may have more behind it.
 * Pure; any thread. */
#include "server/trace_context.h"

#include <stddef.h>
#include <string.h>

/* `count` digits of lower-case hexadecimal, and not all of them zero unless that is allowed; copied where `copy` is not
 * NULL. */
static bool read_digits(const char *text, size_t count, bool zero_allowed, char *copy)
{
    bool zero = true;
    for (size_t i = 0; i < count; i++) {
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false; /* a NUL too */
        zero = zero && text[i] == '0';
    }
    if (copy != NULL) {
        memcpy(copy, text, count);
        copy[count] = '\0';
    }
    return zero_allowed || !zero;
}

bool rk_trace_context_parse(const char *text, struct rk_trace_context *context)
{
    enum { TRACE_ID = 3, PARENT_ID = 36, FLAGS = 53, END = 55 };
    if (!read_digits(text, 2, true, NULL) || text[TRACE_ID - 1] != '-' || memcmp(text, "ff", 2) == 0 ||
        !read_digits(text + TRACE_ID, 32, false, context->trace_id) || text[PARENT_ID - 1] != '-' ||
        !read_digits(text + PARENT_ID, 16, false, context->parent_id) || text[FLAGS - 1] != '-' ||
        !read_digits(text + FLAGS, 2, true, NULL))
        return false;
    const char last = text[END - 1];
    context->sampled = ((last <= '9' ? last - '0' : last - 'a' + 10) & 1) != 0;
    return text[END] == '\0' || (memcmp(text, "00", 2) != 0 && text[END] == '-');
}
