/* What a request's candidates are ordered by. */
#ifndef RANKD_SERVER_RANK_ORDER_H
#define RANKD_SERVER_RANK_ORDER_H

#include "model/spec.h"
#include "proto/rankd.pb-c.h"

struct rk_rank_order {
    const struct rk_value_model *value; /* NULL: the head */
    uint32_t head;
};

/* The request's order_by, value_model or value, else the model's default value model, else its first head. RK_INVALID
 * when more than one is given, or names what is not there, or the formula is wrong. What is made is in the arena. */
enum rk_status rk_rank_order_choose(const Rankd__V1__RankRequest *message, const struct rk_model_spec *spec,
                                    struct rk_arena *arena, struct rk_rank_order *order, struct rk_error *error);

#endif
