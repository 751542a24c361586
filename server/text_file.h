/* Small files that an operator wrote: configuration, certificates, keys, rules. */
#ifndef RANKD_SERVER_TEXT_FILE_H
#define RANKD_SERVER_TEXT_FILE_H

#include <stddef.h>

#include "quant/base/status.h"

#define RK_TEXT_FILE_MAX_BYTES (1u << 20)

struct rk_text_file {
    char *text; /* length bytes and a NUL */
    size_t length;
    unsigned mode; /* of the file that was read, so that nobody can swap it between a look and the reading */
};

/* Reads a whole regular file. `what` names it in errors: "the configuration file". RK_NOT_FOUND, RK_IO, RK_INVALID (a
 * directory, a device, longer than RK_TEXT_FILE_MAX_BYTES), RK_NO_MEMORY. */
enum rk_status rk_text_file_read(const char *path, const char *what, struct rk_text_file *file, struct rk_error *error);

/* Wipes the text before it is given back: it may be a key. */
void rk_text_file_free(struct rk_text_file *file);

#endif
