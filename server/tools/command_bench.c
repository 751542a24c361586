/* rankctl bench: encodes the requests once, runs the load, prints what came of it; or looks for the highest rate that
 * holds a bound. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/jsonl.h"
#include "server/tools/load.h"
#include "server/tools/rank_message.h"
#include "server/tools/rankctl.h"
#include "server/tools/rate_search.h"

#define MAX_WARM_UP_US 1000000
#define FIRST_RATE     100  /* that --find-rate measures */
#define MAX_LAG_US     1000 /* the generator is said to be behind beyond this */

struct messages {
    const struct rk_ctl_options *options;
    struct rk_load_message *list;
    size_t count, capacity;
};

static enum rk_status add_message(struct messages *messages, const uint8_t *bytes, size_t length, uint32_t candidates)
{
    if (messages->count == messages->capacity) {
        size_t capacity = messages->capacity == 0 ? 64 : 2 * messages->capacity;
        struct rk_load_message *list = reallocarray(messages->list, capacity, sizeof *list);
        if (list == NULL)
            return RK_NO_MEMORY;
        messages->list = list;
        messages->capacity = capacity;
    }
    uint8_t *copy = malloc(length + 1);
    if (copy == NULL)
        return RK_NO_MEMORY;
    if (length > 0)
        memcpy(copy, bytes, length);
    messages->list[messages->count++] = (struct rk_load_message){copy, length, candidates};
    return RK_OK;
}

static enum rk_status encode_one(void *context, uint64_t line, struct rk_named_request *named, struct rk_arena *arena,
                                 struct rk_error *error)
{
    (void)line;
    struct messages *messages = context;
    struct rk_rank_message message;
    enum rk_status status = rk_rank_message_build(messages->options, named, arena, &message, error);
    if (status == RK_OK && add_message(messages, message.bytes, message.length, named->num_candidates) != RK_OK)
        status = rk_error_set(error, RK_NO_MEMORY, "out of memory");
    return status;
}

static enum rk_status prepare(struct messages *messages, struct rk_error *error)
{
    const struct rk_ctl_options *options = messages->options;
    if (options->empty) /* an empty HealthCheckRequest: no bytes at all */
        return add_message(messages, NULL, 0, 0) == RK_OK ? RK_OK : rk_error_set(error, RK_NO_MEMORY, "out of memory");
    enum rk_status status = rk_jsonl_read(options->requests, encode_one, messages, error);
    if (status == RK_OK && messages->count == 0)
        status = rk_error_set(error, RK_INVALID, "%s holds no requests", options->requests);
    return status;
}

static const struct {
    const char *name;
    double fraction;
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};
#define NUM_PERCENTILES (sizeof percentiles / sizeof *percentiles)

static double per_second(uint64_t count, const struct rk_load_result *result)
{
    return result->elapsed_us == 0 ? 0 : (double)count * 1e6 / (double)result->elapsed_us;
}

static double mean_us(const struct rk_latency *latency)
{
    return latency->count == 0 ? 0 : (double)latency->sum / (double)latency->count;
}

static json_t *times_json(const struct rk_latency *latency)
{
    json_t *times = json_object();
    json_object_set_new(times, "count", json_integer((json_int_t)latency->count));
    json_object_set_new(times, "mean", json_real(mean_us(latency)));
    for (size_t i = 0; i < NUM_PERCENTILES; i++)
        json_object_set_new(times, percentiles[i].name,
                            json_integer((json_int_t)rk_latency_percentile(latency, percentiles[i].fraction)));
    json_object_set_new(times, "max", json_integer((json_int_t)latency->max));
    return times;
}

static double own_us_per_call(const struct rk_load_result *result)
{
    return result->ended == 0 ? 0 : (double)result->own_cpu_us / (double)result->ended;
}

