/* Priority classes: their names and weights, as the option priority_weights gives them: "interactive=8,batch=1". */
#ifndef RANKD_SERVER_PRIORITIES_H
#define RANKD_SERVER_PRIORITIES_H

#include <stdint.h>

#include "quant/base/status.h"

#define RK_MAX_PRIORITIES      8
#define RK_PRIORITY_NAME_BYTES 32 /* with the NUL */
#define RK_MAX_PRIORITY_WEIGHT 1000u

struct rk_priorities {
    uint32_t count; /* at least 1 */
    struct rk_priority {
        char name[RK_PRIORITY_NAME_BYTES];
        uint32_t weight;          /* its share of the workers' time beside the others, while they all have work */
    } classes[RK_MAX_PRIORITIES]; /* a request that names none is of the first */
};

/* RK_INVALID: "priority_weights is 'a=0': the weight of 'a' ...". */
enum rk_status rk_priorities_parse(const char *text, struct rk_priorities *priorities, struct rk_error *error);

/* "" is the first. RK_INVALID names those that there are. */
enum rk_status rk_priorities_find(const struct rk_priorities *priorities, const char *name, uint32_t *index,
                                  struct rk_error *error);

#endif
