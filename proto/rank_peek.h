/* What must be known of a RankRequest to refuse it, read without decoding it. */
#ifndef RANKD_PROTO_RANK_PEEK_H
#define RANKD_PROTO_RANK_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_rank_peek {
    const uint8_t *model, *priority; /* in the message's bytes, without a NUL; NULL: not given */
    size_t model_bytes, priority_bytes;
    uint32_t num_candidates;
};

/* Reads the outermost fields alone: some tens of nanoseconds, however long the message is. False: it is no message, or
 * one with more fields than a client has reason to send; decoding it will tell. */
bool rk_rank_peek(const uint8_t *bytes, size_t length, struct rk_rank_peek *peek);

/* Likewise of a RankStreamRequest; `request` points into the bytes, and may be peeked into. */
struct rk_rank_stream_peek {
    uint64_t id;
    const uint8_t *request; /* NULL: not given */
    size_t request_bytes;
};
bool rk_rank_stream_peek(const uint8_t *bytes, size_t length, struct rk_rank_stream_peek *peek);

#endif