static void print_json(const struct rk_load *load, const struct rk_load_result *result)
{
    const struct rk_latency *latency = &result->latency_us;
    json_t *object = json_object(), *statuses = json_object();
    for (int status = 0; status < RK_GRPC_STATUS_COUNT; status++) {
        if (result->by_status[status] > 0)
            json_object_set_new(statuses, rk_grpc_status_name((enum rk_grpc_status)status),
                                json_integer((json_int_t)result->by_status[status]));
    }
    json_object_set_new(object, "connections", json_integer((json_int_t)load->connections));
    json_object_set_new(object, "in_flight", json_integer((json_int_t)load->in_flight));
    json_object_set_new(object, "rate", json_integer((json_int_t)load->rate));
    json_object_set_new(object, "seconds", json_real((double)result->elapsed_us / 1e6));
    json_object_set_new(object, "requests_per_s", json_real(per_second(latency->count, result)));
    json_object_set_new(object, "candidates_per_s", json_real(per_second(result->candidates, result)));
    json_object_set_new(object, "goodput_per_s", json_real(per_second(result->good, result)));
    json_object_set_new(object, "latency_us", times_json(latency));
    json_object_set_new(object, "refused_us", times_json(&result->refused_us));
    json_object_set_new(object, "lag_us", times_json(&result->lag_us));
    json_object_set_new(object, "own_us_per_call", json_real(own_us_per_call(result)));
    json_object_set_new(object, "begin_us", json_integer((json_int_t)result->begin_us));
    json_object_set_new(object, "by_status", statuses);
    json_object_set_new(object, "unsent", json_integer((json_int_t)result->unsent));
    json_object_set_new(object, "unanswered", json_integer((json_int_t)result->unanswered));
    json_object_set_new(object, "lost_connections", json_integer((json_int_t)result->lost_connections));
    json_object_set_new(object, "first_error", json_string(result->first_error));
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static void print_times(const char *what, const struct rk_latency *latency)
{
    printf("  %-13s mean %.3f ms", what, mean_us(latency) / 1000);
    for (size_t i = 0; i < NUM_PERCENTILES; i++)
        printf(", %s %.3f", percentiles[i].name,
               (double)rk_latency_percentile(latency, percentiles[i].fraction) / 1000);
    printf(", max %.3f\n", (double)latency->max / 1000);
}

static void print_people(const struct rk_load *load, const struct rk_load_result *result)
{
    const struct rk_latency *latency = &result->latency_us;
    printf("%.1f s over %llu connections, ", (double)result->elapsed_us / 1e6, (unsigned long long)load->connections);
    if (load->rate > 0)
        printf("%llu requests/s asked for (open loop, %s)\n", (unsigned long long)load->rate,
               load->poisson ? "poisson" : "constant");
    else
        printf("%llu in flight on each (closed loop)\n", (unsigned long long)load->in_flight);
    printf("  requests/s    %.1f\n", per_second(latency->count, result));
    printf("  candidates/s  %.0f\n", per_second(result->candidates, result));
    if (load->call_timeout_us != RK_NO_TIMEOUT)
        printf("  goodput/s     %.1f answered within %llu ms\n", per_second(result->good, result),
               (unsigned long long)(load->call_timeout_us / 1000));
    print_times("latency", latency);
    if (result->refused_us.count > 0)
        print_times("refusals", &result->refused_us);
    printf("  answers      ");
    for (int status = 0; status < RK_GRPC_STATUS_COUNT; status++) {
        if (result->by_status[status] > 0)
            printf(" %s %llu", rk_grpc_status_name((enum rk_grpc_status)status),
                   (unsigned long long)result->by_status[status]);
    }
    printf("\n");
    if (result->unsent + result->unanswered + result->lost_connections > 0)
        printf("  missing       %llu not sent, %llu not answered, %llu connections lost\n",
               (unsigned long long)result->unsent, (unsigned long long)result->unanswered,
               (unsigned long long)result->lost_connections);
    printf("  generator     %.2f us of processor time per call\n", own_us_per_call(result));
    const uint64_t lag_us = rk_latency_percentile(&result->lag_us, 0.99);
    if (lag_us > MAX_LAG_US)
        printf(
            "  behind        1 %% of the calls were sent %.3f ms or more after they were due: the generator is at its\n"
            "                limit or lacks a processor, and these latencies are partly its own\n",
            (double)lag_us / 1000);
    if (result->first_error[0] != '\0')
        printf("  first error   %s\n", result->first_error);
}

static bool is_behind(const struct rk_load_result *result)
{
    return result->unsent > 0 || rk_latency_percentile(&result->lag_us, 0.99) > MAX_LAG_US;
}

/* Whether 99 % of all calls that were due ended OK within the bound; one that failed counts as one that took for ever.
 */
static bool holds(const struct rk_load_result *result, uint64_t bound_us)
{
    uint64_t due = result->unsent + result->unanswered;
    for (int status = 0; status < RK_GRPC_STATUS_COUNT; status++)
        due += result->by_status[status];
    const double wanted = 0.99 * (double)due, ok = (double)result->latency_us.count;
    return due > 0 && result->lost_connections == 0 && ok >= wanted &&
           rk_latency_percentile(&result->latency_us, wanted / ok) <= bound_us;
}

/* Measures rate after rate, a line each on standard error, then prints the answer. */
static enum rk_status find_rate(const struct rk_ctl_options *options, struct rk_load *load,
                                struct rk_load_result *result, struct rk_error *error)
{
    struct rk_rate_search search;
    unsigned count = 0, num_behind = 0;
    bool held;
    rk_rate_search_init(&search, load->rate > 0 ? load->rate : FIRST_RATE, RK_CTL_MAX_RATE);
    do {
        load->rate = search.rate;
        load->seed = options->seed + count++;
        const enum rk_status status = rk_load_run(load, result, error);
        if (status != RK_OK)
            return status;
        held = holds(result, options->p99_ms * 1000);
        num_behind += !held && is_behind(result);
        fprintf(stderr, "%4u. %8llu/s: %.1f/s answered, p99 %.3f ms: %s%s\n", count, (unsigned long long)load->rate,
                per_second(result->latency_us.count, result),
                (double)rk_latency_percentile(&result->latency_us, 0.99) / 1000, held ? "holds" : "misses",
                is_behind(result) ? " (the generator was behind)" : "");
    } while (rk_rate_search_tell(&search, held));
    if (options->json)
        printf("{\"found_rate\":%llu,\"p99_ms\":%llu,\"measurements\":%u,\"behind\":%u}\n",
               (unsigned long long)search.low, (unsigned long long)options->p99_ms, count, num_behind);
    else
        printf("%llu requests/s: the highest rate at which 99 %% are answered within %llu ms, within 2 %%\n",
               (unsigned long long)search.low, (unsigned long long)options->p99_ms);
    if (num_behind > 0)
        fprintf(
            stderr,
            "rankctl: in %u of the measurements that missed, the generator was late itself: the server may do more\n",
            num_behind);
    return search.low > 0 ? RK_OK : rk_error_set(error, RK_EXHAUSTED, "no rate holds the bound");
}

static uint64_t warm_up_us(const struct rk_ctl_options *options)
{
    const uint64_t tenth_us = options->seconds * 100000;
    if (options->warmup_ms > 0)
        return options->warmup_ms * 1000;
    return tenth_us < MAX_WARM_UP_US ? tenth_us : MAX_WARM_UP_US;
}

enum rk_exit rk_ctl_bench(const struct rk_ctl_options *options)
{
    struct rk_error error = {0};
    struct messages messages = {.options = options};
    struct rk_load_result *result = malloc(sizeof *result);
    const uint64_t measure_us = options->seconds * 1000000, interval_us = options->log_ms * 1000;
    const size_t num_intervals = (measure_us + interval_us - 1) / interval_us;
    struct rk_interval *intervals = options->log == NULL ? NULL : calloc(num_intervals, sizeof *intervals);
    enum rk_exit code = RK_EXIT_FAILED;
    if (result == NULL || (options->log != NULL && intervals == NULL) || prepare(&messages, &error) != RK_OK) {
        rk_error_set(&error, RK_NO_MEMORY, "out of memory");
        rk_ctl_fail(&error);
        goto done;
    }
    struct rk_load load = {
        .target = options->target,
        .path = options->empty ? RK_PATH_HEALTH : RK_PATH_RANK,
        .messages = messages.list,
        .num_messages = messages.count,
        .connections = options->connections,
        .in_flight = options->in_flight,
        .rate = options->rate,
        .poisson = strcmp(options->arrivals, "poisson") == 0,
        .seed = options->seed,
        .connect_timeout_us = options->connect_timeout_ms * 1000,
        .call_timeout_us = rk_ctl_timeout_us(options),
        .warm_up_us = warm_up_us(options),
        .measure_us = measure_us,
        .interval_us = interval_us,
        .intervals = intervals,
    };
    enum rk_status status =
        options->find_rate ? find_rate(options, &load, result, &error) : rk_load_run(&load, result, &error);
    if (status != RK_OK) {
        rk_ctl_fail(&error);
        code = status == RK_IO ? RK_EXIT_CANNOT_CONNECT : status == RK_INVALID ? RK_EXIT_USAGE : RK_EXIT_FAILED;
        goto done;
    }
    if (options->find_rate) {
        code = RK_EXIT_OK;
        goto done;
    }
    if (options->json)
        print_json(&load, result);
    else
        print_people(&load, result);
    if (options->log != NULL &&
        rk_interval_write(options->log, intervals, num_intervals, result->begin_us, interval_us, &error) != RK_OK) {
        rk_ctl_fail(&error);
        goto done;
    }
    code = result->latency_us.count > 0 && result->lost_connections == 0 ? RK_EXIT_OK : RK_EXIT_FAILED;
done:
    for (size_t i = 0; i < messages.count; i++)
        free((void *)messages.list[i].bytes);
    free(messages.list);
    free(intervals);
    free(result);
    return code;
}
