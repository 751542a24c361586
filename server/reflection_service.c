/* Each question is answered on the spot, from the tables that were made of the .proto files (proto/descriptors.h). The
 * two versions of the protocol differ in their name alone. Questions that cannot be answered get an ErrorResponse; the
 * stream goes on. */
#include "server/reflection_service.h"

#include <string.h>

#include "proto/descriptors.h"
#include "proto/rank_codec.h"
#include "proto/reflection.pb-c.h"
#include "server/printable.h"

#define ARENA_KEEP_BYTES 65536

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;

#define ASKS(what)    GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##what
#define ANSWERS(what) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##what

static enum rk_status refuse(struct rk_arena *arena, Response *response, enum rk_grpc_status code, const char *what,
                             const char *name)
{
    Grpc__Reflection__V1__ErrorResponse *error = rk_arena_alloc(arena, sizeof *error);
    if (error == NULL)
        return RK_NO_MEMORY;
    grpc__reflection__v1__error_response__init(error);
    error->error_code = (int32_t)code;
    error->error_message = rk_arena_printf(arena, "%s '%.200s'", what, name);
    if (error->error_message != NULL)
        rk_printable_make(error->error_message); /* the name may have been cut within a character */
    response->message_response_case = ANSWERS(ERROR_RESPONSE);
    response->error_response = error;
    return error->error_message != NULL ? RK_OK : RK_NO_MEMORY;
}

static enum rk_status give_file(struct rk_arena *arena, Response *response, const struct rk_descriptor_file *file)
{
    Grpc__Reflection__V1__FileDescriptorResponse *answer = rk_arena_alloc(arena, sizeof *answer);
    ProtobufCBinaryData *files = rk_arena_array(arena, file->num_files, sizeof *files);
    if (answer == NULL || files == NULL)
        return RK_NO_MEMORY;
    for (size_t i = 0; i < file->num_files; i++) {
        const struct rk_descriptor_file *each = &rk_descriptor_files[file->files[i]];
        files[i] = (ProtobufCBinaryData){each->num_bytes, (uint8_t *)each->bytes}; /* the encoder only reads */
    }
    grpc__reflection__v1__file_descriptor_response__init(answer);
    answer->file_descriptor_proto = files;
    answer->n_file_descriptor_proto = file->num_files;
    response->message_response_case = ANSWERS(FILE_DESCRIPTOR_RESPONSE);
    response->file_descriptor_response = answer;
    return RK_OK;
}

static enum rk_status list_services(const struct rk_reflection_service *service, struct rk_arena *arena,
                                    Response *response)
{
    const size_t count = *service->num_names;
    Grpc__Reflection__V1__ListServiceResponse *answer = rk_arena_alloc(arena, sizeof *answer);
    Grpc__Reflection__V1__ServiceResponse *items = rk_arena_array(arena, count, sizeof *items);
    Grpc__Reflection__V1__ServiceResponse **list = rk_arena_array(arena, count, sizeof *list);
    if (answer == NULL || items == NULL || list == NULL)
        return RK_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        grpc__reflection__v1__service_response__init(&items[i]);
        items[i].name = (char *)service->names[i];
        list[i] = &items[i];
    }
    grpc__reflection__v1__list_service_response__init(answer);
    answer->service = list;
    answer->n_service = count;
    response->message_response_case = ANSWERS(LIST_SERVICES_RESPONSE);
    response->list_services_response = answer;
    return RK_OK;
}

/* proto3 has no extensions, so that a type of ours has none. */
static enum rk_status list_extensions(struct rk_arena *arena, Response *response, const char *type)
{
    if (rk_descriptor_file_of(type) == NULL)
        return refuse(arena, response, RK_GRPC_NOT_FOUND, "there is no type", type);
    Grpc__Reflection__V1__ExtensionNumberResponse *answer = rk_arena_alloc(arena, sizeof *answer);
    if (answer == NULL)
        return RK_NO_MEMORY;
    grpc__reflection__v1__extension_number_response__init(answer);
    answer->base_type_name = (char *)type;
    response->message_response_case = ANSWERS(ALL_EXTENSION_NUMBERS_RESPONSE);
    response->all_extension_numbers_response = answer;
    return RK_OK;
}

