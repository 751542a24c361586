/* rankd.v1.Ranking/RankStream: many requests on one call. One per event loop. */
#ifndef RANKD_SERVER_RANK_STREAM_H
#define RANKD_SERVER_RANK_STREAM_H

#include "server/rank_service.h"

struct rk_rank_stream_service {
    struct rk_rank_entry entry; /* its protocol is filled in by rk_rank_stream_method */
    uint32_t max_in_work;       /* requests of one stream; more are left unread */
};

/* The service must outlive the sessions that have the method. */
struct rk_method rk_rank_stream_method(struct rk_rank_stream_service *service);

#endif
