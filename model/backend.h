/* Backends: what computes the scores of a loaded model. The processor is one (model/backend_cpu.c, the default);
 * accelerators are plug-ins, shared libraries that rankd opens at run time (model/backends.h says where it looks). This
 * header is all that a plug-in is compiled with, and the whole of the contract.
 *
 * Objects, each the backend's own, from the outside in:
 *
 *   struct rk_device   an opened device: open()   .. close()
 *   struct rk_loaded   a model in it:    load()   .. unload()    before the device is closed
 *   struct rk_runner   what one thread runs batches with: create() .. destroy()   before the model is unloaded
 *
 * Threads. open, load, unload and close are called by one thread at a time. Runners are created, run and destroyed by
 * any threads at once, but each runner by one at a time. A backend may have threads of its own; it calls nothing of
 * rankd's from them but the host functions below.
 *
 * Asynchronous devices. run() returns when its logits are written; the caller's thread sleeps meanwhile or computes.
 * Several batches are in flight because several runners are: each worker of rankd has one, and a device says how many
 * it wants (num_runners), for instance a stream with pinned staging memory each, so that one batch is copied while
 * another is computed. So there is nothing to poll, a batch's jobs never wait for another's, and a processor, which has
 * nothing to wait for, pays one indirect call a batch.
 *
 * Ownership. The spec, weights and rows that the host functions show stay where they are until unload(): a device may
 * copy them in load() or read them in place. A slice's request and logits are only the caller's memory for the time of
 * the run. Names and texts that a backend returns are valid until close(). Nothing that one side has allocated is freed
 * by the other. unload and destroy take NULL.
 *
 * Errors. Every failure has a status and, where there is a `struct rk_error *` (which may be NULL), a text for people:
 * what failed, with its value, and what to do. The statuses that mean something to the caller:
 *
 *   RK_NOT_FOUND     open: there is no such device on this machine
 *   RK_INVALID       open: wrong options, create: max_batch is 0
 *   RK_UNSUPPORTED   load: what the model has that the backend cannot do (beyond the capabilities, which the caller
 *                    has checked)
 *   RK_EXHAUSTED     load, create: the device's memory is too small; how much is needed, how much is free
 *   RK_CORRUPT       load, run: host->model_damaged() was true afterwards: scores are worthless
 *   RK_INTERNAL      run: the counts sum to more than max_batch; no logit was written
 *   RK_UNAVAILABLE   run: the device is lost. Every later run says so too, at once. rankd then answers UNAVAILABLE,
 *                    reports itself as not serving, and waits to be restarted; close() and the others must still return
 *
 * Logits. Each logit is a function of its candidate and its request's context alone, the same bits in whatever batch,
 * place and runner. What the function is: model/FORMAT.md; how far from the processor's result it may be: `exact` and
 * `error`. tests/conformance holds a backend to all of this. */
#ifndef RANKD_MODEL_BACKEND_H
#define RANKD_MODEL_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "embeddings/kept.h"
#include "model/engine.h"
#include "model/model.h"
#include "model/request.h"
#include "quant/base/status.h"

/* Grows with every change of this contract's meaning. */
#define RK_BACKEND_ABI 1u

/* Follows from what is passed, so that a plug-in that was compiled with other headers is noticed when it is opened. */
#define RK_BACKEND_LAYOUT                                                                                              \
    ((uint64_t)(sizeof(struct rk_backend_host) * 3 + sizeof(struct rk_capabilities) * 5 +                              \
                sizeof(struct rk_load_options) * 7 + sizeof(struct rk_model_spec) * 11 +                               \
                sizeof(struct rk_table_spec) * 13 + sizeof(struct rk_shard_spec) * 17 +                                \
                sizeof(struct rk_feature_spec) * 19 + sizeof(struct rk_linear_spec) * 23 +                             \
                sizeof(struct rk_cross_spec) * 29 + sizeof(struct rk_request) * 31 + sizeof(struct rk_bags) * 37 +     \
                sizeof(struct rk_slice) * 41 + sizeof(struct rk_run_cost) * 43 + sizeof(struct rk_error) * 47 +        \
                RK_ROW_FORMAT_COUNT * 53 + RK_DENSE_FORMAT_COUNT * 59 + RK_STATUS_COUNT * 61))

struct rk_device;
struct rk_loaded;
struct rk_runner;

/* What rankd offers to a backend. A plug-in calls nothing of rankd's by name: it has no symbols of it, and could be
 * loaded by another program than rankd. Everything here may be called by any thread. */
