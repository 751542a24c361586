/* rankctl bench: encodes the requests once, runs the load, prints what came of it. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "model/jsonl.h"
#include "server/tools/load.h"
#include "server/tools/rank_message.h"
#include "server/tools/rankctl.h"

#define MAX_WARM_UP_US 1000000

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
} percentiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};
#define NUM_PERCENTILES (sizeof percentiles / sizeof *percentiles)

static double per_second(uint64_t count, const struct rk_load_result *result)
{
    return result->elapsed_us == 0 ? 0 : (double)count * 1e6 / (double)result->elapsed_us;
}

static double mean_us(const struct rk_latency *latency)
{
    return latency->count == 0 ? 0 : (double)latency->sum / (double)latency->count;
}

static void print_json(const struct rk_load *load, const struct rk_load_result *result)
{
    const struct rk_latency *latency = &result->latency_us;
    json_t *object = json_object(), *times = json_object(), *statuses = json_object();
    for (int status = 0; status < RK_GRPC_STATUS_COUNT; status++) {
        if (result->by_status[status] > 0)
            json_object_set_new(statuses, rk_grpc_status_name((enum rk_grpc_status)status),
                                json_integer((json_int_t)result->by_status[status]));
    }
    json_object_set_new(times, "mean", json_real(mean_us(latency)));
    for (size_t i = 0; i < NUM_PERCENTILES; i++)
        json_object_set_new(times, percentiles[i].name,
                            json_integer((json_int_t)rk_latency_percentile(latency, percentiles[i].fraction)));
    json_object_set_new(times, "max", json_integer((json_int_t)latency->max));
    json_object_set_new(object, "connections", json_integer((json_int_t)load->connections));
    json_object_set_new(object, "in_flight", json_integer((json_int_t)load->in_flight));
    json_object_set_new(object, "rate", json_integer((json_int_t)load->rate));
    json_object_set_new(object, "seconds", json_real((double)result->elapsed_us / 1e6));
    json_object_set_new(object, "requests_per_s", json_real(per_second(latency->count, result)));
    json_object_set_new(object, "candidates_per_s", json_real(per_second(result->candidates, result)));
    json_object_set_new(object, "latency_us", times);
    json_object_set_new(object, "by_status", statuses);
    json_object_set_new(object, "unsent", json_integer((json_int_t)result->unsent));
    json_object_set_new(object, "unanswered", json_integer((json_int_t)result->unanswered));
    json_object_set_new(object, "lost_connections", json_integer((json_int_t)result->lost_connections));
    json_object_set_new(object, "first_error", json_string(result->first_error));
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static void print_people(const struct rk_load *load, const struct rk_load_result *result)
{
    const struct rk_latency *latency = &result->latency_us;
    printf("%.1f s over %llu connections, ", (double)result->elapsed_us / 1e6, (unsigned long long)load->connections);
    if (load->rate > 0)
        printf("%llu requests/s asked for (open loop)\n", (unsigned long long)load->rate);
    else
        printf("%llu in flight on each (closed loop)\n", (unsigned long long)load->in_flight);
    printf("  requests/s    %.1f\n", per_second(latency->count, result));
    printf("  candidates/s  %.0f\n", per_second(result->candidates, result));
    printf("  latency       mean %.3f ms", mean_us(latency) / 1000);
    for (size_t i = 0; i < NUM_PERCENTILES; i++)
        printf(", %s %.3f", percentiles[i].name,
               (double)rk_latency_percentile(latency, percentiles[i].fraction) / 1000);
    printf(", max %.3f\n", (double)latency->max / 1000);
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
    if (result->first_error[0] != '\0')
        printf("  first error   %s\n", result->first_error);
}

enum rk_exit rk_ctl_bench(const struct rk_ctl_options *options)
{
    struct rk_error error = {0};
    struct messages messages = {.options = options};
    struct rk_load_result *result = malloc(sizeof *result);
    enum rk_exit code = RK_EXIT_FAILED;
    if (result == NULL || prepare(&messages, &error) != RK_OK) {
        rk_error_set(&error, RK_NO_MEMORY, "out of memory");
        rk_ctl_fail(&error);
        goto done;
    }
    uint64_t measure_us = options->seconds * 1000000;
    struct rk_load load = {
        .target = options->target,
        .path = options->empty ? RK_PATH_HEALTH : RK_PATH_RANK,
        .messages = messages.list,
        .num_messages = messages.count,
        .connections = options->connections,
        .in_flight = options->in_flight,
        .rate = options->rate,
        .connect_timeout_us = options->connect_timeout_ms * 1000,
        .call_timeout_us = rk_ctl_timeout_us(options),
        .warm_up_us = measure_us / 10 < MAX_WARM_UP_US ? measure_us / 10 : MAX_WARM_UP_US,
        .measure_us = measure_us,
    };
    enum rk_status status = rk_load_run(&load, result, &error);
    if (status != RK_OK) {
        rk_ctl_fail(&error);
        code = status == RK_IO ? RK_EXIT_CANNOT_CONNECT : status == RK_INVALID ? RK_EXIT_USAGE : RK_EXIT_FAILED;
        goto done;
    }
    if (options->json)
        print_json(&load, result);
    else
        print_people(&load, result);
    code = result->latency_us.count > 0 && result->lost_connections == 0 ? RK_EXIT_OK : RK_EXIT_FAILED;
done:
    for (size_t i = 0; i < messages.count; i++)
        free((void *)messages.list[i].bytes);
    free(messages.list);
    free(result);
    return code;
}
