/* State is how much of the prefix and of the message has arrived; each feed moves at most one message forward. The
 * buffer doubles as bytes arrive, so five bytes that declare 4 MiB cost nothing. The session's thread. */
#include "server/grpc/deframer.h"

#include <string.h>

#include "server/grpc/pool.h"

#define FIRST_BYTES 4096

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static enum rk_deframed check_prefix(struct rk_deframer *deframer, uint64_t max_message_bytes)
{
    const uint8_t *prefix = deframer->prefix;
    deframer->length =
        (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 | (uint32_t)prefix[4];
    deframer->arrived = 0;
    if (prefix[0] > 1)
        return RK_DEFRAMED_BAD_FLAG;
    if (prefix[0] == 1 && !deframer->takes_compressed)
        return RK_DEFRAMED_COMPRESSED;
    if (deframer->length > max_message_bytes)
        return RK_DEFRAMED_TOO_LONG;
    return RK_DEFRAMED_MORE;
}

/* Room for `more` bytes, which the message still lacks. */
static enum rk_deframed grow(struct rk_deframer *deframer, struct rk_pool *pool, uint64_t *budget, size_t more)
{
    size_t needed = deframer->arrived + more;
    if (needed <= deframer->capacity && deframer->message != NULL)
        return RK_DEFRAMED_MORE;
    size_t wanted = 2 * deframer->capacity;
    if (wanted < FIRST_BYTES)
        wanted = FIRST_BYTES;
    if (wanted < needed)
        wanted = needed;
    size_t capacity = min_size(wanted, deframer->length);
    if (capacity - deframer->capacity > *budget)
        return RK_DEFRAMED_TOO_MUCH;
    uint8_t *message = rk_pool_realloc(pool, deframer->message, capacity);
    if (message == NULL)
        return RK_DEFRAMED_NO_MEMORY;
    *budget -= capacity - deframer->capacity;
    deframer->message = message;
    deframer->capacity = capacity;
    return RK_DEFRAMED_MORE;
}

enum rk_deframed rk_deframer_feed(struct rk_deframer *deframer, struct rk_pool *pool, uint64_t max_message_bytes,
                                  uint64_t *budget, const uint8_t *bytes, size_t length, size_t *taken)
{
    *taken = 0;
    if (deframer->prefix_bytes < RK_GRPC_PREFIX_BYTES) {
        size_t part = min_size(length, (size_t)(RK_GRPC_PREFIX_BYTES - deframer->prefix_bytes));
        memcpy(deframer->prefix + deframer->prefix_bytes, bytes, part);
        deframer->prefix_bytes = (uint8_t)(deframer->prefix_bytes + part);
        *taken = part;
        if (deframer->prefix_bytes < RK_GRPC_PREFIX_BYTES)
            return RK_DEFRAMED_MORE;
        enum rk_deframed checked = check_prefix(deframer, max_message_bytes);
        if (checked != RK_DEFRAMED_MORE)
            return checked;
    }
    size_t part = min_size(length - *taken, deframer->length - deframer->arrived);
    if (part == 0 && deframer->length > 0) /* a length alone is given no memory */
        return RK_DEFRAMED_MORE;
    enum rk_deframed grown = grow(deframer, pool, budget, part);
    if (grown != RK_DEFRAMED_MORE)
        return grown;
    memcpy(deframer->message + deframer->arrived, bytes + *taken, part);
    deframer->arrived += (uint32_t)part;
    *taken += part;
    return deframer->arrived == deframer->length ? RK_DEFRAMED_MESSAGE : RK_DEFRAMED_MORE;
}

void rk_deframer_next(struct rk_deframer *deframer, struct rk_pool *pool, uint64_t *budget)
{
    rk_pool_free(pool, deframer->message);
    *budget += deframer->capacity;
    *deframer = (struct rk_deframer){.takes_compressed = deframer->takes_compressed};
}

bool rk_deframer_is_compressed(const struct rk_deframer *deframer)
{
    return deframer->prefix[0] == 1;
}

bool rk_deframer_at_boundary(const struct rk_deframer *deframer)
{
    return deframer->prefix_bytes == 0;
}
