/* The processors that this process may run on. */
#ifndef RANKD_SERVER_PROCESSORS_H
#define RANKD_SERVER_PROCESSORS_H

#include <pthread.h>
#include <stdint.h>

#include "quant/base/status.h"

/* How many there are in the process's affinity mask (taskset, cgroups, systemd's CPUAffinity); at least 1. */
uint32_t rk_processors_count(void);

/* Has the next thread that is made with these attributes run on one processor alone: number `index` of the mask,
 * counted round and round. *processor is the system's number for it. RK_INVALID names it when the system refuses. */
enum rk_status rk_processors_pin(pthread_attr_t *attributes, uint32_t index, uint32_t *processor,
                                 struct rk_error *error);

#endif
