/* What computes the scores: one backend with its device open, for all models. */
#ifndef RANKD_SERVER_COMPUTE_H
#define RANKD_SERVER_COMPUTE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "model/backends.h"

struct rk_compute {
    const struct rk_backend *backend;
    struct rk_device *device;
    const struct rk_capabilities *capabilities;
    const char *description; /* one line for people */
    atomic_bool lost;        /* a run said so: nothing can be scored until rankd is started anew */
};

/* name: "cpu", a plug-in's name or a path; folder: where plug-ins are looked for first, "" for none; then come
 * rankd's folder of plug-ins and the folder of the program itself. device_options: the backend's own. */
enum rk_status rk_compute_open(const char *name, const char *folder, const char *device_options,
                               struct rk_compute *compute, struct rk_error *error);
void rk_compute_close(struct rk_compute *compute); /* all models must have been unloaded */

#endif
