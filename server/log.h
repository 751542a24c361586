/* The daemon's log: one readable line per event on standard error, e.g.
 *
 *   2026-01-31T12:00:00.123Z info  serving model=steam version=1
 *
 * Logging never blocks: a line that standard error cannot take at once is dropped and counted, and the next line that
 * passes says how many were lost. Any thread may log; the request path does not. */
#ifndef RANKD_SERVER_LOG_H
#define RANKD_SERVER_LOG_H

#include <stdint.h>

enum rk_log_level { RK_LOG_DEBUG, RK_LOG_INFO, RK_LOG_WARN, RK_LOG_ERROR, RK_LOG_LEVEL_COUNT };

const char *rk_log_level_name(enum rk_log_level level);

/* Prepares standard error; call once from main before threads start. Lines below `least` are skipped. */
void rk_log_start(enum rk_log_level least);

/* Control characters in the text are replaced, so that hostile names cannot forge lines. */
void rk_log(enum rk_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t rk_log_dropped(void);

/* For what may happen thousands of times a second: true at most once per interval. Zero-initialise. */
struct rk_log_limit {
    _Atomic uint64_t next_us;
};
int rk_log_allowed(struct rk_log_limit *limit, uint64_t interval_us);

#endif
