/* Log lines without blocking.
 *
 * O_NONBLOCK belongs to the open file description, which a pipe or a terminal shares with other processes, so it is not
 * set on standard error itself: a pipe or terminal is opened a second time through /proc/self/fd, a socket (the
 * journal) is written with MSG_DONTWAIT, and a regular file never blocks for long. Where that fails, poll() asks first.
 * One mutex orders the lines; nothing under it waits. */
#include "server/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/clock.h"

#define LINE_BYTES 2048 /* below PIPE_BUF: a line enters a pipe whole or not at all */

static struct {
    pthread_mutex_t lock;
    int fd;
    bool is_socket, ask_first;
    enum rk_log_level least;
    uint64_t dropped, reported; /* under the lock */
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = STDERR_FILENO, .least = RK_LOG_INFO};

const char *rk_log_level_name(enum rk_log_level level)
{
    static const char *const names[RK_LOG_LEVEL_COUNT] = {"debug", "info", "warn", "error"};
    return (unsigned)level < RK_LOG_LEVEL_COUNT ? names[level] : "?";
}

void rk_log_start(enum rk_log_level least)
{
    struct stat about;
    sink.least = least;
    if (fstat(STDERR_FILENO, &about) != 0)
        return;
    sink.is_socket = S_ISSOCK(about.st_mode);
    if (!S_ISFIFO(about.st_mode) && !S_ISCHR(about.st_mode))
        return;
    int own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_APPEND | O_CLOEXEC | O_NOCTTY);
    if (own >= 0)
        sink.fd = own;
    else
        sink.ask_first = true;
}

static bool write_line(const char *line, size_t length)
{
    if (sink.ask_first) {
        struct pollfd ready = {.fd = sink.fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) != 1)
            return false;
    }
    ssize_t written;
    do {
        written =
            sink.is_socket ? send(sink.fd, line, length, MSG_DONTWAIT | MSG_NOSIGNAL) : write(sink.fd, line, length);
    } while (written < 0 && errno == EINTR);
    return written == (ssize_t)length;
}

static size_t format_time(char *text, size_t capacity)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t length = strftime(text, capacity, "%Y-%m-%dT%H:%M:%S", &parts);
    return length + (size_t)snprintf(text + length, capacity - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
}

void rk_log(enum rk_log_level level, const char *format, ...)
{
    if (level < sink.least)
        return;
    char line[LINE_BYTES];
    size_t length = format_time(line, sizeof line);
    length += (size_t)snprintf(line + length, sizeof line - length, " %-5s ", rk_log_level_name(level));
    va_list arguments;
    va_start(arguments, format);
    int text = vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    size_t end = text < 0 ? length : length + (size_t)text;
    if (end > sizeof line - 2)
        end = sizeof line - 2;
    for (size_t i = length; i < end; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[end] = '\n';

    pthread_mutex_lock(&sink.lock);
    if (sink.dropped > sink.reported) {
        char lost[96];
        int lost_bytes = snprintf(lost, sizeof lost, "%llu log lines were lost because standard error was not read\n",
                                  (unsigned long long)(sink.dropped - sink.reported));
        if (write_line(lost, (size_t)lost_bytes))
            sink.reported = sink.dropped;
    }
    if (!write_line(line, end + 1))
        sink.dropped++;
    pthread_mutex_unlock(&sink.lock);
}

uint64_t rk_log_dropped(void)
{
    pthread_mutex_lock(&sink.lock);
    uint64_t dropped = sink.dropped;
    pthread_mutex_unlock(&sink.lock);
    return dropped;
}

int rk_log_allowed(struct rk_log_limit *limit, uint64_t interval_us)
{
    uint64_t now_us = rk_clock_us();
    uint64_t next_us = atomic_load_explicit(&limit->next_us, memory_order_relaxed);
    return now_us >= next_us && atomic_compare_exchange_strong(&limit->next_us, &next_us, now_us + interval_us);
}
