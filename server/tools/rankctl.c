/* rankctl: everything that an operator or tester does against a running rankd. This file holds main and what the
 * commands share; each command has its own file, the options are a table in rankctl_options.c. One thread. */
#include "server/tools/rankctl.h"

#include <signal.h>
#include <stdlib.h>

const struct rk_ctl_command rk_ctl_commands[] = {
    {"rank", RK_CTL_RANK, "rank the candidates of requests from a file",
     "  rankctl rank --model steam --requests requests.jsonl\n"
     "  rankctl rank --model steam --requests requests.jsonl --top 10 --titles games.tsv\n"
     "  rankctl rank --model steam --requests requests.jsonl --top 10 --value 'play * binge^0.5' --costs\n",
     rk_ctl_rank},
    {"status", RK_CTL_STATUS, "show what a server serves and how busy it is",
     "  rankctl status\n"
     "  rankctl --target 10.0.0.7:8470 status --json\n",
     rk_ctl_status},
    {"health", RK_CTL_HEALTH, "ask the health service; exits 0 when the answer is SERVING",
     "  rankctl health\n"
     "  rankctl health --service steam\n",
     rk_ctl_health},
    {"bench", RK_CTL_BENCH, "send requests as fast as they are answered, or at a rate, and measure",
     "  rankctl bench --model steam --requests requests.jsonl --connections 4 --in-flight 8 --seconds 10\n"
     "  rankctl bench --model steam --requests requests.jsonl --rate 2000 --arrivals poisson --deadline-ms 50\n"
     "  rankctl bench --model steam --requests requests.jsonl --rate 2000 --log load.csv --log-ms 10 --json\n"
     "  rankctl bench --model steam --requests requests.jsonl --find-rate --p99-ms 50 --arrivals poisson --seconds 5\n"
     "  rankctl bench --empty\n",
     rk_ctl_bench},
};
const unsigned rk_ctl_num_commands = sizeof rk_ctl_commands / sizeof *rk_ctl_commands;

enum rk_exit rk_ctl_fail(const struct rk_error *error)
{
    fprintf(stderr, "rankctl: %s\n", error->text);
    return RK_EXIT_FAILED;
}

enum rk_exit rk_ctl_connect(const struct rk_ctl_options *options, struct rk_grpc_client **client)
{
    struct rk_error error = {0};
    enum rk_status status = rk_grpc_client_open(options->target, options->connect_timeout_ms * 1000, client, &error);
    if (status == RK_OK)
        return RK_EXIT_OK;
    rk_ctl_fail(&error);
    return status == RK_INVALID ? RK_EXIT_USAGE : RK_EXIT_CANNOT_CONNECT;
}

uint64_t rk_ctl_timeout_us(const struct rk_ctl_options *options)
{
    return options->deadline_ms == 0 ? RK_NO_TIMEOUT : options->deadline_ms * 1000;
}

int main(int argc, char **argv)
{
    struct rk_ctl_options options;
    const struct rk_ctl_command *command;
    signal(SIGPIPE, SIG_IGN);
    if (!rk_ctl_parse(argc, argv, &options, &command))
        return RK_EXIT_USAGE;
    if (options.help) {
        rk_ctl_print_help(stdout, command);
        return RK_EXIT_OK;
    }
    struct rk_error error = {0};
    if (rk_security_set(&options.security, &error) != RK_OK) {
        rk_ctl_fail(&error);
        return RK_EXIT_USAGE;
    }
    enum rk_exit result = command->run(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "rankctl: cannot write to standard output\n");
        return RK_EXIT_FAILED;
    }
    return result;
}
