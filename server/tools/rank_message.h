/* From a request as people write it to the bytes of a RankRequest. */
#ifndef RANKD_SERVER_TOOLS_RANK_MESSAGE_H
#define RANKD_SERVER_TOOLS_RANK_MESSAGE_H

#include "model/request.h"
#include "server/tools/rankctl.h"

struct rk_rank_message {
    uint8_t *bytes;
    size_t length;
    const char *title_feature; /* whose first ids were sent as candidate_ids; NULL: none were */
};

/* Everything lies in the arena. RK_INVALID when the title feature that was asked for is not one, or has a candidate
 * without an id. */
enum rk_status rk_rank_message_build(const struct rk_ctl_options *options, const struct rk_named_request *named,
                                     struct rk_arena *arena, struct rk_rank_message *message, struct rk_error *error);

#endif
