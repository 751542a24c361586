/* The way of a Rank call:
 *
 *   message  (loop)    decode, find the model, bind, queue; or the express lane, and all of it stays on the loop
 *   settled  (worker)  make the answer, post the job to the loop's mailbox
 *   deliver  (loop)    send the answer, recycle the job
 *
 * A call that ends early (cancelled, expired) leaves its job behind: `cancelled` keeps workers from starting it, and
 * deliver finds no call to answer. */
#include "server/rank_service.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "proto/rank_codec.h"
#include "server/clock.h"
#include "server/connection.h"
#include "server/job_cost.h"
#include "server/rank_answer.h"

#define MAX_REQUEST_ID_BYTES 128

/* ---- ending a call ---- */

static void count_end(struct rk_rank_service *service, const struct rk_served_model *model, bool failed)
{
    rk_counter_add(&service->loop->counters.requests, 1);
    if (failed)
        rk_counter_add(&service->loop->counters.request_errors, 1);
    if (model != NULL)
        rk_counter_add(&service->models[model->index].requests, 1);
}

static void finish(struct rk_call *call, enum rk_status status, const char *text)
{
    struct rk_connection *connection = rk_grpc_session_owner(rk_call_session(call));
    rk_call_finish(call, rk_grpc_status_of(status), text);
    rk_connection_touch(connection);
}

/* Ends a unary call. */
static enum rk_status reply(struct rk_job *job, enum rk_status status, const char *text)
{
    const struct rk_rank_details *details = job->details;
    if (status == RK_OK) {
        status = rk_call_send(job->call, details->answer, details->answer_bytes);
        text = status != RK_OK ? "this connection has too many answers that its peer does not take" : NULL;
    }
    finish(job->call, status, text);
    return status;
}

static const char *failure_text(const struct rk_job *job, enum rk_status status)
{
    const struct rk_rank_details *details = job->details;
    if (details->error.text[0] != '\0')
        return details->error.text;
    if (job->refusal.reason != RK_NOT_REFUSED)
        return rk_refusal_text(job->refusal.reason);
    switch (status) {
    case RK_DEADLINE:
        return rk_refusal_text(RK_REFUSED_LATE);
    case RK_CORRUPT:
        return "the model's files were damaged while it was served; its scores cannot be trusted";
    case RK_CANCELLED:
        return "cancelled";
    case RK_UNAVAILABLE:
        return "the device that computes is lost; another server may answer";
    default:
        return "the engine failed";
    }
}

static void print_pushback(const struct rk_job_refusal *refusal, char *text, size_t capacity)
{
    snprintf(text, capacity, "%u", refusal->pushback_ms);
}

/* When a request that was sent away while it waited may come again. */
static void add_pushback(const struct rk_job *job)
{
    char text[16];
    print_pushback(&job->refusal, text, sizeof text);
    rk_call_add_trailer(job->call, "grpc-retry-pushback-ms", text);
}

/* Its client has gone. Was that because it took until now? */
static void count_late(struct rk_rank_service *service, const struct rk_job *job)
{
    if (atomic_load_explicit(&job->status, memory_order_relaxed) == RK_OK && job->deadline_us <= rk_clock_us())
        rk_counter_add(&service->loop->counters.computed_late, 1);
}

static void deliver(void *receiver, struct rk_mail *mail)
{
    struct rk_loop *loop = receiver;
    struct rk_job *job = (struct rk_job *)mail;
    struct rk_rank_service *service = job->service;
    const struct rk_rank_details *details = job->details;
    if (job->call != NULL) {
        enum rk_status status = (enum rk_status)atomic_load_explicit(&job->status, memory_order_relaxed);
        if (status == RK_OK && details->answer == NULL)
            status = details->error.status;
        const char *text = status != RK_OK ? failure_text(job, status) : NULL;
        if (job->refusal.pushback_ms > 0 && details->protocol->reply == NULL)
            add_pushback(job);
        status =
            details->protocol->reply != NULL ? details->protocol->reply(job, status, text) : reply(job, status, text);
        if (status == RK_OK)
            rk_counter_add(&service->models[job->model->index].candidates, job->request.num_candidates);
        count_end(service, job->model, status != RK_OK);
    } else {
        count_late(service, job);
    }
    rk_job_release(loop->jobs, job);
}

