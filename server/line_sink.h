/* Where lines go without anybody waiting: standard error or a file. */
#ifndef RANKD_SERVER_LINE_SINK_H
#define RANKD_SERVER_LINE_SINK_H

#include <stdbool.h>
#include <stddef.h>

#include "quant/base/status.h"

#define RK_LINE_BYTES 4096 /* PIPE_BUF: what is no longer enters a pipe whole or not at all */

struct rk_line_sink {
    int fd;
    bool is_socket, ask_first;
    bool owned; /* the descriptor is closed with the sink */
};

/* Standard error, as it is: never fails. */
void rk_line_sink_stderr(struct rk_line_sink *sink);

/* "stderr", or a file, which is made where there is none and appended to; a FIFO needs its reader first. RK_IO. */
enum rk_status rk_line_sink_open(struct rk_line_sink *sink, const char *path, struct rk_error *error);
/* Opens the file anew, for it may have been renamed: what is written from now on goes to the one of that name. Any thread, while others
 * write. RK_IO: all stays as it was. */
enum rk_status rk_line_sink_reopen(const struct rk_line_sink *sink, const char *path, struct rk_error *error);

void rk_line_sink_close(struct rk_line_sink *sink);

/* Writes lines of at most RK_LINE_BYTES in all; false: they could not be written at once, and are lost. Any thread. */
bool rk_line_sink_write(const struct rk_line_sink *sink, const char *lines, size_t length);

#endif