static enum rk_status answer(const struct rk_reflection_service *service, struct rk_arena *arena,
                             const Request *request, Response *response)
{
    const struct rk_descriptor_file *file;
    switch (request->message_request_case) {
    case ASKS(FILE_BY_FILENAME):
        file = rk_descriptor_file_named(request->file_by_filename);
        if (file == NULL)
            return refuse(arena, response, RK_GRPC_NOT_FOUND, "there is no file", request->file_by_filename);
        return give_file(arena, response, file);
    case ASKS(FILE_CONTAINING_SYMBOL):
        file = rk_descriptor_file_of(request->file_containing_symbol);
        if (file == NULL)
            return refuse(arena, response, RK_GRPC_NOT_FOUND, "there is no symbol", request->file_containing_symbol);
        return give_file(arena, response, file);
    case ASKS(FILE_CONTAINING_EXTENSION):
        return refuse(arena, response, RK_GRPC_NOT_FOUND, "there are no extensions of",
                      request->file_containing_extension->containing_type);
    case ASKS(ALL_EXTENSION_NUMBERS_OF_TYPE):
        return list_extensions(arena, response, request->all_extension_numbers_of_type);
    case ASKS(LIST_SERVICES):
        return list_services(service, arena, response);
    default:
        return refuse(arena, response, RK_GRPC_INVALID_ARGUMENT, "message_request is not set; host is", request->host);
    }
}

static enum rk_status handle(struct rk_reflection_service *service, struct rk_call *call, const uint8_t *bytes,
                             size_t length, struct rk_error *error)
{
    ProtobufCMessage *decoded;
    enum rk_status status = rk_message_decode(&grpc__reflection__v1__server_reflection_request__descriptor, bytes,
                                              length, &service->arena, &decoded, error);
    if (status != RK_OK)
        return status;
    Request *request = (Request *)decoded;
    Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    response.valid_host = request->host;
    response.original_request = request;
    status = answer(service, &service->arena, request, &response);
    uint8_t *encoded;
    size_t encoded_bytes;
    if (status == RK_OK)
        status = rk_message_encode(&response.base, &service->arena, &encoded, &encoded_bytes);
    return status == RK_OK ? rk_call_send(call, encoded, encoded_bytes) : status;
}

static void message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_reflection_service *service = argument;
    struct rk_error error = {0};
    enum rk_status status = handle(service, call, bytes, length, &error);
    if (status != RK_OK)
        rk_call_finish(call, rk_grpc_status_of(status), error.text[0] != '\0' ? error.text : NULL);
    else if (rk_call_queued_bytes(call) >= RK_CALL_OUTPUT_MARK)
        rk_call_pause(call); /* a question is much shorter than its answer */
    rk_arena_reset(&service->arena, ARENA_KEEP_BYTES);
}

static void writable(void *argument, struct rk_call *call)
{
    (void)argument;
    rk_call_resume(call);
}

static void half_close(void *argument, struct rk_call *call)
{
    (void)argument;
    rk_call_finish(call, RK_GRPC_OK, NULL);
}

static void leaving(void *argument, struct rk_call *call)
{
    (void)argument;
    rk_call_finish(call, RK_GRPC_UNAVAILABLE, "this connection is going away: ask on another");
}

void rk_reflection_service_methods(struct rk_reflection_service *service, struct rk_method *methods)
{
    static const char *const paths[RK_REFLECTION_METHODS] = {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    };
    for (size_t i = 0; i < RK_REFLECTION_METHODS; i++)
        methods[i] = (struct rk_method){.path = paths[i],
                                        .kind = RK_METHOD_BIDI,
                                        .message = message,
                                        .half_close = half_close,
                                        .writable = writable,
                                        .leaving = leaving,
                                        .service = service};
}