/* On the worker that settled the last candidate. */
static void settled(struct rk_job *job)
{
    struct rk_rank_service *service = job->service;
    if (atomic_load_explicit(&job->status, memory_order_relaxed) == RK_OK &&
        !atomic_load_explicit(&job->cancelled, memory_order_relaxed))
        rk_rank_answer(job);
    rk_mailbox_post(&service->loop->mailbox, &job->mail);
}

/* On the loop, for a job of the express lane. */
static void settled_here(struct rk_job *job)
{
    struct rk_rank_service *service = job->service;
    if (atomic_load_explicit(&job->status, memory_order_relaxed) == RK_OK && job->call != NULL)
        rk_rank_answer(job);
    deliver(service->loop, &job->mail);
}

void rk_rank_abandon(struct rk_rank_service *service, struct rk_job *job)
{
    count_end(service, job->model, true);
    job->call = NULL;
    atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
    rk_queue_cancel(service->queue, job);
}

static void cancelled(void *argument, struct rk_call *call)
{
    const struct rk_rank_entry *entry = argument;
    struct rk_job *job = rk_call_data(call);
    if (job != NULL)
        rk_rank_abandon(entry->service, job);
    else
        count_end(entry->service, NULL, true);
}

/* ---- from the message to the job ---- */

static struct rk_named_block named_block(const Rankd__V1__Features *features, struct rk_arena *arena, bool *ok)
{
    struct rk_named_block block = {0};
    if (features == NULL)
        return block;
    struct rk_named_bags *bags = rk_arena_array(arena, features->n_ids, sizeof *bags);
    if (bags == NULL || features->n_ids > UINT32_MAX) {
        *ok = false;
        return block;
    }
    for (size_t i = 0; i < features->n_ids; i++) {
        const Rankd__V1__JaggedIds *jagged = features->ids[i];
        bags[i] = (struct rk_named_bags){.name = jagged->feature,
                                         .name_bytes = strlen(jagged->feature),
                                         .ids = jagged->ids,
                                         .num_ids = jagged->n_ids,
                                         .lengths = jagged->lengths,
                                         .num_lengths = jagged->n_lengths,
                                         .weights = jagged->weights,
                                         .num_weights = jagged->n_weights};
    }
    return (struct rk_named_block){.dense = features->dense,
                                   .num_dense = features->n_dense,
                                   .features = bags,
                                   .num_features = (uint32_t)features->n_ids};
}

static enum rk_status find_model(const struct rk_rank_service *service, const Rankd__V1__RankRequest *message,
                                 const struct rk_served_model **model, struct rk_error *error)
{
    if (message->version < 0)
        return rk_error_set(error, RK_INVALID,
                            "version is %" PRId64 "; it takes 0 for the one being served, or its number",
                            message->version);
    const struct rk_served_model *found = rk_registry_find(service->registry, message->model);
    if (found == NULL) {
        char served[300];
        rk_registry_list(service->registry, served, sizeof served);
        return rk_error_set(error, RK_NOT_FOUND, "there is no model '%.*s'; served: %s", (int)RK_MAX_NAME_BYTES,
                            message->model, served);
    }
    *model = found; /* also when the version is another: the call counts as the model's */
    if (message->version != 0 && message->version != found->version)
        return rk_error_set(error, RK_NOT_FOUND, "model '%s' version %" PRId64 " is not served; version %" PRId64 " is",
                            found->name, message->version, found->version);
    if (rk_model_damaged(found->model))
        return rk_error_set(error, RK_CORRUPT,
                            "the files of model '%s' version %" PRId64
                            " were damaged while it was served; publish it anew",
                            found->name, found->version);
    return RK_OK;
}

