/* One row for each reason. */
#include "server/refusal.h"

static const struct {
    const char *name, *text;
    enum rk_status status;
} table[RK_NUM_REFUSAL_REASONS] = {
    [RK_NOT_REFUSED] = {"none", "", RK_OK},
    [RK_REFUSED_LATE] = {"late", "the deadline passed before the work began, or left too little time for it",
                         RK_DEADLINE},
    [RK_REFUSED_BEHIND] = {"behind",
                           "the work that waits before this request leaves too little time until its deadline",
                           RK_EXHAUSTED},
    [RK_REFUSED_FULL] = {"full", "the queue is full (max_queued_requests, max_queued_ms)", RK_EXHAUSTED},
    [RK_REFUSED_BYTES] = {"bytes", "the requests that wait take all the memory that they may (max_queued_mib)",
                          RK_EXHAUSTED},
    [RK_REFUSED_OVERLOAD] = {"overload", "more requests come than can be done", RK_EXHAUSTED},
    [RK_REFUSED_SHARE] = {"share", "more requests come than can be done, and this client has had its share",
                          RK_EXHAUSTED},
    [RK_REFUSED_MEMORY] = {"memory", "the server is at its memory limit (memory_limit_mib)", RK_EXHAUSTED},
};

const char *rk_refusal_name(enum rk_refusal_reason reason)
{
    return table[reason].name;
}

enum rk_status rk_refusal_status(enum rk_refusal_reason reason)
{
    return table[reason].status;
}

const char *rk_refusal_text(enum rk_refusal_reason reason)
{
    return table[reason].text;
}
