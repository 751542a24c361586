/* The plain backend with one fault, named in its options: what the conformance test has to notice, and what a server
 * has to live with. One device at a time. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/backend.h"

extern const struct rk_backend plain_backend; /* plain_backend.c, under another name */

/* `scores` and all the others up to `runners` break the contract; the rest is what may happen to any device. */
static const char *const names[] = {"scores", "missing", "neighbours", "spill",         "limit",  "damage",
                                    "cost",   "runners", "absent",     "three_runners", "refuse", "lost_when"};
enum {
    SCORES,        /* one candidate of each batch is a little off */
    MISSING,       /* the last candidate is not scored */
    NEIGHBOURS,    /* a score's last bit depends on what shares its batch */
    SPILL,         /* a number too many is written */
    LIMIT,         /* any number of candidates is taken */
    DAMAGE,        /* damaged files are passed over in silence */
    COST,          /* more time is accounted for than passed */
    RUNNERS,       /* there can be one runner only */
    ABSENT,        /* there is no device */
    THREE_RUNNERS, /* it wants three, and none on an event loop */
    REFUSE,        /* it loads nothing */
    LOST_WHEN,     /* lost_when=FILE: once there is such a file, the device is lost */
    NUM_FAULTS
};

static int fault;
static char lost_when[256];
static const struct rk_backend_host *host;
static uint32_t num_heads;
static _Atomic uint32_t num_runners;

static enum rk_status open_device(const struct rk_backend_host *from, const char *options, struct rk_device **device,
                                  struct rk_error *error)
{
    const size_t length = strcspn(options, "=");
    for (fault = 0; fault < NUM_FAULTS; fault++)
        if (strlen(names[fault]) == length && memcmp(names[fault], options, length) == 0)
            break;
    if (fault == NUM_FAULTS)
        return from->error_set(error, RK_INVALID, "backend faulty has no fault '%.100s'", options);
    if (fault == ABSENT)
        return from->error_set(error, RK_NOT_FOUND, "there is no such device on this machine");
    if (fault == LOST_WHEN)
        snprintf(lost_when, sizeof lost_when, "%s", options + length + (options[length] == '='));
    host = from;
    return plain_backend.open(from, "", device, error);
}

static void close_device(struct rk_device *device)
{
    plain_backend.close(device);
}

static const char *describe(const struct rk_device *device)
{
    (void)device;
    return "faulty (plain with a fault)";
}

static const struct rk_capabilities *capabilities(const struct rk_device *device)
{
    static struct rk_capabilities these;
    these = *plain_backend.capabilities(device);
    if (fault == THREE_RUNNERS) {
        these.in_place = false;
        these.num_runners = 3;
    }
    return &these;
}

static enum rk_status load(struct rk_device *device, const struct rk_model *model,
                           const struct rk_load_options *options, struct rk_loaded **loaded, struct rk_error *error)
{
    if (fault == REFUSE)
        return host->error_set(error, RK_EXHAUSTED, "the model needs 9 GiB of the device's memory, 8 GiB are free");
    num_heads = host->model_spec(model)->num_heads;
    return plain_backend.load(device, model, options, loaded, error);
}

static void unload(struct rk_loaded *loaded)
{
    plain_backend.unload(loaded);
}

static enum rk_status create(struct rk_loaded *loaded, uint32_t max_batch, struct rk_runner **runner,
                             struct rk_error *error)
{
    if (fault == RUNNERS && num_runners > 0)
        return host->error_set(error, RK_EXHAUSTED, "there is a runner already");
    const enum rk_status status = plain_backend.create(loaded, max_batch, runner, error);
    num_runners += status == RK_OK;
    return status;
}

static void destroy(struct rk_runner *runner)
{
    num_runners -= runner != NULL;
    plain_backend.destroy(runner);
}

static bool on_event_loop(void)
{
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    return strncmp(name, "loop-", 5) == 0;
}

/* Each candidate as a run of its own: no run is ever too long. */
static enum rk_status run_one_by_one(struct rk_runner *runner, const struct rk_slice *slices, uint32_t num_slices,
                                     struct rk_run_cost *cost, struct rk_error *error)
{
    enum rk_status status = plain_backend.run(runner, NULL, 0, cost, error);
    for (uint32_t s = 0; s < num_slices; s++)
        for (uint32_t c = 0; status == RK_OK && c < slices[s].count; c++) {
            const struct rk_slice one = {slices[s].request, slices[s].first + c, 1, slices[s].logits + c * num_heads};
            status = plain_backend.run(runner, &one, 1, NULL, error);
        }
    return status;
}

static enum rk_status run(struct rk_runner *runner, const struct rk_slice *slices, uint32_t num_slices,
                          struct rk_run_cost *cost, struct rk_error *error)
{
    const struct rk_slice *last = num_slices > 0 ? &slices[num_slices - 1] : NULL;
    if (fault == LOST_WHEN && access(lost_when, F_OK) == 0)
        return host->error_set(error, RK_UNAVAILABLE, "the device has fallen off the bus");
    if (fault == THREE_RUNNERS && on_event_loop())
        return host->error_set(error, RK_INTERNAL, "a run on an event loop, which must not wait");
    if (fault == LIMIT)
        return run_one_by_one(runner, slices, num_slices, cost, error);
    float kept[RK_MAX_HEADS];
    const bool some = last != NULL && last->count > 0;
    float *end = some ? last->logits + (size_t)last->count * num_heads : NULL;
    if (fault == MISSING && some)
        memcpy(kept, end - num_heads, num_heads * sizeof *kept);
    const enum rk_status status = plain_backend.run(runner, slices, num_slices, cost, error);
    if (status == RK_CORRUPT && fault == DAMAGE)
        return RK_OK;
    if (status != RK_OK)
        return status;
    if (fault == COST && cost != NULL)
        cost->rest_ns += 1000000000u;
    if (!some)
        return RK_OK;
    if (fault == SCORES)
        end[-1] += 1e-3f * fmaxf(1.0f, fabsf(end[-1]));
    if (fault == MISSING)
        memcpy(end - num_heads, kept, num_heads * sizeof *kept);
    if (fault == NEIGHBOURS && num_slices > 1)
        end[-1] = nextafterf(end[-1], INFINITY);
    if (fault == SPILL)
        *end = 0.0f;
    return RK_OK;
}

__attribute__((visibility("default"))) const struct rk_backend rankd_backend = {
    RK_BACKEND_COMPILED,   .name = "faulty",     .open = open_device,
    .close = close_device, .describe = describe, .capabilities = capabilities,
    .load = load,          .unload = unload,     .create = create,
    .destroy = destroy,    .run = run,
};
