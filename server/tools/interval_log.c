/* Rows are counted in memory while the load runs, and written when it is over: a disk must not delay a call. */
#include "server/tools/interval_log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void rk_interval_add(struct rk_interval *interval, uint64_t took_us, bool ok, bool good, bool refused)
{
    interval->ended++;
    interval->good += good;
    interval->refused += refused;
    if (ok) {
        interval->ok++;
        interval->ok_us += took_us;
        interval->worst_ok_us = took_us > interval->worst_ok_us ? took_us : interval->worst_ok_us;
    }
}

enum rk_status rk_interval_write(const char *path, const struct rk_interval *intervals, size_t count, uint64_t begin_us,
                                 uint64_t interval_us, struct rk_error *error)
{
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return rk_error_set(error, RK_IO, "%s: %s", path, strerror(errno));
    fputs("begin_us,ended,ok,good,refused,mean_ok_us,worst_ok_us\n", file);
    for (size_t i = 0; i < count; i++) {
        const struct rk_interval *row = &intervals[i];
        fprintf(file, "%llu,%llu,%llu,%llu,%llu,%.1f,%llu\n", (unsigned long long)(begin_us + i * interval_us),
                (unsigned long long)row->ended, (unsigned long long)row->ok, (unsigned long long)row->good,
                (unsigned long long)row->refused, row->ok == 0 ? 0 : (double)row->ok_us / (double)row->ok,
                (unsigned long long)row->worst_ok_us);
    }
    const bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return rk_error_set(error, RK_IO, "%s: %s", path, strerror(errno));
    return RK_OK;
}
