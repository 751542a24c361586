/* gRPC messages out of the bytes of a stream: [compressed flag: 1][length: 4, big endian][message] ..., cut anywhere.
 * Memory grows with the bytes that have arrived, never with the length that was merely declared. */
#ifndef RANKD_SERVER_GRPC_DEFRAMER_H
#define RANKD_SERVER_GRPC_DEFRAMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_pool;

#define RK_GRPC_PREFIX_BYTES 5

struct rk_deframer {
    uint8_t prefix[RK_GRPC_PREFIX_BYTES];
    uint8_t prefix_bytes; /* of the prefix that have arrived */
    uint8_t *message;
    size_t capacity;
    uint32_t length, arrived; /* of the message, once the prefix is complete */
    bool takes_compressed;    /* the owner's: the stream has an encoding, so the flag may be 1 */
};

enum rk_deframed {
    RK_DEFRAMED_MORE,       /* all input was taken and no message is whole yet */
    RK_DEFRAMED_MESSAGE,    /* message[0 .. length) is whole; call rk_deframer_next before feeding on */
    RK_DEFRAMED_COMPRESSED, /* the flag is 1, and the stream has no encoding */
    RK_DEFRAMED_BAD_FLAG,   /* the flag, prefix[0], is neither 0 nor 1 */
    RK_DEFRAMED_TOO_LONG,   /* `length` is over max_message_bytes */
    RK_DEFRAMED_TOO_MUCH,   /* *budget, what all streams may hold together, is used up */
    RK_DEFRAMED_NO_MEMORY,
};

/* Takes from the input up to the end of a message. *budget is lowered by the memory taken. After anything but MORE and
 * MESSAGE the stream has no more messages. */
enum rk_deframed rk_deframer_feed(struct rk_deframer *deframer, struct rk_pool *pool, uint64_t max_message_bytes,
                                  uint64_t *budget, const uint8_t *bytes, size_t length, size_t *taken);

/* Gives the message's memory back and waits for the next prefix; also ends a deframer. */
void rk_deframer_next(struct rk_deframer *deframer, struct rk_pool *pool, uint64_t *budget);

/* Of a message that is whole: it is to be inflated. */
bool rk_deframer_is_compressed(const struct rk_deframer *deframer);

/* True between messages: the only place where a stream may end. */
bool rk_deframer_at_boundary(const struct rk_deframer *deframer);

#endif
