/* rankctl status and rankctl health: one call each, printed for people or as JSON. */
#include <jansson.h>
#include <string.h>

#include "proto/health.pb-c.h"
#include "proto/rank_codec.h"
#include "server/tools/rankctl.h"

/* Calls `path` with `request` and decodes the answer into the arena. */
static enum rk_exit ask(const struct rk_ctl_options *options, const char *path, const ProtobufCMessage *request,
                        const ProtobufCMessageDescriptor *answer_type, struct rk_arena *arena,
                        ProtobufCMessage **answer)
{
    struct rk_error error = {0};
    struct rk_grpc_client *client = NULL;
    enum rk_exit result = rk_ctl_connect(options, &client);
    if (result != RK_EXIT_OK)
        return result;
    uint8_t *bytes;
    size_t length;
    struct rk_grpc_reply reply;
    enum rk_status status = rk_message_encode(request, arena, &bytes, &length);
    if (status == RK_OK)
        status = rk_grpc_client_call(client, path, bytes, length, rk_ctl_timeout_us(options), &reply, &error);
    if (status == RK_OK && reply.status != RK_GRPC_OK)
        status = rk_error_set(&error, RK_INVALID, "%s: %s", rk_grpc_status_name(reply.status), reply.message);
    if (status == RK_OK)
        status = rk_message_decode(answer_type, reply.bytes, reply.length, arena, answer, &error);
    rk_grpc_client_close(client);
    if (status == RK_OK)
        return RK_EXIT_OK;
    rk_error_set(&error, status, "%s", rk_status_name(status));
    return rk_ctl_fail(&error);
}

/* ---- status ---- */

static json_t *model_json(const Rankd__V1__ModelStatus *model)
{
    json_t *heads = json_array(), *value_models = json_array();
    for (size_t i = 0; i < model->n_heads; i++)
        json_array_append_new(heads, json_string(model->heads[i]));
    for (size_t i = 0; i < model->n_value_models; i++)
        json_array_append_new(value_models, json_string(model->value_models[i]));
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(model->name));
    json_object_set_new(object, "version", json_integer(model->version));
    json_object_set_new(object, "state", json_string(model->state));
    json_object_set_new(object, "detail", json_string(model->detail));
    json_object_set_new(object, "bytes", json_integer((json_int_t)model->bytes));
    json_object_set_new(object, "requests", json_integer((json_int_t)model->requests));
    json_object_set_new(object, "candidates", json_integer((json_int_t)model->candidates));
    json_object_set_new(object, "out_of_range_ids", json_integer((json_int_t)model->out_of_range_ids));
    json_object_set_new(object, "heads", heads);
    json_object_set_new(object, "value_models", value_models);
    json_object_set_new(object, "default_value_model", json_string(model->default_value_model));
    json_object_set_new(object, "cost", json_string(model->cost));
    return object;
}

static void print_status_json(const Rankd__V1__StatusResponse *status)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"uptime_s", status->uptime_s},
        {"workers", status->workers},
        {"event_loops", status->event_loops},
        {"connections", status->connections},
        {"requests", status->requests},
        {"request_errors", status->request_errors},
        {"batches", status->batches},
        {"batched_candidates", status->batched_candidates},
        {"batched_requests", status->batched_requests},
        {"queued", status->queued},
        {"late", status->late},
        {"computed_late", status->computed_late},
        {"degraded", status->degraded},
    };
    json_t *object = json_object(), *models = json_array(), *refusals = json_object(), *overloaded = json_array();
    json_object_set_new(object, "build", json_string(status->build));
    json_object_set_new(object, "backend", json_string(status->backend));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(object, numbers[i].name, json_integer((json_int_t)numbers[i].value));
    for (size_t i = 0; i < status->n_models; i++)
        json_array_append_new(models, model_json(status->models[i]));
    json_object_set_new(object, "models", models);
    for (size_t i = 0; i < status->n_refusals; i++)
        json_object_set_new(refusals, status->refusals[i]->reason,
                            json_integer((json_int_t)status->refusals[i]->count));
    json_object_set_new(object, "refusals", refusals);
    for (size_t i = 0; i < status->n_overloaded; i++)
        json_array_append_new(overloaded, json_string(status->overloaded[i]));
    json_object_set_new(object, "overloaded", overloaded);
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

static double ratio(uint64_t a, uint64_t b)
{
    return b == 0 ? 0 : (double)a / (double)b;
}