struct rk_backend_host {
    /* As quant/base/status.h has it: sets the error unless one is set; error may be NULL. Returns `status`. */
    enum rk_status (*error_set)(struct rk_error *error, enum rk_status status, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

    /* The model, in the form in which its package has it (model/spec.h, model/FORMAT.md). */
    const struct rk_model_spec *(*model_spec)(const struct rk_model *model);
    const void *(*model_weights)(const struct rk_model *model); /* tensors are at their offsets in it */
    /* The row that a resolved id reads, in the table's format (quant/rows.h), unaligned. */
    const void *(*model_row)(const struct rk_model *model, uint32_t table, uint64_t id);
    /* To copy a table: its stored rows from number `first` on, one behind the other; *count is how many of them.
     * rk_table_spec_stored_rows() says how many there are. In a table without `kept`, id i reads stored row i. */
    const void *(*model_stored_rows)(const struct rk_model *model, uint32_t table, uint64_t first, uint64_t *count);
    /* Where `kept` is: rk_kept_num_blocks() blocks. An id whose bit is set reads the stored row whose number is the
     * block's count and the set bits before it; any other id the last one. NULL: the table has all its rows. */
    const struct rk_kept_block *(*model_kept)(const struct rk_model *model, uint32_t table);
    /* True once a file of the model is known to have been truncated or overwritten while it is in use. */
    bool (*model_damaged)(const struct rk_model *model);

    /* The numbers that encoded rows and layers stand for. */
    void (*decode_row)(enum rk_row_format format, const void *row, size_t dim, float *values);
    void (*decode_dense)(enum rk_dense_format format, const void *elements, const float *scales, size_t rows,
                         size_t columns, float *values);
};

/* How far a logit may be from the one that the processor computes, as a part of max(1, |that one|). Where inputs are
 * rounded to a few levels, a difference in the last bit is seldom one of a whole level. */
struct rk_error_bound {
    double usual; /* 95 logits of 100 are as near */
    double most;  /* all are */
};

struct rk_capabilities {
    uint32_t row_formats;   /* bit 1 << enum rk_row_format: tables that it can read */
    uint32_t dense_formats; /* bit 1 << enum rk_dense_format: layers, and vectors of the dot interaction */
    uint32_t interactions;  /* bit 1 << enum rk_interaction_op */
    bool exact;             /* every logit has the bits that rankd's scalar kernels give */
    /* Otherwise: of the formats of a model's layers and vectors, the one with the largest bounds counts. */
    struct rk_error_bound error[RK_DENSE_FORMAT_COUNT];
    /* run() does not wait for anything but the calling thread's own computing: small requests may be scored on an
     * event loop, which must not sleep. */
    bool in_place;
    uint32_t num_runners; /* how many keep the device busy; rankd then starts as many workers. 0: one per processor */
};

struct rk_load_options {
    /* Long work reports itself as in rk_model_open: `what` is static text, done and total in bytes. May be NULL. */
    void (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
    void *progress_context;
};

struct rk_backend {
    /* What it was compiled with: RK_BACKEND_COMPILED fills them in. */
    uint32_t abi, bytes;
    uint64_t layout;
    const char *name; /* "cuda": letters, digits, '_' and '-' */

    /* `options` is the text of rankd's option backend_options, "" when it is not set; the backend says what may stand
     * in it. The host functions stay valid for the life of the process. */
    enum rk_status (*open)(const struct rk_backend_host *host, const char *options, struct rk_device **device,
                           struct rk_error *error);
    void (*close)(struct rk_device *device);
    /* One line for people: which device, which instruction sets, how much memory. */
    const char *(*describe)(const struct rk_device *device);
    const struct rk_capabilities *(*capabilities)(const struct rk_device *device);

    /* Readies a model that was checked and opened (its towers packed). Only models within the capabilities. */
    enum rk_status (*load)(struct rk_device *device, const struct rk_model *model,
                           const struct rk_load_options *options, struct rk_loaded **loaded, struct rk_error *error);
    void (*unload)(struct rk_loaded *loaded);

    /* For batches of up to max_batch candidates; allocates all that its runs will need. */
    enum rk_status (*create)(struct rk_loaded *loaded, uint32_t max_batch, struct rk_runner **runner,
                             struct rk_error *error);
    void (*destroy)(struct rk_runner *runner);

    /* Scores all slices as one batch and writes their logits [count][num_heads]. Counts sum to at most max_batch, and
     * may be 0, as may num_slices; a request may have any number of ids. Requests are bound (model/request.h): ids are
     * rows, dense values are finite. cost: where the time went, all of the run and nothing else, or NULL, when nobody
     * asks. error: set on failure. Allocates nothing once it is warm. */
    enum rk_status (*run)(struct rk_runner *runner, const struct rk_slice *slices, uint32_t num_slices,
                          struct rk_run_cost *cost, struct rk_error *error);
};
#define RK_BACKEND_COMPILED .abi = RK_BACKEND_ABI, .bytes = sizeof(struct rk_backend), .layout = RK_BACKEND_LAYOUT

/* A plug-in defines, with default visibility,
 *
 *     const struct rk_backend rankd_backend = {RK_BACKEND_COMPILED, .name = "cuda", .open = ..., ...};
 *
 * with every function there, and is linked as rankd-cuda.so without rankd's libraries. */
#define RK_BACKEND_SYMBOL "rankd_backend"

#endif
