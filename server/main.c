/* rankd: reads its options, loads the models, serves until it is told to stop, drains, exits.
 *
 * Exit status: 0 after a clean stop or a clean --check; 1 when something could not be done; 2 when the command line or
 * the configuration is wrong. Main's thread does nothing but wait for signals once the daemon runs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "embeddings/mapped_file.h"
#include "quant/kernels.h"
#include "server/address.h"
#include "server/clock.h"
#include "server/command_line.h"
#include "server/compute.h"
#include "server/cost_measure.h"
#include "server/daemon.h"
#include "server/gate.h"
#include "server/log.h"
#include "server/notify.h"
#include "server/row_memory.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static void print_help(void)
{
    printf("rankd serves ranking models over gRPC.\n\n"
           "  rankd --model-repository DIR [--listen HOST:PORT] [--config FILE] [options]\n\n"
           "  --config FILE                      read options from a YAML file; flags override it\n"
           "  --check                            load everything as for serving, print what would be served, exit\n"
           "  --print-config                     print a configuration file with all defaults\n"
           "  --version, --help\n\n");
    rk_options_print_help(stdout);
}

/* SIGTERM, SIGINT and SIGHUP become bytes in this pipe. A handler rather than a signalfd with a mask: libraries start threads
 * before main could block anything, and a signal for the process may go to any thread that lets it in. */
static int signal_pipe[2];

static void on_signal(int number)
{
    int saved = errno;
    unsigned char byte = (unsigned char)number;
    ssize_t written = write(signal_pipe[1], &byte, 1); /* a full pipe has told main often enough */
    (void)written;
    errno = saved;
}

/* The descriptor to read signals from; -1 with errno. */
static int open_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    signal(SIGPIPE, SIG_IGN);
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0 || sigaction(SIGTERM, &action, NULL) != 0 ||
        sigaction(SIGINT, &action, NULL) != 0 || sigaction(SIGHUP, &action, NULL) != 0)
        return -1;
    return signal_pipe[0];
}

/* 0: none has come. */
static int next_signal(int signals)
{
    unsigned char byte;
    return read(signals, &byte, 1) == 1 ? byte : 0;
}

static const char *name_of(int number)
{
    return number == SIGTERM ? "SIGTERM" : number == SIGINT ? "SIGINT" : "SIGHUP";
}

/* Until the server is to stop. SIGHUP reads certificates and rules again, and opens the access log anew. */
static void wait_for_the_end(int signals, struct rk_gate *gate, struct rk_daemon *daemon)
{
    int number;
    struct pollfd ready = {.fd = signals, .events = POLLIN};
    while ((number = next_signal(signals)) == 0 || number == SIGHUP) {
        if (number != SIGHUP) {
            poll(&ready, 1, -1);
            continue;
        }
        rk_gate_reload(gate);
        rk_daemon_reopen_access_log(daemon);
    }
    rk_log(RK_LOG_INFO, "draining signal=%s", name_of(number));
}