/* Checks the message and makes of it what the engine reads. */
static enum rk_status fill(struct rk_rank_service *service, struct rk_job *job, struct rk_rank_details *details,
                           struct rk_error *error)
{
    const Rankd__V1__RankRequest *message = details->message;
    size_t id_bytes = strlen(message->request_id);
    if (id_bytes > MAX_REQUEST_ID_BYTES)
        return rk_error_set(error, RK_INVALID, "request_id is %zu bytes long; at most %d are echoed", id_bytes,
                            MAX_REQUEST_ID_BYTES);
    enum rk_status status = rk_priorities_find(service->priorities, message->priority, &job->priority, error);
    if (status == RK_OK)
        status = find_model(service, message, &job->model, error);
    if (status != RK_OK)
        return status;
    const struct rk_model_spec *spec = job->model->spec;
    if (message->n_candidate_ids != 0 && message->n_candidate_ids != message->num_candidates)
        return rk_error_set(error, RK_INVALID, "candidate_ids has %zu values for %u candidates; give none, or one each",
                            message->n_candidate_ids, message->num_candidates);
    status = rk_rank_order_choose(message, spec, &job->arena, &details->order, error);
    if (status != RK_OK)
        return status;
    bool ok = true;
    struct rk_named_request named = {.id = message->request_id,
                                     .context = named_block(message->context, &job->arena, &ok),
                                     .candidates = named_block(message->candidates, &job->arena, &ok),
                                     .num_candidates = message->num_candidates};
    if (!ok)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request's features");
    status = rk_request_bind(spec, &service->limits, &named, &job->arena, &job->request, error);
    if (status != RK_OK)
        return status;
    job->logits = rk_arena_alloc(&job->arena, (size_t)job->request.num_candidates * spec->num_heads * sizeof(float));
    if (job->logits == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the logits of %u candidates",
                            job->request.num_candidates);
    return RK_OK;
}

