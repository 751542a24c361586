/* A line is printed behind the others in the loop's buffer, and written with them, as many whole lines at a time as a
 * pipe takes whole. The loop's thread. */
#include "server/access_log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "model/spec.h"
#include "server/clock.h"
#include "server/connection.h"
#include "server/trace_context.h"

#define MAX_LINE_BYTES 2048

/* A line that is being printed; what does not fit is left out, and there is always room for it (MAX_LINE_BYTES). */
struct line {
    char *text;
    size_t used;
};

static void print(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void print(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(line->text + line->used, MAX_LINE_BYTES - line->used, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < MAX_LINE_BYTES - line->used)
        line->used += (size_t)length;
}

/* ,"key":"value" with what JSON asks to be escaped; what is not printable becomes '?'. */
static void print_text(struct line *line, const char *key, const char *value)
{
    char escaped[2 * RK_MAX_NAME_BYTES + 8];
    size_t used = 0;
    while (*value != '\0' && used + 4 < sizeof escaped) {
        const size_t bytes = rk_printable_bytes(value);
        if (*value == '"' || *value == '\\')
            escaped[used++] = '\\';
        if (bytes == 0)
            escaped[used++] = '?';
        memcpy(escaped + used, value, bytes);
        used += bytes;
        value += bytes > 0 ? bytes : 1;
    }
    print(line, ",\"%s\":\"%.*s\"", key, (int)used, escaped);
}

static void print_time(struct line *line)
{
    struct timespec now;
    struct tm parts;
    char seconds[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &parts);
    print(line, "{\"time\":\"%s.%06ldZ\"", seconds, now.tv_nsec / 1000);
}

static void print_call(struct line *line, const struct rk_call *call, enum rk_grpc_status status, uint64_t us)
{
    const struct rk_connection *connection = rk_grpc_session_owner(rk_call_session(call));
    const struct rk_peer *peer = rk_connection_peer(connection);
    const char *subject = rk_call_subject(call), *parent = rk_call_metadata(call, "traceparent");
    struct rk_trace_context trace;
    print_time(line);
    print_text(line, "method", rk_call_path(call));
    print_text(line, "status", rk_grpc_status_name(status));
    print(line, ",\"us\":%" PRIu64, us);
    if (subject != NULL) {
        print_text(line, "model", subject);
        print(line, ",\"candidates\":%" PRIu64, rk_call_amount(call));
    }
    print(line, ",\"request_bytes\":%" PRIu64 ",\"response_bytes\":%" PRIu64, rk_call_received_bytes(call),
          rk_call_sent_bytes(call));
    print_text(line, "peer", peer->address);
    if (rk_call_client(call) != NULL)
        print_text(line, "client", rk_call_client(call));
    else if (peer->num_names > 0)
        print_text(line, "client", peer->names[0]);
    if (parent != NULL && rk_trace_context_parse(parent, &trace)) {
        print_text(line, "trace_id", trace.trace_id);
        print_text(line, "parent_id", trace.parent_id);
    }
    print(line, "}\n");
}

void rk_access_log_finished(void *argument, const struct rk_call *call, enum rk_grpc_status status)
{
    struct rk_access_log *log = argument;
    const uint64_t now_us = rk_clock_us(), start_us = rk_call_start_us(call);
    const uint64_t us = now_us > start_us ? now_us - start_us : 0;
    const bool sampled = ++log->turn >= log->config->sample;
    if (sampled)
        log->turn = 0;
    else if (us < log->config->slow_us)
        return;
    if (log->used + MAX_LINE_BYTES > sizeof log->lines)
        rk_access_log_flush(log);
    struct line line = {.text = log->lines + log->used};
    print_call(&line, call, status, us);
    log->used += line.used;
}

/* The end of the last line that ends within the first `most` bytes. */
static size_t whole_lines(const char *lines, size_t length, size_t most)
{
    if (length <= most)
        return length;
    const char *end = memrchr(lines, '\n', most);
    return (size_t)(end + 1 - lines);
}

void rk_access_log_flush(struct rk_access_log *log)
{
    size_t begin = 0;
    while (begin < log->used) {
        const size_t length = whole_lines(log->lines + begin, log->used - begin, RK_LINE_BYTES);
        if (!rk_line_sink_write(&log->config->sink, log->lines + begin, length)) {
            for (size_t i = begin; i < begin + length; i++)
                rk_counter_add(&log->lost, log->lines[i] == '\n');
        }
        begin += length;
    }
    log->used = 0;
}
