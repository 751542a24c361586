/* Why a request is not taken, and what its caller is told. */
#ifndef RANKD_SERVER_REFUSAL_H
#define RANKD_SERVER_REFUSAL_H

#include <stdint.h>

#include "quant/base/status.h"

enum rk_refusal_reason {
    RK_NOT_REFUSED,
    RK_REFUSED_LATE,     /* its deadline leaves less time than the work alone takes */
    RK_REFUSED_BEHIND,   /* what waits before it leaves too little */
    RK_REFUSED_FULL,     /* its queue has as many requests, or as much work, as it may */
    RK_REFUSED_BYTES,    /* so have all queues together bytes */
    RK_REFUSED_OVERLOAD, /* more comes than can be done: what would have to wait is sent away */
    RK_REFUSED_SHARE,    /* so it is, and its client has had its share */
    RK_REFUSED_MEMORY,   /* the process is at its memory limit */
    RK_NUM_REFUSAL_REASONS
};

struct rk_job_refusal {
    enum rk_refusal_reason reason;
    uint32_t pushback_ms; /* when the caller may try again; 0: there is no use in that */
};

/* "behind": as the status names it. */
const char *rk_refusal_name(enum rk_refusal_reason reason);

/* RK_DEADLINE where an idle server could not do it either, else RK_EXHAUSTED. */
enum rk_status rk_refusal_status(enum rk_refusal_reason reason);

/* For the caller: "the queue ... is full". */
const char *rk_refusal_text(enum rk_refusal_reason reason);

#endif