/* Comes last: what follows is waiting. */
static enum rk_status start_cost(struct rk_job *job, struct rk_error *error)
{
    const struct rk_rank_details *details = job->details;
    if (!details->message->include_costs)
        return RK_OK;
    job->cost = rk_arena_array(&job->arena, 1, sizeof *job->cost);
    if (job->cost == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the costs");
    job->cost->start_ns = details->start_us * 1000u;
    job->cost->queued_ns = rk_clock_ns();
    return RK_OK;
}

static enum rk_status decode(const struct rk_rank_entry *entry, struct rk_job *job, const uint8_t *bytes, size_t length,
                             struct rk_error *error)
{
    struct rk_rank_details *details = rk_arena_array(&job->arena, 1, sizeof *details);
    if (details == NULL)
        return rk_error_set(error, RK_NO_MEMORY, "out of memory for the request");
    details->protocol = entry->protocol;
    details->start_us = rk_call_start_us(job->call);
    job->details = details;
    return entry->protocol->decode(entry, job, bytes, length, error);
}

/* ---- what is taken, and what is not ---- */

/* Who shares with whom: a client is its token's name, or the first of its certificate, or an address without the port.
 */
static void identify(const struct rk_call *call, uint64_t *client, uint64_t *its_connection)
{
    const struct rk_connection *connection = rk_grpc_session_owner(rk_call_session(call));
    const struct rk_peer *peer = rk_connection_peer(connection);
    const char *token = rk_call_client(call), *certificate = peer->num_names > 0 ? peer->names[0] : NULL;
    const char *known = token != NULL ? token : certificate, *name = known != NULL ? known : peer->address;
    const char *port = known != NULL ? NULL : strrchr(name, ':');
    *client = XXH3_64bits(name, port != NULL ? (size_t)(port - name) : strlen(name));
    *its_connection = (uint64_t)(uintptr_t)connection;
}

static enum rk_status refuse(const struct rk_rank_service *service, const struct rk_served_model *model,
                             uint32_t priority, const struct rk_job_refusal *why, struct rk_rank_refusal *refusal)
{
    const enum rk_status status = rk_refusal_status(why->reason);
    if (why->pushback_ms > 0) {
        print_pushback(why, refusal->pushback_ms_text, sizeof refusal->pushback_ms_text);
        refusal->pushback_ms = refusal->pushback_ms_text;
    }
    return rk_error_set(&refusal->error, status, "%s; model '%s', priority %s", rk_refusal_text(why->reason),
                        model->name, service->priorities->classes[priority].name);
}

/* So many of the candidates are ranked. */
static uint32_t ranked_candidates(const struct rk_rank_entry *entry, uint32_t priority, uint32_t num_candidates)
{
    const struct rk_rank_service *service = entry->service;
    const uint32_t most = service->degraded_candidates;
    if (most == 0 || num_candidates <= most || !entry->protocol->can_degrade ||
        !rk_queue_overloaded(service->queue, priority))
        return num_candidates;
    return most;
}

static bool copy_name(const uint8_t *bytes, size_t length, char *name, size_t capacity)
{
    if (length >= capacity || (length > 0 && memchr(bytes, '\0', length) != NULL))
        return false;
    if (length > 0)
        memcpy(name, bytes, length);
    name[length] = '\0';
    return true;
}

/* Is this message refused as it is? What cannot be told without decoding it is not. */
static bool refused_undecoded(const struct rk_rank_entry *entry, struct rk_call *call, const uint8_t *bytes,
                              size_t length, struct rk_rank_refusal *refusal)
{
    struct rk_rank_service *service = entry->service;
    char name[RK_MAX_NAME_BYTES + 1], priority[RK_PRIORITY_NAME_BYTES];
    struct rk_rank_peek peek;
    struct rk_ask ask = {.deadline_us = rk_call_deadline_us(call), .bytes = length};
    if (entry->protocol->peek == NULL || rk_queue_num_jobs(service->queue) == 0 ||
        !entry->protocol->peek(bytes, length, &peek) || peek.num_candidates == 0 ||
        !copy_name(peek.model, peek.model_bytes, name, sizeof name) ||
        !copy_name(peek.priority, peek.priority_bytes, priority, sizeof priority) ||
        rk_priorities_find(service->priorities, priority, &ask.priority, NULL) != RK_OK ||
        (ask.model = rk_registry_find(service->registry, name)) == NULL ||
        rk_express_may_take(service->express, ask.model, peek.num_candidates))
        return false;
    struct rk_job_refusal why;
    ask.num_candidates = ranked_candidates(entry, ask.priority, peek.num_candidates);
    identify(call, &ask.client, &ask.connection);
    if (!rk_queue_refuses(service->queue, &ask, rk_clock_us(), &why))
        return false;
    refuse(service, ask.model, ask.priority, &why, refusal);
    rk_call_note(call, ask.model->name, peek.num_candidates);
    count_end(service, ask.model, true);
    return true;
}

/* In an overload, the first candidates may have to do. */
static void degrade(const struct rk_rank_entry *entry, struct rk_job *job)
{
    struct rk_rank_details *details = job->details;
    const uint32_t num_candidates = job->request.num_candidates;
    const uint32_t ranked = ranked_candidates(entry, job->priority, num_candidates);
    if (ranked == num_candidates)
        return;
    job->request.num_ids = (uint64_t)((double)job->request.num_ids * ranked / num_candidates);
    job->request.num_candidates = ranked; /* arrays go candidate by candidate: the others are left unread */
    details->degraded = true;
    rk_counter_add(&entry->service->loop->counters.degraded, 1);
}

/* To the express lane or the queue; it is theirs then. */
static enum rk_status submit(struct rk_rank_service *service, struct rk_job *job)
{
    job->mail.deliver = deliver;
    job->settled = settled_here;
    if (rk_express_take(service->express, job))
        return RK_OK;
    job->settled = settled;
    return rk_queue_push(service->queue, job, rk_clock_us());
}

static void explain(const struct rk_rank_service *service, const struct rk_job *job, enum rk_status status,
                    struct rk_rank_refusal *refusal)
{
    if (job->refusal.reason != RK_NOT_REFUSED)
        refuse(service, job->model, job->priority, &job->refusal, refusal);
    else if (status == RK_CANCELLED)
        rk_error_set(&refusal->error, status, "the server is stopping");
}

struct rk_job *rk_rank_begin(const struct rk_rank_entry *entry, struct rk_call *call, const uint8_t *bytes,
                             size_t length, struct rk_rank_refusal *refusal)
{
    struct rk_rank_service *service = entry->service;
    *refusal = (struct rk_rank_refusal){0};
    if (rk_memory_limit_reached(service->memory, length, rk_call_start_us(call))) {
        rk_error_set(&refusal->error, RK_EXHAUSTED, "%s", rk_refusal_text(RK_REFUSED_MEMORY));
        rk_counter_add(&service->loop->counters.refused_for_memory, 1);
        count_end(service, NULL, true);
        return NULL;
    }
    if (refused_undecoded(entry, call, bytes, length, refusal))
        return NULL;
    struct rk_job *job = rk_job_acquire(service->loop->jobs);
    if (job == NULL) {
        rk_error_set(&refusal->error, RK_NO_MEMORY, "out of memory for the request");
        count_end(service, NULL, true);
        return NULL;
    }
    job->service = service;
    job->call = call;
    job->deadline_us = rk_call_deadline_us(call);
    enum rk_status status = decode(entry, job, bytes, length, &refusal->error);
    if (status == RK_OK)
        status = fill(service, job, job->details, &refusal->error);
    if (job->model != NULL)
        rk_call_note(call, job->model->name, job->request.num_candidates);
    if (status == RK_OK) {
        degrade(entry, job);
        identify(call, &job->client, &job->connection);
        job->bytes = job->arena.used_bytes;
        status = start_cost(job, &refusal->error);
    }
    if (job->request.out_of_range_ids > 0) /* refused or not */
        rk_counter_add(&service->models[job->model->index].out_of_range_ids, job->request.out_of_range_ids);
    if (status == RK_OK)
        status = submit(service, job);
    if (status == RK_OK)
        return job;
    explain(service, job, status, refusal);
    count_end(service, job->model, true);
    rk_job_release(service->loop->jobs, job);
    return NULL;
}

static void message(void *argument, struct rk_call *call, const uint8_t *bytes, size_t length)
{
    struct rk_rank_refusal refusal;
    struct rk_job *job = rk_rank_begin(argument, call, bytes, length, &refusal);
    rk_call_set_data(call, job);
    if (job != NULL)
        return;
    if (refusal.pushback_ms != NULL)
        rk_call_add_trailer(call, "grpc-retry-pushback-ms", refusal.pushback_ms);
    finish(call, refusal.error.status, refusal.error.text);
}

struct rk_method rk_rank_entry_method(struct rk_rank_entry *entry, const char *path)
{
    return (struct rk_method){
        .path = path, .kind = RK_METHOD_UNARY, .message = message, .cancelled = cancelled, .service = entry};
}

/* ---- rankd's own protocol ---- */

static enum rk_status decode_rank(const struct rk_rank_entry *entry, struct rk_job *job, const uint8_t *bytes,
                                  size_t length, struct rk_error *error)
{
    (void)entry;
    struct rk_rank_details *details = job->details;
    return rk_rank_request_decode(bytes, length, &job->arena, &details->message, error);
}

static enum rk_status encode_rank(struct rk_job *job, const Rankd__V1__RankResponse *response, uint8_t **bytes,
                                  size_t *length)
{
    return rk_rank_response_encode(response, &job->arena, bytes, length);
}

const struct rk_rank_protocol rk_rank_protocol = {.peek = rk_rank_peek,
                                                  .can_degrade = true,
                                                  .decode = decode_rank,
                                                  .encode = encode_rank};
