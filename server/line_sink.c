/* O_NONBLOCK belongs to the open file description, which a pipe or a terminal shares with other processes, so it is not
 * set on standard error itself: a pipe or terminal is opened a second time through /proc/self/fd, a socket (the
 * journal) is written with MSG_DONTWAIT, and a regular file never blocks for long. Where that fails, poll() asks first.
 */
#include "server/line_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void rk_line_sink_stderr(struct rk_line_sink *sink)
{
    struct stat about;
    *sink = (struct rk_line_sink){.fd = STDERR_FILENO};
    if (fstat(STDERR_FILENO, &about) != 0)
        return;
    sink->is_socket = S_ISSOCK(about.st_mode);
    if (!S_ISFIFO(about.st_mode) && !S_ISCHR(about.st_mode))
        return;
    int own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_APPEND | O_CLOEXEC | O_NOCTTY);
    if (own >= 0)
        *sink = (struct rk_line_sink){.fd = own, .owned = true};
    else
        sink->ask_first = true;
}

/* -1 with an error. */
static int open_file(const char *path, struct rk_error *error)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640);
    if (fd < 0)
        rk_error_set(error, RK_IO, "failed to open %s: %s", path, strerror(errno));
    return fd;
}

enum rk_status rk_line_sink_open(struct rk_line_sink *sink, const char *path, struct rk_error *error)
{
    if (strcmp(path, "stderr") == 0) {
        rk_line_sink_stderr(sink);
        return RK_OK;
    }
    const int fd = open_file(path, error);
    *sink = (struct rk_line_sink){.fd = fd, .owned = true};
    return fd >= 0 ? RK_OK : RK_IO;
}

enum rk_status rk_line_sink_reopen(const struct rk_line_sink *sink, const char *path, struct rk_error *error)
{
    if (strcmp(path, "stderr") == 0)
        return RK_OK;
    const int fd = open_file(path, error);
    if (fd < 0)
        return RK_IO;
    /* The descriptor's number stays, so that nobody who writes need know. */
    enum rk_status status = RK_OK;
    if (dup3(fd, sink->fd, O_CLOEXEC) < 0)
        status = rk_error_set(error, RK_IO, "failed to open %s: %s", path, strerror(errno));
    close(fd);
    return status;
}

void rk_line_sink_close(struct rk_line_sink *sink)
{
    if (sink->owned && sink->fd >= 0)
        close(sink->fd);
    *sink = (struct rk_line_sink){.fd = -1};
}

bool rk_line_sink_write(const struct rk_line_sink *sink, const char *lines, size_t length)
{
    if (sink->ask_first) {
        struct pollfd ready = {.fd = sink->fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) != 1)
            return false;
    }
    ssize_t written;
    do {
        written = sink->is_socket ? send(sink->fd, lines, length, MSG_DONTWAIT | MSG_NOSIGNAL)
                                  : write(sink->fd, lines, length);
    } while (written < 0 && errno == EINTR);
    return written == (ssize_t)length;
}
