/* Walks from character to character. Pure; any thread. */
#include "server/printable.h"

#include <stddef.h>

#include "model/spec.h"

void rk_printable_make(char *text)
{
    while (*text != '\0') {
        const size_t bytes = rk_printable_bytes(text);
        if (bytes == 0)
            *text = '?';
        text += bytes > 0 ? bytes : 1;
    }
}
