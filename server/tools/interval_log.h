/* What came of a load over time: one row for each interval in which calls were due, as CSV. */
#ifndef RANKD_SERVER_TOOLS_INTERVAL_LOG_H
#define RANKD_SERVER_TOOLS_INTERVAL_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/base/status.h"

struct rk_interval {
    uint64_t ended, ok, good, refused; /* calls that were due in it, by how they ended; good: OK and in time */
    uint64_t ok_us, worst_ok_us;       /* of those that ended OK: the sum of their times, and the longest */
};

void rk_interval_add(struct rk_interval *interval, uint64_t took_us, bool ok, bool good, bool refused);

/* Times in the file are on the monotonic clock, so that logs of several generators can be laid side by side. RK_IO. */
enum rk_status rk_interval_write(const char *path, const struct rk_interval *intervals, size_t count, uint64_t begin_us,
                                 uint64_t interval_us, struct rk_error *error);

#endif
