/* What rankctl's files share: the options, the commands, and how they end. */
#ifndef RANKD_SERVER_TOOLS_RANKCTL_H
#define RANKD_SERVER_TOOLS_RANKCTL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "quant/base/arena.h"
#include "quant/base/status.h"
#include "server/tools/channel.h"
#include "server/tools/grpc_client.h"

#define RK_PATH_RANK   "/rankd.v1.Ranking/Rank"
#define RK_PATH_STATUS "/rankd.v1.Admin/GetStatus"
#define RK_PATH_HEALTH "/grpc.health.v1.Health/Check"

#define RK_CTL_MAX_RATE 10000000 /* calls a second */

enum rk_exit { RK_EXIT_OK = 0, RK_EXIT_FAILED = 1, RK_EXIT_USAGE = 2, RK_EXIT_CANNOT_CONNECT = 3 };

struct rk_ctl_options {
    const char *target, *model, *requests, *order_by, *titles, *title_feature, *service, *value_model, *value,
        *priority, *arrivals, *log; /* NULL: not given */
    uint64_t top, version, deadline_ms, connect_timeout_ms;
    uint64_t connections, in_flight, seconds, rate, seed, warmup_ms, log_ms, p99_ms;
    bool json, empty, costs, help, find_rate;
    struct rk_security security;
};

enum rk_ctl_command_bit {
    RK_CTL_RANK = 1,
    RK_CTL_STATUS = 2,
    RK_CTL_HEALTH = 4,
    RK_CTL_BENCH = 8,
    RK_CTL_ALL = 15,
};

struct rk_ctl_command {
    const char *name;
    enum rk_ctl_command_bit bit;
    const char *summary, *examples;
    enum rk_exit (*run)(const struct rk_ctl_options *options);
};

extern const struct rk_ctl_command rk_ctl_commands[];
extern const unsigned rk_ctl_num_commands;

enum rk_exit rk_ctl_rank(const struct rk_ctl_options *options);
enum rk_exit rk_ctl_status(const struct rk_ctl_options *options);
enum rk_exit rk_ctl_health(const struct rk_ctl_options *options);
enum rk_exit rk_ctl_bench(const struct rk_ctl_options *options);

/* Reads the command line. *command is NULL when help for all was asked for. False after printing what is wrong to
 * standard error. */
bool rk_ctl_parse(int argc, char **argv, struct rk_ctl_options *options, const struct rk_ctl_command **command);
/* command NULL: of all of them. */
void rk_ctl_print_help(FILE *stream, const struct rk_ctl_command *command);

/* Prints the error to standard error; returns the exit code that fits. */
enum rk_exit rk_ctl_fail(const struct rk_error *error);

/* Connects; prints and returns the exit code when it cannot. */
enum rk_exit rk_ctl_connect(const struct rk_ctl_options *options, struct rk_grpc_client **client);

/* The time that a call may take, in microseconds, RK_NO_TIMEOUT for ever. */
uint64_t rk_ctl_timeout_us(const struct rk_ctl_options *options);

#endif