/* Waits until every loop has left or the time is up. True: every open call was answered. */
static bool wait_for_drain(struct rk_daemon *daemon, int signals)
{
    uint64_t end_us = rk_clock_us() + daemon->options.drain_timeout_s * 1000000u;
    uint64_t left = 0;
    const uint64_t all = daemon->num_loops + (daemon->handshakes != NULL);
    while (left < all) {
        uint64_t now_us = rk_clock_us();
        if (now_us >= end_us)
            return false;
        struct pollfd ready[2] = {{.fd = daemon->left_fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        poll(ready, 2, (int)((end_us - now_us) / 1000u) + 1);
        uint64_t count;
        if (read(daemon->left_fd, &count, sizeof count) == (ssize_t)sizeof count)
            left += count;
        int number = next_signal(signals);
        if (number != 0)
            rk_log(RK_LOG_INFO, "still draining signal=%s; SIGKILL would end it and lose the open calls",
                   name_of(number));
    }
    return true;
}

static void announce(const struct rk_daemon *daemon)
{
    for (uint32_t m = 0; m < daemon->registry.num_models; m++) {
        const struct rk_served_model *served = &daemon->registry.models[m];
        char formats[160];
        rk_log(RK_LOG_INFO, "loaded model=%s version=%" PRId64 " in %s: %.1f MiB", served->name, served->version,
               rk_model_spec_formats(served->spec, formats, sizeof formats),
               (double)rk_model_bytes(served->model) / 1048576.0);
        char cost[RK_COST_TEXT_BYTES];
        rk_cost_curve_format(&served->cost, cost, sizeof cost);
        rk_log(RK_LOG_INFO, "cost model=%s in %s", served->name, cost);
    }
    rk_row_memory_log(&daemon->registry);
    char models[1024];
    rk_registry_list(&daemon->registry, models, sizeof models);
    char text[4096];
    rk_gate_describe(daemon->gate, "; ", text, sizeof text);
    if (text[0] != '\0')
        rk_log(RK_LOG_INFO, "%s", text);
    rk_listeners_print(&daemon->listeners, ", ", text, sizeof text);
    rk_log(RK_LOG_INFO, "serving %s on %s; workers=%u event_loops=%u backend: %s", models,
           text, daemon->num_workers, daemon->num_loops,
           daemon->registry.compute->description);
}

/* One line for each address, so that whoever started us knows which ports we have got. */
static enum rk_status write_ready_file(const struct rk_daemon *daemon, struct rk_error *error)
{
    char text[RK_MAX_LISTENERS * RK_ADDRESS_BYTES];
    rk_listeners_print(&daemon->listeners, "\n", text, sizeof text);
    return rk_notify_write_ready_file(daemon->options.ready_file, text, error);
}

static int serve(const struct rk_options *options, struct rk_gate *gate, struct rk_registry *registry, int signals)
{
    struct rk_error error = {0};
    struct rk_daemon *daemon;
    if (rk_daemon_start(options, gate, registry, &daemon, &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "%s", error.text);
        return EXIT_FAILED;
    }
    announce(daemon);
    int code = 0;
    if (options->ready_file[0] != '\0' && write_ready_file(daemon, &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "%s", error.text);
        code = EXIT_FAILED;
    } else {
        rk_notify_manager("READY=1");
        wait_for_the_end(signals, gate, daemon);
        rk_notify_manager("STOPPING=1");
    }
    rk_daemon_drain(daemon);
    if (wait_for_drain(daemon, signals))
        rk_log(RK_LOG_INFO, "drained, every open call was answered");
    else
        rk_log(RK_LOG_WARN, "drain_timeout_s=%" PRIu64 " is over; the calls that are still open are cancelled",
               options->drain_timeout_s);
    rk_daemon_destroy(daemon);
    return code;
}

/* Loads the models, and serves them or says what it would serve. */
static int run(const struct rk_command_line *line, struct rk_gate *gate, struct rk_compute *compute, int signals)
{
    struct rk_error error = {0};
    struct rk_registry registry;
    const struct rk_row_options rows = rk_row_options_of(&line->options);
    enum rk_status status = rk_registry_open(line->options.model_repository, compute, &rows, &registry, &error);
    if (status != RK_OK)
        rk_log(RK_LOG_ERROR, "%s", error.text);
    if (status == RK_OK && rk_cost_measure(&registry, (uint32_t)line->options.max_batch, &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "%s", error.text);
        rk_registry_close(&registry);
        return EXIT_FAILED;
    }
    if (line->check)
        rk_registry_print(&registry, stdout);
    char who[1024];
    rk_gate_describe(gate, "\n", who, sizeof who);
    if (line->check && who[0] != '\0')
        printf("%s\n", who);
    if (line->check && status == RK_OK)
        rk_row_memory_print(&registry, stdout);
    if (status == RK_OK && !line->check)
        return serve(&line->options, gate, &registry, signals);
    const bool sound = status == RK_OK && registry.num_problems == 0;
    rk_registry_close(&registry);
    return sound ? 0 : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    struct rk_command_line line;
    struct rk_error error = {0};
    if (rk_command_line_parse(argc, argv, &line, &error) != RK_OK) {
        fprintf(stderr, "rankd: %s\n", error.text);
        return EXIT_USAGE;
    }
    if (line.help)
        print_help();
    else if (line.version)
        printf("rankd %s\n", RANKD_VERSION);
    else if (line.print_config)
        rk_options_print_sample(stdout);
    if (line.help || line.version || line.print_config)
        return fflush(stdout) == 0 ? 0 : EXIT_FAILED;

    if (rk_kernels_check_mask(&error) != RK_OK) {
        fprintf(stderr, "rankd: %s\n", error.text);
        return EXIT_USAGE;
    }
    rk_log_start((enum rk_log_level)line.options.log_level);
    int signals = open_signals();
    if (signals < 0 || rk_mapped_file_contain_sigbus(&error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "failed to set up signals: %s", error.text[0] != '\0' ? error.text : strerror(errno));
        return EXIT_FAILED;
    }
    struct rk_gate gate;
    if (rk_gate_open(&line.options, &gate, &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "%s", error.text);
        return EXIT_FAILED;
    }
    struct rk_compute compute;
    if (rk_compute_open(line.options.backend, line.options.backend_path, line.options.backend_options, &compute,
                        &error) != RK_OK) {
        rk_log(RK_LOG_ERROR, "%s", error.text);
        rk_gate_close(&gate);
        return error.status == RK_INVALID ? EXIT_USAGE : EXIT_FAILED;
    }
    const int code = run(&line, &gate, &compute, signals);
    rk_compute_close(&compute);
    rk_gate_close(&gate);
    return code;
}