/* Only when there is something to say. */
static void print_refusals(const Rankd__V1__StatusResponse *status)
{
    const char *before = "  refused      ";
    for (size_t i = 0; i < status->n_refusals; i++) {
        if (status->refusals[i]->count == 0)
            continue;
        printf("%s%llu %s", before, (unsigned long long)status->refusals[i]->count, status->refusals[i]->reason);
        before = ", ";
    }
    if (before[0] == ',')
        putchar('\n');
    for (size_t i = 0; i < status->n_overloaded; i++)
        printf("  overloaded   with %s requests, now\n", status->overloaded[i]);
    if (status->degraded > 0 || status->computed_late > 0)
        printf("  overload     %llu requests of which only the first candidates were ranked, %llu computed too late\n",
               (unsigned long long)status->degraded, (unsigned long long)status->computed_late);
}

static void print_status(const char *target, const Rankd__V1__StatusResponse *status)
{
    uint64_t up = status->uptime_s;
    printf("rankd %s at %s, up %llud %02u:%02u:%02u\n", status->build, target, (unsigned long long)(up / 86400),
           (unsigned)(up / 3600 % 24), (unsigned)(up / 60 % 60), (unsigned)(up % 60));
    printf("  backend      %s\n", status->backend);
    printf("  threads      %u workers, %u event loops\n", status->workers, status->event_loops);
    printf("  connections  %llu open\n", (unsigned long long)status->connections);
    printf("  requests     %llu answered, %llu of them with errors, %llu too late to compute, %llu waiting\n",
           (unsigned long long)status->requests, (unsigned long long)status->request_errors,
           (unsigned long long)status->late, (unsigned long long)status->queued);
    print_refusals(status);
    printf("  batches      %llu, on average %.2f requests and %.1f candidates\n", (unsigned long long)status->batches,
           ratio(status->batched_requests, status->batches), ratio(status->batched_candidates, status->batches));
    printf("models\n");
    for (size_t i = 0; i < status->n_models; i++) {
        const Rankd__V1__ModelStatus *model = status->models[i];
        printf("  %s version %lld: %s, %.1f MiB, %llu requests, %llu candidates, heads", model->name,
               (long long)model->version, model->state, (double)model->bytes / 1048576,
               (unsigned long long)model->requests, (unsigned long long)model->candidates);
        for (size_t head = 0; head < model->n_heads; head++)
            printf(" %s", model->heads[head]);
        for (size_t value = 0; value < model->n_value_models; value++)
            printf("%s %s%s", value == 0 ? ", value models" : "", model->value_models[value],
                   strcmp(model->value_models[value], model->default_value_model) == 0 ? " (default)" : "");
        if (model->out_of_range_ids > 0)
            printf("; %llu ids were outside their table", (unsigned long long)model->out_of_range_ids);
        printf("%s%s\n", model->detail[0] != '\0' ? "; " : "", model->detail);
        printf("    %s\n", model->cost);
    }
    if (status->n_models == 0)
        printf("  none: put a package at <model repository>/<name>/<version> and start rankd again\n");
}

enum rk_exit rk_ctl_status(const struct rk_ctl_options *options)
{
    struct rk_arena arena;
    rk_arena_init(&arena, 65536);
    Rankd__V1__StatusRequest request = RANKD__V1__STATUS_REQUEST__INIT;
    ProtobufCMessage *answer;
    enum rk_exit result =
        ask(options, RK_PATH_STATUS, &request.base, &rankd__v1__status_response__descriptor, &arena, &answer);
    if (result == RK_EXIT_OK) {
        const Rankd__V1__StatusResponse *status = (const Rankd__V1__StatusResponse *)answer;
        if (options->json)
            print_status_json(status);
        else
            print_status(options->target, status);
    }
    rk_arena_deinit(&arena);
    return result;
}

/* ---- health ---- */

enum rk_exit rk_ctl_health(const struct rk_ctl_options *options)
{
    struct rk_arena arena;
    rk_arena_init(&arena, 4096);
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)(options->service != NULL ? options->service : "");
    ProtobufCMessage *answer;
    enum rk_exit result = ask(options, RK_PATH_HEALTH, &request.base,
                              &grpc__health__v1__health_check_response__descriptor, &arena, &answer);
    if (result == RK_EXIT_OK) {
        int health = (int)((const Grpc__Health__V1__HealthCheckResponse *)answer)->status;
        const ProtobufCEnumValue *value =
            protobuf_c_enum_descriptor_get_value(&grpc__health__v1__health_check_response__serving_status__descriptor,
                                                 health);
        const char *name = value != NULL ? value->name : "UNKNOWN";
        if (options->json)
            printf("{\"status\":\"%s\"}\n", name);
        else
            printf("%s\n", name);
        if (health != GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING)
            result = RK_EXIT_FAILED;
    }
    rk_arena_deinit(&arena);
    return result;
}
