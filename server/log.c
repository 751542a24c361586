/* Log lines without blocking: what the sink does not take at once is lost, and counted. One mutex orders the lines;
 * nothing under it waits. */
#include "server/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "server/clock.h"
#include "server/line_sink.h"

#define LINE_BYTES 2048 /* below PIPE_BUF: a line enters a pipe whole or not at all */

static struct {
    pthread_mutex_t lock;
    struct rk_line_sink lines;
    enum rk_log_level least;
    uint64_t dropped, reported; /* under the lock */
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .lines = {.fd = STDERR_FILENO}, .least = RK_LOG_INFO};

const char *rk_log_level_name(enum rk_log_level level)
{
    static const char *const names[RK_LOG_LEVEL_COUNT] = {"debug", "info", "warn", "error"};
    return (unsigned)level < RK_LOG_LEVEL_COUNT ? names[level] : "?";
}

void rk_log_start(enum rk_log_level least)
{
    sink.least = least;
    rk_line_sink_stderr(&sink.lines);
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
        if (rk_line_sink_write(&sink.lines, lost, (size_t)lost_bytes))
            sink.reported = sink.dropped;
    }
    if (!rk_line_sink_write(&sink.lines, line, end + 1))
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
